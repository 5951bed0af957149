//! Restricted: only volumes that are the pod's own, or that an administrator made.

use super::{Pod, Violation, insert, list, plural, quoted, some, text};

const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// In the order in which the first is named.
const OTHERS: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    for volume in list(pod.spec, "/volumes") {
        let is = |kind: &&&str| some(volume, &format!("/{kind}")).is_some();
        if !ALLOWED.iter().any(|kind| is(&kind)) {
            names.push(text(volume, "/name"));
            insert(&mut kinds, OTHERS.iter().find(is).unwrap_or(&"unknown"));
        }
    }
    (!names.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", &names),
            quoted(&names),
            plural("uses", "use", &names),
            plural("restricted volume type", "restricted volume types", &kinds),
            quoted(&kinds)
        );
        Violation::new("restricted volume types", detail)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::assert_cases;
    use super::*;

    #[test]
    fn volumes_are_harmless() {
        assert_cases(
            judge,
            &[
                (json!({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "projected": {}}]}), None),
                (
                    json!({"volumes": [{"name": "a", "nfs": {}}, {"name": "b", "hostPath": {}}]}),
                    Some(
                        "restricted volume types (volumes \"a\", \"b\" use restricted volume types \"hostPath\", \"nfs\")",
                    ),
                ),
                (
                    json!({"volumes": [{"name": "a"}]}),
                    Some("restricted volume types (volume \"a\" uses restricted volume type \"unknown\")"),
                ),
            ],
        );
    }
}
