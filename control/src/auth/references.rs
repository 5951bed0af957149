//! Which other objects a pod refers to.

use serde_json::Value;

/// Kinds of objects that a pod names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Referenced {
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    ServiceAccount,
    ResourceClaim,
}

impl Referenced {
    pub(crate) const ALL: [Self; 5] =
        [Self::Secret, Self::ConfigMap, Self::PersistentVolumeClaim, Self::ServiceAccount, Self::ResourceClaim];

    pub(crate) fn of(resource: &str) -> Option<Self> {
        match resource {
            "secrets" => Some(Self::Secret),
            "configmaps" => Some(Self::ConfigMap),
            "persistentvolumeclaims" => Some(Self::PersistentVolumeClaim),
            "serviceaccounts" => Some(Self::ServiceAccount),
            "resourceclaims" => Some(Self::ResourceClaim),
            _ => None,
        }
    }

    /// As messages call several of them.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
            Self::PersistentVolumeClaim => "persistentvolumeclaims",
            Self::ServiceAccount => "a service account",
            Self::ResourceClaim => "resourceclaims",
        }
    }

    /// Fields whose value is the name.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Secret => &["secretName"],
            Self::ConfigMap => &[],
            Self::PersistentVolumeClaim => &["claimName"],
            Self::ServiceAccount => &["serviceAccountName"],
            Self::ResourceClaim => &["resourceClaimName"],
        }
    }

    /// Fields whose value is an object, or a list of objects, with the name in `name`.
    fn objects(self) -> &'static [&'static str] {
        match self {
            Self::Secret => &["secretRef", "secretKeyRef", "secret", "nodePublishSecretRef", "imagePullSecrets"],
            Self::ConfigMap => &["configMapRef", "configMapKeyRef", "configMap"],
            Self::PersistentVolumeClaim | Self::ServiceAccount | Self::ResourceClaim => &[],
        }
    }
}

/// The service account's tokens that a pod's volumes mount.
pub(crate) fn tokens(pod: &Value) -> impl Iterator<Item = &Value> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let sources = volumes.filter_map(|volume| volume.pointer("/projected/sources").and_then(Value::as_array)).flatten();
    sources.filter_map(|source| source.get("serviceAccountToken").filter(|token| !token.is_null()))
}

/// What a pod, as it is stored, refers to; each object once.
pub(crate) fn all(pod: &[u8]) -> Vec<(Referenced, Box<str>)> {
    let mut found = Vec::new();
    if let Ok(pod) = serde_json::from_slice::<Value>(pod) {
        within(pod.get("spec").unwrap_or(&Value::Null), &mut found);
        // Claims that were made from templates are named in the status only.
        let claims = pod.pointer("/status/resourceClaimStatuses").unwrap_or(&Value::Null);
        within(claims, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// Every place in a pod where a kind can be named has a field name of its own, so the tree is searched for those.
fn within(value: &Value, found: &mut Vec<(Referenced, Box<str>)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| within(item, found)),
        Value::Object(fields) => {
            for (key, value) in fields {
                for kind in Referenced::ALL {
                    if kind.fields().contains(&key.as_str()) {
                        found.extend(value.as_str().filter(|name| !name.is_empty()).map(|name| (kind, name.into())));
                    }
                    if kind.objects().contains(&key.as_str()) {
                        names(value, kind, found);
                    }
                }
                within(value, found);
            }
        }
        _ => {}
    }
}

fn names(value: &Value, kind: Referenced, found: &mut Vec<(Referenced, Box<str>)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| names(item, kind, found)),
        _ => {
            let name = value.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
            found.extend(name.map(|name| (kind, name.into())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_name_a_secret_or_config_map_is_found() {
        let pod = json!({"metadata": {"name": "unrelated"}, "spec": {
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "name": "c",
                "envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "from-map"}}],
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
            }],
            "volumes": [
                {"name": "v", "secret": {"secretName": "volume"}},
                {"name": "w", "configMap": {"name": "volume-map"}},
                {"name": "x", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                {"name": "y", "persistentVolumeClaim": {"claimName": "claim"}},
            ],
        }})
        .to_string();
        let all = all(pod.as_bytes());
        let refers = |kind, name: &str| all.iter().any(|(k, n)| *k == kind && **n == *name);
        for name in ["pull", "from", "key", "volume", "projected"] {
            assert!(refers(Referenced::Secret, name), "{name}");
        }
        for name in ["from-map", "volume-map"] {
            assert!(refers(Referenced::ConfigMap, name), "{name}");
        }
        assert!(refers(Referenced::PersistentVolumeClaim, "claim"));
        assert!(refers(Referenced::ServiceAccount, "robot"));
        for name in ["c", "unrelated", "from-map", "robot", "A", ""] {
            assert!(!refers(Referenced::Secret, name), "{name}");
        }
    }
}
