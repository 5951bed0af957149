//! How a pod's containers reach the API: a projected volume with the service account's token, the authority's certificate
//! and the namespace, which admission adds by itself.
//!
//! Nodes that have no volumes yet let exactly this one pass, because nobody asked for it.

use serde_json::{Value, json};

use crate::kinds::tree::{list, text};

/// What the volume's name begins with.
pub const VOLUME_PREFIX: &str = "kube-api-access-";
/// Where clients in a cluster look for it.
pub const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and the time in which it is renewed unnoticed.
const EXPIRES: i64 = 3607;
const MODE: i64 = 0o644;

/// The volume.
pub fn new_volume(name: &str) -> Value {
    let namespace = json!({"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}});
    json!({"name": name, "projected": {"defaultMode": MODE, "sources": [
        {"serviceAccountToken": {"expirationSeconds": EXPIRES, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]}})
}

/// The name of such a volume in a pod spec.
pub fn volume(spec: &Value) -> Option<&str> {
    list(spec, "/volumes").iter().find(|volume| is_access(volume)).map(|volume| text(volume, "/name"))
}

/// Whether a volume is one that admission adds.
pub fn is_access(volume: &Value) -> bool {
    let name = text(volume, "/name");
    name.starts_with(VOLUME_PREFIX) && volume.get("projected") == new_volume(name).get("projected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_volume_is_recognised() {
        let mut own = new_volume("kube-api-access-x");
        assert!(is_access(&own));
        own["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("vault");
        assert!(!is_access(&own));
        assert!(!is_access(&json!({"name": "kube-api-access-x", "emptyDir": {}})));
    }
}
