//! Volumes: their names and defaults, and what a path in one may be.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{image, is_pod, sources};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{fill, list, list_mut, map, object, set, some, text};
use crate::meta::{names, push_all};

/// A pod's volumes by name.
pub(super) type VolumeNames<'a> = HashMap<&'a str, &'a Value>;

const DEFAULT_MODE: i64 = 0o644;
/// Bytes of a volume's name and its portal, if the initiator has a name.
const MAX_ISCSI_NAME: usize = 64;

pub(super) fn default(spec: &mut Value) {
    for volume in list_mut(spec, "volumes") {
        if volume.as_object().is_some_and(|v| v.iter().all(|(key, value)| key == "name" || value.is_null())) {
            object(volume, "emptyDir");
        }
        for source in ["secret", "configMap", "downwardAPI", "projected"] {
            if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
                fill(source, "defaultMode", DEFAULT_MODE);
            }
        }
        if let Some(source) = volume.get_mut("hostPath").filter(|s| s.is_object())
            && source.get("type").is_none_or(Value::is_null)
        {
            set(source, "type", "");
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
    }
}

/// Judges a spec's volumes and says their names. `spec_path` is the spec's.
pub(super) fn validate<'a>(spec: &'a Value, spec_path: &Path, errors: &mut ErrorList) -> VolumeNames<'a> {
    let mut known = VolumeNames::new();
    let (is_pod, path) = (is_pod(spec_path), spec_path.child("volumes"));
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        let path = path.index(index);
        let (name, name_path) = (text(volume, "/name"), path.child("name"));
        if name.is_empty() {
            errors.required(&name_path, "");
        } else {
            push_all(errors, &name_path, name, names::dns1123_label(name));
        }
        if !name.is_empty() && known.insert(name, volume).is_some() {
            errors.duplicate(&name_path, &json!(name));
        }
        validate_source(volume, is_pod, &path, errors);
    }
    known
}

fn validate_source(volume: &Value, is_pod: bool, path: &Path, errors: &mut ErrorList) {
    let mut given = map(volume, "").filter(|(key, value)| *key != "name" && !value.is_null());
    let Some((kind, source)) = given.next() else {
        return errors.required(path, "must specify a volume type");
    };
    for (extra, _) in given {
        errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    if kind == "image" && is_pod && text(source, "/reference").is_empty() {
        errors.required(&path.child(kind).child("reference"), "");
    }
    if some(volume, "/iscsi/initiatorName").is_some()
        && text(volume, "/name").len() + 1 + text(volume, "/iscsi/targetPortal").len() > MAX_ISCSI_NAME
    {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is \
                   specified.";
        errors.invalid(&path.child("name"), &json!(text(volume, "/name")), why);
    }
    sources::validate(kind, source, &path.child(kind), errors);
}

/// A path that stays below where it starts.
pub(super) fn validate_local(file: &str, path: &Path, errors: &mut ErrorList) {
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
    if file.starts_with("..") && !steps_back(file) {
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
