//! What a node may do: read what it needs to run its own pods, and write its own state.
//!
//! This is Kubernetes' node authorizer and its NodeRestriction admission. What must stay true: a node never learns a
//! secret that none of its pods refers to, and never changes another node or another node's pod.

use serde_json::Value;
use wherry_api::kinds::core::pod::MIRROR;
use wherry_api::object;
use wherry_api::registry::Registry;
use wherry_api::resource::GroupResource;
use wherry_api::selector::FieldSelector;

use super::graph::Graph;
use super::references::{self, Referenced};
use super::rules::{READ, Rule, WRITE, rule};
use super::{Attributes, Decision, NODE_PREFIX, certificates, tokens};
use crate::cache::{Cache, Entry};

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
    rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews", "localsubjectaccessreviews"]),
    rule(&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
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
    graph: Graph,
}

impl NodeAuthorizer {
    pub fn new(cache: Cache, registry: Registry) -> Self {
        Self { graph: Graph::new(cache.clone()), cache, registry }
    }

    /// Whether node `node` may make this request.
    pub fn authorize(&self, node: &str, attributes: &Attributes) -> Decision {
        if ANY_NODE.iter().any(|rule| rule.allows(attributes)) {
            return Decision::Allow;
        }
        match (attributes.group.as_str(), attributes.resource.as_str()) {
            ("", "nodes") => own_node(node, attributes),
            ("", "pods") => self.pods(node, attributes),
            ("", "secrets" | "configmaps") => self.referenced(node, attributes),
            ("", "persistentvolumeclaims") => self.claim(node, attributes),
            ("", "persistentvolumes") => self.volume(node, attributes),
            ("resource.k8s.io", "resourceclaims") => self.only_get(node, attributes),
            ("resource.k8s.io", "resourceslices") => self.slice(node, attributes),
            ("storage.k8s.io", "volumeattachments") => self.attachment(node, attributes),
            ("storage.k8s.io", "csinodes") => own_csi_node(node, attributes),
            ("", "serviceaccounts") => self.service_account(node, attributes),
            ("coordination.k8s.io", "leases") => own_lease(node, attributes),
            _ => Decision::Deny(String::new()),
        }
    }

    /// Whether node `node` may write this object.
    pub fn admit(&self, node: &str, attributes: &Attributes, new: Option<&Value>, old: Option<&Value>) -> Decision {
        match (attributes.group.as_str(), attributes.resource.as_str()) {
            ("", "nodes") => admit_node(node, new, old),
            ("", "pods") if attributes.verb == "create" && attributes.subresource.is_empty() => {
                admit_mirror_pod(node, new)
            }
            ("", "pods") => match attributes.subresource.as_str() {
                "" | "status" => admit_pod(node, attributes, new, old),
                "eviction" if self.own_pod(node, &attributes.namespace, &attributes.name) => Decision::Allow,
                "eviction" => {
                    Decision::deny(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
                }
                other => Decision::deny(format!(
                    "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
                )),
            },
            ("", "persistentvolumeclaims") => admit_claim(node, new, old),
            ("storage.k8s.io", "csinodes") => {
                admit_name(node, new, "can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => admit_slice(node, new.or(old)),
            ("certificates.k8s.io", "certificatesigningrequests") if old.is_none() => admit_request(node, new),
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
            // A mirror pod; `admit` looks at it.
            ("create", "") => Decision::Allow,
            ("get" | "delete", "") | ("get" | "update" | "patch", "status") | ("create", "eviction") => {
                if_related(node, self.own_pod(node, &attributes.namespace, &attributes.name))
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
    fn referenced(&self, node: &str, attributes: &Attributes) -> Decision {
        if !READ.contains(&attributes.verb.as_str()) || !attributes.subresource.is_empty() {
            return Decision::deny("can only read resources of this type");
        }
        match self.one_name(attributes) {
            Some(name) => self.related(node, attributes, &name),
            None => Decision::deny("can only read namespaced object of this type"),
        }
    }

    fn only_get(&self, node: &str, attributes: &Attributes) -> Decision {
        if !gets_object(attributes) {
            return Decision::deny(ONLY_GET);
        }
        self.related(node, attributes, &attributes.name)
    }

    /// A claim is read, and its status written, by a node that mounts it.
    fn claim(&self, node: &str, attributes: &Attributes) -> Decision {
        match (attributes.verb.as_str(), attributes.subresource.as_str()) {
            ("get", "") | ("get" | "update" | "patch", "status") => self.related(node, attributes, &attributes.name),
            (_, "status") => Decision::deny("can only get/update/patch this type"),
            _ => Decision::deny(ONLY_GET),
        }
    }

    /// A volume is read by a node that mounts the claim that it is bound to.
    fn volume(&self, node: &str, attributes: &Attributes) -> Decision {
        if !gets_object(attributes) {
            return Decision::deny(ONLY_GET);
        }
        let mounted = self.tree("", "persistentvolumes", &attributes.name).is_some_and(|volume| {
            let text = |field: &str| object::text_at(&volume, &format!("spec.claimRef.{field}"));
            self.graph.refers(node, Referenced::PersistentVolumeClaim, &text("namespace"), &text("name"))
        });
        if_related(node, mounted)
    }

    fn attachment(&self, node: &str, attributes: &Attributes) -> Decision {
        if !gets_object(attributes) {
            return Decision::deny(ONLY_GET);
        }
        if_related(node, self.is_of("storage.k8s.io", "volumeattachments", &attributes.name, node))
    }

    /// A node publishes its own devices.
    fn slice(&self, node: &str, attributes: &Attributes) -> Decision {
        match attributes.verb.as_str() {
            _ if !attributes.subresource.is_empty() => Decision::deny("cannot authorize ResourceSlice subresources"),
            // `admit` looks at it.
            "create" => Decision::Allow,
            "get" | "update" | "patch" | "delete" => {
                if_related(node, self.is_of("resource.k8s.io", "resourceslices", &attributes.name, node))
            }
            _ => {
                let own = self.selector(attributes).is_some_and(|s| s.required("spec.nodeName") == Some(node));
                if own {
                    Decision::Allow
                } else {
                    let why = "can only list/watch/deletecollection resourceslices with spec.nodeName field selector";
                    Decision::deny(why)
                }
            }
        }
    }

    fn related(&self, node: &str, attributes: &Attributes, name: &str) -> Decision {
        let kind = Referenced::of(&attributes.resource);
        if_related(node, kind.is_some_and(|kind| self.graph.refers(node, kind, &attributes.namespace, name)))
    }

    /// Whether a cluster-scoped object names the node that it is of.
    fn is_of(&self, group: &str, plural: &str, name: &str, node: &str) -> bool {
        self.tree(group, plural, name).is_some_and(|object| object::text_at(&object, "spec.nodeName") == node)
    }

    /// A cluster-scoped object.
    fn tree(&self, group: &str, plural: &str, name: &str) -> Option<Value> {
        let resource = self.registry.by_group_resource(group, plural)?.group_resource();
        let entry: std::sync::Arc<Entry> = self.cache.get(&resource, "", name)?;
        entry.read().ok()
    }

    fn service_account(&self, node: &str, attributes: &Attributes) -> Decision {
        let fits =
            matches!((attributes.verb.as_str(), attributes.subresource.as_str()), ("get", "") | ("create", "token"));
        if !fits {
            return Decision::deny("can only get, or create tokens for, individual service accounts");
        }
        self.related(node, attributes, &attributes.name)
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
        let pods = GroupResource::new("", "pods");
        match self.cache.get(&pods, &attributes.namespace, field("name")) {
            Some(pod) if *pod.meta.uid != *field("uid") => {
                Decision::deny("the UID in the bound object reference does not match the UID in record")
            }
            Some(pod) if !self.own_pod(node, &attributes.namespace, field("name")) || pod.meta.deleting => {
                Decision::deny("node requested token bound to a pod scheduled on a different node")
            }
            Some(pod) => admit_audiences(node, new, &pod.bytes),
            None => Decision::deny(format!("pod {:?} not found", field("name"))),
        }
    }
}

/// A node is given tokens for those whom its pod's volumes name, and for nobody else.
fn admit_audiences(node: &str, request: Option<&Value>, pod: &[u8]) -> Decision {
    let asked = request.and_then(|request| request.pointer("/spec/audiences")).and_then(Value::as_array);
    let plain = |audience: &str| if audience == tokens::ISSUER { String::new() } else { audience.to_owned() };
    let audience = match asked.map_or(&[][..], Vec::as_slice) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Decision::deny("node may only request 0 or 1 audiences"),
    };
    let pod: Value = serde_json::from_slice(pod).unwrap_or_default();
    let of = |token: &Value| plain(token.get("audience").and_then(Value::as_str).unwrap_or_default());
    if references::tokens(&pod).any(|token| of(token) == plain(audience)) {
        return Decision::Allow;
    }
    Decision::deny(format!(
        "audience {audience:?} not found in pod spec volume, node {node:?} is not authorized to request tokens for this audience"
    ))
}

/// Why a node is not let do more than [`gets_object`].
const ONLY_GET: &str = "can only get individual resources of this type";

fn gets_object(attributes: &Attributes) -> bool {
    attributes.verb == "get" && attributes.subresource.is_empty()
}

/// Allows a node what has to do with it.
fn if_related(node: &str, related: bool) -> Decision {
    if related {
        Decision::Allow
    } else {
        Decision::deny(format!("no relationship found between node '{node}' and this object"))
    }
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

fn own_csi_node(node: &str, attributes: &Attributes) -> Decision {
    if !attributes.subresource.is_empty() {
        return Decision::deny("cannot authorize CSINode subresources");
    }
    match attributes.verb.as_str() {
        "create" => Decision::Allow,
        verb if (verb == "get" || WRITE.contains(&verb)) && attributes.name == node => Decision::Allow,
        _ => Decision::deny("can only access CSINode with the same name as the requesting node"),
    }
}

fn admit_slice(node: &str, slice: Option<&Value>) -> Decision {
    match slice {
        Some(slice) if object::text_at(slice, "spec.nodeName") != node => {
            Decision::deny("can only access ResourceSlice with the same NodeName as the requesting node")
        }
        _ => Decision::Allow,
    }
}

/// A node asks for certificates of nodes for itself only.
fn admit_request(node: &str, request: Option<&Value>) -> Decision {
    let Some(request) = request else { return Decision::Allow };
    let signer = object::text_at(request, "spec.signerName");
    if ![certificates::NODE_CLIENT, certificates::NODE_SERVING].contains(&signer.as_str()) {
        return Decision::Allow;
    }
    let own = format!("{NODE_PREFIX}{node}");
    match certificates::asked(request) {
        Some(asked) if asked.common_name == own => Decision::Allow,
        Some(_) => Decision::deny(format!("can only create a node CSR with CN={own}")),
        None => Decision::deny("unable to parse csr"),
    }
}

/// A node may make the API's picture of a pod that it runs by itself, and that refers to nothing.
fn admit_mirror_pod(node: &str, pod: Option<&Value>) -> Decision {
    let Some(pod) = pod else { return Decision::Allow };
    if object::annotation(pod, MIRROR).is_none() {
        let why = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
        return Decision::deny(why);
    }
    if object::text_at(pod, "spec.nodeName") != node {
        return Decision::deny(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = object::owner_references(pod);
    let owned = matches!(owners.as_slice(), [one] if one.kind == "Node" && one.name == node && one.is_controller());
    if !owned {
        return Decision::deny(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    let found = references::all(pod.to_string().as_bytes());
    match found.first() {
        Some((kind, _)) => {
            Decision::deny(format!("node {node:?} can not create pods that reference {}", kind.plural()))
        }
        None => Decision::Allow,
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
    let owners = |object: &Value| object.pointer("/metadata/ownerReferences").filter(|o| !o.is_null()).cloned();
    if old.is_some_and(|old| owners(old) != owners(new)) {
        return Decision::deny(format!("node {node:?} is not allowed to modify ownerReferences"));
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

/// The claims that were made for a pod from templates.
fn claims(pod: &Value) -> &[Value] {
    let list = pod.pointer("/status/resourceClaimStatuses").and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn admit_pod(node: &str, attributes: &Attributes, new: Option<&Value>, old: Option<&Value>) -> Decision {
    let node_of = |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
    match old {
        Some(pod) if node_of(pod) != node => {
            let what = if attributes.verb == "delete" { "delete" } else { "update status for" };
            Decision::deny(format!("node {node:?} can only {what} pods with spec.nodeName set to itself"))
        }
        Some(pod) if new.is_some_and(|new| !changed_labels(new, Some(pod)).is_empty()) => {
            Decision::deny(format!("node {node:?} cannot update labels through pod status"))
        }
        // They say which claims the node may read.
        Some(pod) if new.is_some_and(|new| claims(new) != claims(pod)) => {
            Decision::deny(format!("node {node:?} cannot update resource claim statuses"))
        }
        _ => Decision::Allow,
    }
}

/// What of a claim a node may write.
const OWN_CLAIM_STATUS: [&str; 4] = ["allocatedResourceStatuses", "allocatedResources", "capacity", "conditions"];

/// A node that mounts a claim says how large it is, and neither whose it is nor whether it may go.
fn admit_claim(node: &str, new: Option<&Value>, old: Option<&Value>) -> Decision {
    let rest = |claim: &Value| {
        let mut rest = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            object::remove_meta(&mut rest, field);
        }
        let mut status = rest.as_object_mut().and_then(|rest| rest.remove("status")).unwrap_or_default();
        if let Some(status) = status.as_object_mut() {
            status.retain(|field, _| !OWN_CLAIM_STATUS.contains(&field.as_str()));
        }
        (rest, status.as_object().filter(|status| !status.is_empty()).cloned())
    };
    match (new, old) {
        (Some(new), Some(old)) if rest(new) != rest(old) => Decision::deny(format!(
            "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
        )),
        _ => Decision::Allow,
    }
}
