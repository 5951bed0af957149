//! Where containers find a pod's volumes.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::volumes::{VolumeNames, steps_back, validate_local};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{is_true, list, some, text};

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const RECURSIONS: &[&str] = &["Disabled", "Enabled", "IfPossible"];

/// Judges where a container mounts volumes, and finds devices.
pub(super) fn validate(container: &Value, known: &VolumeNames<'_>, path: &Path, errors: &mut ErrorList) {
    let devices = Taken::of(container, "volumeDevices", "devicePath");
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
        devices.validate(mount, "mountPath", &path, errors);
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
        validate_propagation(mount, container, &path.child("mountPropagation"), errors);
        validate_recursion(mount, &path.child("recursiveReadOnly"), errors);
    }
    validate_devices(container, known, &path.child("volumeDevices"), errors);
}

fn validate_propagation(mount: &Value, container: &Value, path: &Path, errors: &mut ErrorList) {
    match some(mount, "/mountPropagation").and_then(Value::as_str) {
        Some("Bidirectional") if !is_true(container, "/securityContext/privileged") => {
            errors.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
        }
        Some(other) if !PROPAGATIONS.contains(&other) => errors.not_supported(path, other, PROPAGATIONS),
        _ => {}
    }
}

fn validate_recursion(mount: &Value, path: &Path, errors: &mut ErrorList) {
    match some(mount, "/recursiveReadOnly").and_then(Value::as_str) {
        Some("Enabled" | "IfPossible") => {
            if !is_true(mount, "/readOnly") {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if !["", "None"].contains(&text(mount, "/mountPropagation")) {
                errors.forbidden(path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        None | Some("Disabled") => {}
        Some(other) => errors.not_supported(path, other, RECURSIONS),
    }
}

fn validate_devices(container: &Value, known: &VolumeNames<'_>, path: &Path, errors: &mut ErrorList) {
    let mounts = Taken::of(container, "volumeMounts", "mountPath");
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (index, device) in list(container, "/volumeDevices").iter().enumerate() {
        let path = path.index(index);
        let (name, place) = (text(device, "/name"), text(device, "/devicePath"));
        if !name.is_empty() && !names.insert(name) {
            errors.invalid(&path.child("name"), &json!(name), "must be unique");
        }
        let claimed =
            |volume: &&Value| some(volume, "/persistentVolumeClaim").or_else(|| some(volume, "/ephemeral")).is_some();
        if known.get(name).is_some_and(|volume| !claimed(volume)) {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.invalid(&path.child("name"), &json!(name), why);
        } else {
            known_name(device, known, &path, errors);
        }
        let place_path = path.child("devicePath");
        if place.is_empty() {
            errors.required(&place_path, "");
        } else if !paths.insert(place) {
            errors.invalid(&place_path, &json!(place), "must be unique");
        }
        if steps_back(place) {
            errors.invalid(&place_path, &json!(place), "can not contain backsteps ('..')");
        }
        mounts.validate(device, "devicePath", &path, errors);
    }
}

/// What one sort of use takes: a volume is mounted or a device, and a path is the place of one thing.
struct Taken<'a> {
    sort: &'static str,
    names: HashSet<&'a str>,
    places: HashSet<&'a str>,
}

impl<'a> Taken<'a> {
    fn of(container: &'a Value, sort: &'static str, field: &str) -> Self {
        let all = |pointer: &str| {
            let texts = list(container, &format!("/{sort}")).iter().map(|item| text(item, pointer));
            texts.filter(|text| !text.is_empty()).collect()
        };
        Self { sort, names: all("/name"), places: all(&format!("/{field}")) }
    }

    /// Judges an item of the other sort, whose path is in `field`.
    fn validate(&self, item: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
        let (name, place, sort) = (text(item, "/name"), text(item, &format!("/{field}")), self.sort);
        if self.names.contains(name) {
            errors.invalid(&path.child("name"), &json!(name), &format!("must not already exist in {sort}"));
        }
        if self.places.contains(place) {
            let why = format!("must not already exist as a path in {sort}");
            errors.invalid(&path.child(field), &json!(place), &why);
        }
    }
}

fn known_name(mount: &Value, known: &VolumeNames<'_>, path: &Path, errors: &mut ErrorList) {
    let name = text(mount, "/name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else if !known.contains_key(name) {
        errors.not_found(&path.child("name"), &json!(name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints, complaints_of_mounts as with};
    use super::*;

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
    fn a_mount_reaches_as_far_as_it_may() {
        let volumes = json!({"volumes": [{"name": "v"}, {"name": "p", "persistentVolumeClaim": {"claimName": "c"}}]});
        let place = "spec.containers[0].volume";
        let mount = |more: Value| {
            let mut mount = json!({"name": "v", "mountPath": "/a"});
            more.as_object().into_iter().flatten().for_each(|(key, value)| mount[key] = value.clone());
            json!({"volumeMounts": [mount]})
        };
        let device = json!({"name": "p", "devicePath": "/a"});
        for (container, why) in [
            (
                mount(json!({"mountPropagation": "Bidirectional"})),
                "Mounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged \
                 containers",
            ),
            (
                mount(json!({"mountPropagation": "X"})),
                "Mounts[0].mountPropagation: Unsupported value: \"X\": supported values: \"Bidirectional\", \
                 \"HostToContainer\", \"None\"",
            ),
            (
                mount(json!({"recursiveReadOnly": "Enabled"})),
                "Mounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            ),
            (
                mount(
                    json!({"recursiveReadOnly": "IfPossible", "readOnly": true, "mountPropagation": "HostToContainer"}),
                ),
                "Mounts[0].recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
            ),
            (
                mount(json!({"recursiveReadOnly": "X"})),
                "Mounts[0].recursiveReadOnly: Unsupported value: \"X\": supported values: \"Disabled\", \"Enabled\", \
                 \"IfPossible\"",
            ),
            (
                json!({"volumeDevices": [device, {"name": "p", "devicePath": "/b"}]}),
                "Devices[1].name: Invalid value: \"p\": must be unique",
            ),
            (
                json!({"volumeDevices": [{"name": "p", "devicePath": "/../b"}]}),
                "Devices[0].devicePath: Invalid value: \"/../b\": can not contain backsteps ('..')",
            ),
            (
                json!({"volumeDevices": [{"name": "v", "devicePath": "/b"}]}),
                "Devices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or \
                 Ephemeral for block mode",
            ),
        ] {
            assert_refused(volumes.clone(), &container, &format!("{place}{why}"));
        }
        let both = json!({"name": "a", "image": "x", "volumeDevices": [device],
            "volumeMounts": [{"name": "p", "mountPath": "/b"}, {"name": "v", "mountPath": "/a"}]});
        let mut spec = volumes;
        spec["containers"] = json!([both]);
        assert_eq!(
            complaints(&spec),
            [
                "spec.containers[0].volumeMounts[0].name: Invalid value: \"p\": must not already exist in volumeDevices",
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must not already exist as a path in \
                 volumeDevices",
                "spec.containers[0].volumeDevices[0].name: Invalid value: \"p\": must not already exist in volumeMounts",
                "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/a\": must not already exist as a path \
                 in volumeMounts",
            ]
        );
    }
}
