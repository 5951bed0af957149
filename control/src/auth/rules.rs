//! Rules as data, in the shape of RBAC's PolicyRule: what the fixed parts of the system may do.

use super::Attributes;

/// Allows some verbs on some resources. `"*"` means any; a resource with a subresource is written `pods/status`, and
/// `*` covers both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub verbs: &'static [&'static str],
    pub groups: &'static [&'static str],
    pub resources: &'static [&'static str],
    /// Empty: any namespace.
    pub namespaces: &'static [&'static str],
}

/// Verbs that only read.
pub(crate) const READ: &[&str] = &["get", "list", "watch"];
/// Verbs that change one object.
pub(crate) const WRITE: &[&str] = &["create", "update", "patch", "delete"];
const ANY: &[&str] = &["*"];

pub(crate) const fn rule(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
) -> Rule {
    Rule { verbs, groups, resources, namespaces: &[] }
}

impl Rule {
    pub(crate) fn allows(&self, attributes: &Attributes) -> bool {
        attributes.is_resource()
            && any(self.verbs, &attributes.verb)
            && any(self.groups, &attributes.group)
            && self.covers_resource(attributes)
            && (self.namespaces.is_empty() || self.namespaces.contains(&attributes.namespace.as_str()))
    }

    fn covers_resource(&self, attributes: &Attributes) -> bool {
        self.resources.iter().any(|resource| match resource.split_once('/') {
            _ if *resource == "*" => true,
            Some(("*", sub)) => sub == attributes.subresource,
            Some((name, sub)) => name == attributes.resource && sub == attributes.subresource,
            None => *resource == attributes.resource && attributes.subresource.is_empty(),
        })
    }
}

fn any(list: &[&str], value: &str) -> bool {
    list.iter().any(|entry| *entry == "*" || *entry == value)
}

/// What the scheduler does.
pub(crate) const SCHEDULER: &[Rule] = &[
    rule(
        READ,
        &[""],
        &[
            "nodes",
            "pods",
            "namespaces",
            "services",
            "replicationcontrollers",
            "persistentvolumes",
            "persistentvolumeclaims",
            "configmaps",
        ],
    ),
    rule(READ, &["apps"], &["replicasets", "statefulsets"]),
    rule(READ, &["policy"], &["poddisruptionbudgets"]),
    rule(READ, &["scheduling.k8s.io"], &["priorityclasses"]),
    rule(READ, &["node.k8s.io"], &["runtimeclasses"]),
    rule(READ, &["storage.k8s.io"], ANY),
    rule(READ, &["resource.k8s.io"], ANY),
    rule(&["create"], &[""], &["pods/binding", "bindings"]),
    rule(&["patch", "update"], &[""], &["pods/status"]),
    // Preemption.
    rule(&["delete"], &[""], &["pods"]),
    rule(WRITE, &["", "events.k8s.io"], &["events"]),
    rule(&["get", "list", "watch", "create", "update", "patch"], &["coordination.k8s.io"], &["leases"]),
];

/// What the controllers do: the garbage and namespace collectors read and delete anything, and each kind of controller
/// writes the kinds it makes. None of them may grant rights.
pub(crate) const CONTROLLERS: &[Rule] = &[
    rule(READ, ANY, ANY),
    rule(&["update", "patch", "delete", "deletecollection"], ANY, ANY),
    rule(
        &["create"],
        &[""],
        &[
            "pods",
            "pods/eviction",
            "pods/binding",
            "endpoints",
            "events",
            "serviceaccounts",
            "serviceaccounts/token",
            "secrets",
            "configmaps",
            "persistentvolumes",
            "persistentvolumeclaims",
            "namespaces",
        ],
    ),
    rule(&["create"], &["events.k8s.io"], &["events"]),
    rule(&["create"], &["apps"], &["replicasets", "controllerrevisions"]),
    rule(&["create"], &["batch"], &["jobs"]),
    rule(&["create"], &["discovery.k8s.io"], &["endpointslices"]),
    rule(&["create"], &["coordination.k8s.io"], &["leases"]),
    rule(&["create"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
    rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
    rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
];

/// What everybody with credentials may do: ask about themselves.
pub(crate) const EVERYBODY: &[Rule] = &[
    rule(&["create"], &["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
    rule(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
];

/// Paths that everybody may read, without credentials too (Kubernetes' `system:public-info-viewer`).
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
/// Trees of paths that everybody with credentials may read (Kubernetes' `system:discovery`).
const DISCOVERY: &[&str] = &["/api", "/apis", "/openapi", "/openid", "/.well-known"];

/// Whether a non-resource request is for something public.
pub(crate) fn public_path(attributes: &Attributes) -> bool {
    reads(attributes) && PUBLIC.contains(&attributes.path.trim_end_matches('/'))
}

/// Whether a non-resource request is discovery.
pub(crate) fn discovery_path(attributes: &Attributes) -> bool {
    let below =
        |root: &str| attributes.path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    reads(attributes) && DISCOVERY.iter().any(|root| below(root))
}

fn reads(attributes: &Attributes) -> bool {
    !attributes.is_resource() && matches!(attributes.verb.as_str(), "get" | "head")
}
