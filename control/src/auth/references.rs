//! Which other objects a pod refers to.

use serde_json::Value;

/// Kinds of objects that a pod names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Referenced {
    Secret,
    ConfigMap,
    PersistentVolumeClaim,
    ServiceAccount,
}

impl Referenced {
    pub(crate) fn of(resource: &str) -> Option<Self> {
        match resource {
            "secrets" => Some(Self::Secret),
            "configmaps" => Some(Self::ConfigMap),
            "persistentvolumeclaims" => Some(Self::PersistentVolumeClaim),
            "serviceaccounts" => Some(Self::ServiceAccount),
            _ => None,
        }
    }

    /// Fields whose value is the name.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Secret => &["secretName"],
            Self::ConfigMap => &[],
            Self::PersistentVolumeClaim => &["claimName"],
            Self::ServiceAccount => &["serviceAccountName"],
        }
    }

    /// Fields whose value is an object, or a list of objects, with the name in `name`.
    fn objects(self) -> &'static [&'static str] {
        match self {
            Self::Secret => &["secretRef", "secretKeyRef", "secret", "nodePublishSecretRef", "imagePullSecrets"],
            Self::ConfigMap => &["configMapRef", "configMapKeyRef", "configMap"],
            Self::PersistentVolumeClaim | Self::ServiceAccount => &[],
        }
    }
}

/// Whether the pod, as it is stored, refers to an object of this kind and name.
pub(crate) fn refers(pod: &[u8], kind: Referenced, name: &str) -> bool {
    // Most pods do not: that is seen without parsing them.
    if name.is_empty() || !contains(pod, format!("\"{name}\"").as_bytes()) {
        return false;
    }
    serde_json::from_slice::<Value>(pod).is_ok_and(|pod| pod.get("spec").is_some_and(|spec| within(spec, kind, name)))
}

/// Every place in a pod's spec where a kind can be named has a field name of its own, so the tree is searched for those.
fn within(value: &Value, kind: Referenced, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| within(item, kind, name)),
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            (kind.fields().contains(&key.as_str()) && value.as_str() == Some(name))
                || (kind.objects().contains(&key.as_str()) && names(value, name))
                || within(value, kind, name)
        }),
        _ => false,
    }
}

fn names(value: &Value, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| names(item, name)),
        _ => value.get("name").and_then(Value::as_str) == Some(name),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
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
        let refers = |kind, name| refers(pod.as_bytes(), kind, name);
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
