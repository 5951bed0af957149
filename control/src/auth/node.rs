//! What a node may do: read what it needs to run its own pods, and write its own state.
//!
//! This is Kubernetes' node authorizer and its NodeRestriction admission. What must stay true: a node never learns a
//! secret that none of its pods refers to, and never changes another node or another node's pod.

use serde_json::Value;
use wherry_api::object;
use wherry_api::registry::Registry;
use wherry_api::resource::GroupResource;
use wherry_api::selector::FieldSelector;

use super::references::{self, Referenced};
use super::rules::{READ, Rule, WRITE, rule};
use super::{Attributes, Decision};
use crate::cache::{At, Cache, Entry, Filter};

/// What every node may read, and what it may report. Objects in a write are judged by [`NodeAuthorizer::admit`].
const ANY_NODE: &[Rule] = &[
    rule(READ, &[""], &["services", "endpoints", "namespaces", "nodes"]),
    rule(READ, &["discovery.k8s.io"], &["endpointslices"]),
    rule(READ, &["node.k8s.io"], &["runtimeclasses"]),
    rule(READ, &["networking.k8s.io"], &["networkpolicies"]),
    rule(READ, &["storage.k8s.io"], &["csidrivers", "storageclasses"]),
    rule(&["get"], &["images.wherry.dev"], &["images"]),
    rule(&["create", "update", "patch"], &["", "events.k8s.io"], &["events"]),
    rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
    rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
];

/// The namespace of nodes' leases.
const LEASES: &str = "kube-node-lease";
/// Label prefixes under Kubernetes' own domains that a node may set on itself.
const OWN_LABELS: &[&str] = &["kubelet.kubernetes.io/", "node.kubernetes.io/"];
/// Labels under Kubernetes' own domains that a node may set on itself.
const OWN_LABEL_NAMES: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Judges nodes' requests.
#[derive(Debug)]
pub struct NodeAuthorizer {
    cache: Cache,
    registry: Registry,
}

impl NodeAuthorizer {
    pub fn new(cache: Cache, registry: Registry) -> Self {
        Self { cache, registry }
    }

    /// Whether node `node` may make this request.
    pub async fn authorize(&self, node: &str, attributes: &Attributes) -> Decision {
        if ANY_NODE.iter().any(|rule| rule.allows(attributes)) {
            return Decision::Allow;
        }
        match (attributes.group.as_str(), attributes.resource.as_str()) {
            ("", "nodes") => own_node(node, attributes),
            ("", "pods") => self.pods(node, attributes),
            ("", "secrets" | "configmaps" | "persistentvolumeclaims") => self.referenced(node, attributes).await,
            ("", "serviceaccounts") => self.service_account(node, attributes).await,
            ("coordination.k8s.io", "leases") => own_lease(node, attributes),
            _ => Decision::Deny(String::new()),
        }
    }

    /// Whether node `node` may write this object.
    pub fn admit(&self, node: &str, attributes: &Attributes, new: Option<&Value>, old: Option<&Value>) -> Decision {
        match (attributes.group.as_str(), attributes.resource.as_str()) {
            ("", "nodes") => admit_node(node, new, old),
            ("", "pods") => admit_pod(node, attributes, old),
            ("coordination.k8s.io", "leases") => {
                admit_name(node, new, "can only access lease with the same name as the requesting node")
            }
            ("", "serviceaccounts") if attributes.subresource == "token" => self.admit_token(node, attributes, new),
            _ => Decision::Allow,
        }
    }

    fn pods(&self, node: &str, attributes: &Attributes) -> Decision {
        match (attributes.verb.as_str(), attributes.subresource.as_str()) {
            ("list" | "watch", "") => {
                let wanted = self.selector(attributes).and_then(|s| s.required("spec.nodeName").map(str::to_owned));
                if wanted.as_deref() == Some(node) || self.names_own_pod(node, attributes) {
                    Decision::Allow
                } else {
                    Decision::deny("can only list/watch pods with spec.nodeName field selector")
                }
            }
            ("get" | "delete", "") | ("get" | "update" | "patch", "status") | ("create", "eviction") => {
                if self.own_pod(node, &attributes.namespace, &attributes.name) {
                    Decision::Allow
                } else {
                    Decision::deny(no_relationship(node))
                }
            }
            _ => Decision::Deny(String::new()),
        }
    }

    fn selector(&self, attributes: &Attributes) -> Option<FieldSelector> {
        let descriptor = self.registry.by_group_resource(&attributes.group, &attributes.resource)?;
        FieldSelector::parse(descriptor, attributes.field_selector.as_deref()?).ok()
    }

    /// The one object that the request is about, from its path or its `metadata.name` selector.
    fn one_name(&self, attributes: &Attributes) -> Option<String> {
        if !attributes.name.is_empty() {
            return Some(attributes.name.clone());
        }
        self.selector(attributes)?.required("metadata.name").map(str::to_owned)
    }

    fn names_own_pod(&self, node: &str, attributes: &Attributes) -> bool {
        self.one_name(attributes).is_some_and(|name| self.own_pod(node, &attributes.namespace, &name))
    }

    fn own_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        let Some(pods) = self.registry.by_group_resource("", "pods") else { return false };
        let entry = self.cache.get(&pods.group_resource(), namespace, name);
        entry.is_some_and(|entry| entry.meta.field("spec.nodeName") == node)
    }

    /// Reading by name what one of the node's pods refers to.
    async fn referenced(&self, node: &str, attributes: &Attributes) -> Decision {
        if !READ.contains(&attributes.verb.as_str()) || !attributes.subresource.is_empty() {
            return Decision::deny("can only read resources of this type");
        }
        let Some(name) = self.one_name(attributes) else {
            return Decision::deny("can only read namespaced object of this type");
        };
        let Some(kind) = Referenced::of(&attributes.resource) else { return Decision::Deny(String::new()) };
        if self.any_pod_refers(node, &attributes.namespace, kind, &name).await {
            Decision::Allow
        } else {
            Decision::deny(no_relationship(node))
        }
    }

    async fn service_account(&self, node: &str, attributes: &Attributes) -> Decision {
        let fits =
            matches!((attributes.verb.as_str(), attributes.subresource.as_str()), ("get", "") | ("create", "token"));
        if !fits {
            return Decision::deny("can only get, or create tokens for, individual service accounts");
        }
        let kind = Referenced::ServiceAccount;
        if self.any_pod_refers(node, &attributes.namespace, kind, &attributes.name).await {
            Decision::Allow
        } else {
            Decision::deny(no_relationship(node))
        }
    }

    async fn any_pod_refers(&self, node: &str, namespace: &str, kind: Referenced, name: &str) -> bool {
        let pods = self.pods_of(node, namespace).await;
        pods.iter().any(|pod| references::refers(&pod.bytes, kind, name))
    }

    async fn pods_of(&self, node: &str, namespace: &str) -> Vec<std::sync::Arc<Entry>> {
        let Some(pods) = self.registry.by_group_resource("", "pods") else { return Vec::new() };
        let Ok(fields) = FieldSelector::parse(pods, &format!("spec.nodeName={node}")) else { return Vec::new() };
        let filter = Filter { namespace: Some(namespace.to_owned()), fields, ..Filter::default() };
        match self.cache.list(pods, &filter, At::Latest, None, 0).await {
            Ok(list) => list.entries,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot list a node's pods");
                Vec::new()
            }
        }
    }

    /// A token that a node asks for is bound to one of its pods.
    fn admit_token(&self, node: &str, attributes: &Attributes, new: Option<&Value>) -> Decision {
        let bound = new.and_then(|request| request.pointer("/spec/boundObjectRef"));
        let field = |name: &str| bound.and_then(|b| b.get(name)).and_then(Value::as_str).unwrap_or_default();
        if bound.is_none() || field("kind") != "Pod" {
            return Decision::deny("node requested token not bound to a pod");
        }
        if field("uid").is_empty() {
            return Decision::deny("node requested token with a pod binding without a uid");
        }
        let pods = GroupResource { group: "".into(), resource: "pods".into() };
        match self.cache.get(&pods, &attributes.namespace, field("name")) {
            Some(pod) if *pod.meta.uid != *field("uid") => {
                Decision::deny("the UID in the bound object reference does not match the UID in record")
            }
            Some(pod) if !self.own_pod(node, &attributes.namespace, field("name")) || pod.meta.deleting => {
                Decision::deny("node requested token bound to a pod scheduled on a different node")
            }
            Some(_) => Decision::Allow,
            None => Decision::deny(format!("pod {:?} not found", field("name"))),
        }
    }
}

fn no_relationship(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

fn own_node(node: &str, attributes: &Attributes) -> Decision {
    match (attributes.verb.as_str(), attributes.subresource.as_str()) {
        // The object's name is in the body; `admit` compares it.
        ("create", "") => Decision::Allow,
        ("update" | "patch", "" | "status") if attributes.name == node => Decision::Allow,
        ("update" | "patch", "" | "status") => {
            Decision::deny(format!("node {node:?} is not allowed to modify node {:?}", attributes.name))
        }
        _ => Decision::Deny(String::new()),
    }
}

fn own_lease(node: &str, attributes: &Attributes) -> Decision {
    if attributes.namespace != LEASES {
        return Decision::deny(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    match attributes.verb.as_str() {
        "create" => Decision::Allow,
        verb if (verb == "get" || WRITE.contains(&verb)) && attributes.name == node => Decision::Allow,
        _ => Decision::deny("can only access node lease with the same name as the requesting node"),
    }
}

fn admit_name(node: &str, new: Option<&Value>, reason: &str) -> Decision {
    match new {
        Some(object) if object::name(object) != node => Decision::deny(reason),
        _ => Decision::Allow,
    }
}

fn admit_node(node: &str, new: Option<&Value>, old: Option<&Value>) -> Decision {
    let Some(new) = new else { return Decision::Allow };
    if object::name(new) != node {
        return Decision::deny(format!("node {node:?} is not allowed to modify node {:?}", object::name(new)));
    }
    let taints = |object: &Value| object.pointer("/spec/taints").filter(|t| !t.is_null()).cloned();
    if old.is_some_and(|old| taints(old) != taints(new)) {
        return Decision::deny(format!("node {node:?} is not allowed to modify taints"));
    }
    let forbidden = changed_labels(new, old).into_iter().filter(|label| !own_label(label)).collect::<Vec<_>>();
    if forbidden.is_empty() {
        Decision::Allow
    } else {
        Decision::deny(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
    }
}

fn changed_labels(new: &Value, old: Option<&Value>) -> Vec<String> {
    let labels = |object: Option<&Value>| {
        object.and_then(|o| o.pointer("/metadata/labels")).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (new, old) = (labels(Some(new)), labels(old));
    let differs = |key: &&String| new.get(*key) != old.get(*key);
    let mut keys: Vec<String> = new.keys().chain(old.keys()).filter(differs).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Labels outside Kubernetes' domains are free, except those that isolate workloads.
fn own_label(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    if domain == "node-restriction.kubernetes.io" || domain.ends_with(".node-restriction.kubernetes.io") {
        return false;
    }
    let reserved = ["kubernetes.io", "k8s.io"].iter().any(|d| domain == *d || domain.ends_with(&format!(".{d}")));
    !reserved || OWN_LABEL_NAMES.contains(&label) || OWN_LABELS.iter().any(|prefix| label.starts_with(prefix))
}

fn admit_pod(node: &str, attributes: &Attributes, old: Option<&Value>) -> Decision {
    let node_of = |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
    match old {
        Some(pod) if node_of(pod) != node => {
            let what = if attributes.verb == "delete" { "delete" } else { "update status for" };
            Decision::deny(format!("node {node:?} can only {what} pods with spec.nodeName set to itself"))
        }
        _ => Decision::Allow,
    }
}
