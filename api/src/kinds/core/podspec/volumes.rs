//! Volumes and where containers mount them.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{fill, int, list, list_mut, map, object, set, some, text};
use crate::meta::{names, push_all};

/// Names of a pod's volumes; `true` for a claim that may be a block device.
pub(super) type VolumeNames = HashMap<String, bool>;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const DEFAULT_MODE: i64 = 0o644;

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

/// Judges a spec's volumes and says their names.
pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) -> VolumeNames {
    let mut known = VolumeNames::new();
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        let path = path.index(index);
        let (name, name_path) = (text(volume, "/name"), path.child("name"));
        if name.is_empty() {
            errors.required(&name_path, "");
        } else {
            push_all(errors, &name_path, name, names::dns1123_label(name));
        }
        let block = some(volume, "/persistentVolumeClaim").or_else(|| some(volume, "/ephemeral")).is_some();
        if !name.is_empty() && known.insert(name.to_owned(), block).is_some() {
            errors.duplicate(&name_path, &json!(name));
        }
        validate_source(volume, &path, errors);
    }
    known
}

fn validate_source(volume: &Value, path: &Path, errors: &mut ErrorList) {
    let mut sources = map(volume, "").filter(|(key, value)| *key != "name" && !value.is_null());
    let Some((kind, source)) = sources.next() else {
        return errors.required(path, "must specify a volume type");
    };
    for (extra, _) in sources {
        errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    let path = path.child(kind);
    match kind.as_str() {
        "hostPath" => validate_host_path(source, &path, errors),
        "secret" => {
            required(source, "secretName", &path, errors);
            validate_files(source, &path, errors);
        }
        "configMap" => {
            required(source, "name", &path, errors);
            validate_files(source, &path, errors);
        }
        "downwardAPI" => validate_mode(source, "defaultMode", &path, errors),
        "projected" => validate_projected(source, &path, errors),
        "persistentVolumeClaim" => required(source, "claimName", &path, errors),
        "nfs" => {
            required(source, "server", &path, errors);
            required(source, "path", &path, errors);
        }
        "csi" => required(source, "driver", &path, errors),
        _ => {}
    }
}

fn required(source: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    if text(source, &format!("/{field}")).is_empty() {
        errors.required(&path.child(field), "");
    }
}

fn validate_host_path(source: &Value, path: &Path, errors: &mut ErrorList) {
    let host = text(source, "/path");
    if host.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    if steps_back(host) {
        errors.invalid(&path.child("path"), &json!(host), "must not contain '..'");
    }
    let kind = text(source, "/type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, HOST_PATH_TYPES);
    }
}

fn validate_mode(source: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = int(source, &format!("/{field}")).filter(|m| !(0..=0o777).contains(m)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&path.child(field), &json!(mode), why);
    }
}

/// Modes and keys of a volume made of files.
fn validate_files(source: &Value, path: &Path, errors: &mut ErrorList) {
    validate_mode(source, "defaultMode", path, errors);
    for (index, item) in list(source, "/items").iter().enumerate() {
        let path = path.child("items").index(index);
        required(item, "key", &path, errors);
        let file = text(item, "/path");
        if file.is_empty() {
            errors.required(&path.child("path"), "");
        } else {
            validate_local(file, &path.child("path"), errors);
            if file.starts_with("..") && !steps_back(file) {
                errors.invalid(&path.child("path"), &json!(file), "must not start with '..'");
            }
        }
        validate_mode(item, "mode", &path, errors);
    }
}

fn validate_projected(source: &Value, path: &Path, errors: &mut ErrorList) {
    validate_mode(source, "defaultMode", path, errors);
    for (index, part) in list(source, "/sources").iter().enumerate() {
        let path = path.child("sources").index(index);
        let mut count = 0;
        for (kind, part) in map(part, "").filter(|(_, value)| !value.is_null()) {
            count += 1;
            if count > 1 {
                errors.forbidden(&path, "may not specify more than 1 volume type");
            }
            match kind.as_str() {
                "secret" | "configMap" => {
                    required(part, "name", &path.child(kind), errors);
                    validate_files(part, &path.child(kind), errors);
                }
                "serviceAccountToken" => required(part, "path", &path.child(kind), errors),
                _ => {}
            }
        }
        if count == 0 {
            errors.required(&path, "must specify a volume type");
        }
    }
}

/// A path that stays below where it starts.
fn validate_local(file: &str, path: &Path, errors: &mut ErrorList) {
    if file.starts_with('/') {
        errors.invalid(path, &json!(file), "must be a relative path");
    }
    if steps_back(file) {
        errors.invalid(path, &json!(file), "must not contain '..'");
    }
}

fn steps_back(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// Judges where a container mounts volumes.
pub(super) fn validate_mounts(container: &Value, known: &VolumeNames, path: &Path, errors: &mut ErrorList) {
    let mut taken = HashSet::new();
    for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let path = path.child("volumeMounts").index(index);
        known_name(mount, known, &path, errors);
        let target = text(mount, "/mountPath");
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if !taken.insert(target) {
            errors.invalid(&path.child("mountPath"), &json!(target), "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            let part = text(mount, &format!("/{field}"));
            if !part.is_empty() {
                validate_local(part, &path.child(field), errors);
            }
        }
        if !text(mount, "/subPath").is_empty() && !text(mount, "/subPathExpr").is_empty() {
            let value = json!(text(mount, "/subPathExpr"));
            errors.invalid(&path.child("subPathExpr"), &value, "subPathExpr and subPath are mutually exclusive");
        }
        let propagation = text(mount, "/mountPropagation");
        if !["", "Bidirectional", "HostToContainer", "None"].contains(&propagation) {
            let good = &["Bidirectional", "HostToContainer", "None"];
            errors.not_supported(&path.child("mountPropagation"), propagation, good);
        }
    }
    for (index, device) in list(container, "/volumeDevices").iter().enumerate() {
        let path = path.child("volumeDevices").index(index);
        if known.get(text(device, "/name")) == Some(&false) {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.invalid(&path.child("name"), &json!(text(device, "/name")), why);
        } else {
            known_name(device, known, &path, errors);
        }
        required(device, "devicePath", &path, errors);
    }
}

fn known_name(mount: &Value, known: &VolumeNames, path: &Path, errors: &mut ErrorList) {
    let name = text(mount, "/name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else if !known.contains_key(name) {
        errors.not_found(&path.child("name"), &json!(name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints;
    use super::*;

    fn with(volumes: &Value, mounts: &Value) -> Vec<String> {
        let container = json!({"name": "a", "image": "x", "volumeMounts": mounts});
        complaints(&json!({"containers": [container], "volumes": volumes}))
    }

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
    fn a_mount_names_a_volume_and_a_place_of_its_own() {
        let mounts = json!([{"name": "b", "mountPath": "/x"}, {"name": "a", "mountPath": "/x"}, {"name": "a"},
            {"name": "a", "mountPath": "/y", "subPath": "../z"}]);
        assert_eq!(
            with(&json!([{"name": "a"}]), &mounts),
            [
                "spec.containers[0].volumeMounts[0].name: Not found: \"b\"",
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/x\": must be unique",
                "spec.containers[0].volumeMounts[2].mountPath: Required value",
                "spec.containers[0].volumeMounts[3].subPath: Invalid value: \"../z\": must not contain '..'"
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
