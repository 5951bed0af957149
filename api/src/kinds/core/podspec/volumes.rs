//! Volumes: their names and defaults, and what a path in one may be.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::disks::{self, Of};
use super::{image, is_pod, sources};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{fill, list, list_mut, object, some, text};
use crate::meta::{names, push_all};

/// A pod's volumes by name.
pub(super) type VolumeNames<'a> = HashMap<&'a str, &'a Value>;

const DEFAULT_MODE: i64 = 0o644;
/// Sorts of volumes in the order in which they are judged: the first that is there is the volume's.
const KINDS: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

pub(super) fn default(spec: &mut Value) {
    for volume in list_mut(spec, "volumes") {
        if volume.as_object().is_some_and(|v| v.iter().all(|(key, value)| key == "name" || value.is_null())) {
            object(volume, "emptyDir");
        }
        disks::default(volume);
        for source in ["secret", "configMap", "downwardAPI", "projected"] {
            if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
                fill(source, "defaultMode", DEFAULT_MODE);
            }
        }
        if let Some(source) = volume.get_mut("downwardAPI") {
            default_items(source);
        }
        for source in volume.get_mut("projected").into_iter().flat_map(|p| list_mut(p, "sources")) {
            if let Some(token) = source.get_mut("serviceAccountToken").filter(|t| t.is_object()) {
                fill(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                default_items(downward);
            }
        }
        if let Some(source) = volume.get_mut("image").filter(|s| s.is_object()) {
            let policy = match text(source, "/reference") {
                "" => "IfNotPresent",
                reference => image::default_pull_policy(reference),
            };
            fill(source, "pullPolicy", policy);
        }
        if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
            fill(claim, "volumeMode", "Filesystem");
        }
    }
}

fn default_items(downward: &mut Value) {
    for item in list_mut(downward, "items") {
        if let Some(field) = item.get_mut("fieldRef").filter(|f| f.is_object()) {
            fill(field, "apiVersion", "v1");
        }
        if let Some(resource) = item.get_mut("resourceFieldRef").filter(|r| r.is_object()) {
            fill(resource, "divisor", "0");
        }
    }
}

/// Judges a spec's volumes and says their names. `spec_path` is the spec's; `pod` is the name of its pod, if that has one already:
/// claims that come with the pod are called after it.
pub(super) fn validate<'a>(spec: &'a Value, pod: &str, spec_path: &Path, errors: &mut ErrorList) -> VolumeNames<'a> {
    let mut known = VolumeNames::new();
    let (is_pod, path) = (is_pod(spec_path), spec_path.child("volumes"));
    let volumes = list(spec, "/volumes");
    let made = |name: &str| Some(format!("{pod}-{name}")).filter(|_| !pod.is_empty() && !name.is_empty());
    let with_pod: HashSet<String> = volumes
        .iter()
        .filter(|volume| some(volume, "/ephemeral").is_some())
        .filter_map(|volume| made(text(volume, "/name")))
        .collect();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let (name, name_path) = (text(volume, "/name"), path.child("name"));
        let kind = validate_source(volume, is_pod, &path, errors);
        if let Some(claim) = made(name).filter(|_| kind == "ephemeral") {
            for why in names::dns1123_subdomain(&claim) {
                errors.invalid(&name_path, &json!(name), &format!("PVC name {claim:?}: {why}"));
            }
        }
        if name.is_empty() {
            errors.required(&name_path, "");
        } else {
            push_all(errors, &name_path, name, names::dns1123_label(name));
        }
        if !name.is_empty() && known.insert(name, volume).is_some() {
            errors.duplicate(&name_path, &json!(name));
        }
        let claim = text(volume, "/persistentVolumeClaim/claimName");
        if with_pod.contains(claim) {
            let path = path.child("persistentVolumeClaim").child("claimName");
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&path, &json!(claim), why);
        }
    }
    known
}

/// Without a service account there is nobody to make out a token for.
pub(super) fn forbid_tokens(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        for (source_index, source) in list(volume, "/projected/sources").iter().enumerate() {
            if some(source, "/serviceAccountToken").is_some() {
                let path = path.index(index).child("projected").child("sources").index(source_index);
                let why = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&path.child("serviceAccountToken"), why);
            }
        }
    }
}

/// Judges a volume's source, and says of which sort it is: `""` if there is none.
fn validate_source(volume: &Value, is_pod: bool, path: &Path, errors: &mut ErrorList) -> &'static str {
    let source = |kind| Some((kind, volume.get(kind).filter(|source| !source.is_null())?));
    let mut given = KINDS.into_iter().filter_map(source);
    let Some((kind, source)) = given.next() else {
        errors.required(path, "must specify a volume type");
        return "";
    };
    let place = disks::place(kind, path);
    if kind == "image" && is_pod && text(source, "/reference").is_empty() {
        errors.required(&place.child("reference"), "");
    }
    sources::validate(kind, source, &place, errors);
    disks::validate(kind, source, Of::Pod, &place, errors);
    if some(volume, "/iscsi/initiatorName").is_some() {
        let (name, portal) = (text(volume, "/name"), text(volume, "/iscsi/targetPortal"));
        disks::validate_iscsi_length(name, portal, name, &path.child("name"), errors);
    }
    for (extra, _) in given {
        errors.forbidden(&disks::place_of_extra(extra, path), "may not specify more than 1 volume type");
    }
    kind
}

/// A path that stays below where it starts.
pub(in crate::kinds) fn validate_local(file: &str, path: &Path, errors: &mut ErrorList) {
    if file.starts_with('/') {
        errors.invalid(path, &json!(file), "must be a relative path");
    }
    if steps_back(file) {
        errors.invalid(path, &json!(file), "must not contain '..'");
    }
}

/// A path that stays below where it starts, and leaves to the node the names that it uses itself.
pub(super) fn validate_unreserved(file: &str, path: &Path, errors: &mut ErrorList) {
    validate_local(file, path, errors);
    if file.starts_with("..") && !file.starts_with("../") {
        errors.invalid(path, &json!(file), "must not start with '..'");
    }
}

pub(super) fn steps_back(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints_of_mounts as with;
    use super::*;

    #[test]
    fn a_volume_without_a_source_is_an_empty_directory() {
        let mut spec = json!({"volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}]});
        default(&mut spec);
        assert_eq!(
            spec["volumes"],
            json!([{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}}])
        );
    }

    #[test]
    fn a_volume_has_a_name_and_one_source() {
        let two = json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}, {"name": "a"}, {}]);
        assert_eq!(
            with(&two, &json!([])),
            [
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[1].name: Duplicate value: \"a\"",
                "spec.volumes[2].name: Required value"
            ]
        );
    }

    #[test]
    fn what_a_volume_does_not_say_is_said() {
        let item = |field: &str, source: Value| json!({"path": "a", field: source});
        let items = json!([
            item("fieldRef", json!({"fieldPath": "metadata.name"})),
            item("resourceFieldRef", json!({"resource": "limits.cpu"}))
        ]);
        let mut spec = json!({"volumes": [{"name": "a", "downwardAPI": {"items": items}},
            {"name": "b", "projected": {"sources": [{"downwardAPI": {"items": items}}]}}]});
        default(&mut spec);
        for items in ["/volumes/0/downwardAPI/items", "/volumes/1/projected/sources/0/downwardAPI/items"] {
            assert_eq!(text(&spec, &format!("{items}/0/fieldRef/apiVersion")), "v1");
            assert_eq!(text(&spec, &format!("{items}/1/resourceFieldRef/divisor")), "0");
        }
    }

    #[test]
    fn a_claim_that_comes_with_the_pod_is_called_after_it() {
        let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}});
        let spec = json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": template}},
            {"name": "w", "persistentVolumeClaim": {"claimName": "web-v"}}]});
        let said = |pod: &str| {
            let mut errors = ErrorList::default();
            validate(&spec, pod, &Path::new("spec"), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            said("web"),
            [
                "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"web-v\": must not reference a PVC that \
              gets created for an ephemeral volume"
            ]
        );
        assert_eq!(said("other"), Vec::<String>::new());
        assert_eq!(said(""), Vec::<String>::new());
        let long = said(&"x".repeat(253));
        assert!(
            long.len() == 1 && long[0].starts_with("spec.volumes[0].name: Invalid value: \"v\": PVC name \"x"),
            "{long:?}"
        );
    }

    #[test]
    fn modes_are_nine_bits() {
        let volumes = json!([{"name": "a", "configMap": {"name": "c", "defaultMode": 512}}]);
        assert_eq!(
            with(&volumes, &json!([])),
            [
                "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), \
                 both inclusive"
            ]
        );
    }
}
