//! What volumes and claims share: access modes, volume modes, classes, and how they are shown.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, some, text};
use crate::meta::{names, push_all};
use crate::object;

pub(super) const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(super) const UNSET: &str = "<unset>";
/// Where a class was named before there was a field for it.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Judges `accessModes`; `absent` is said if there is none.
pub(super) fn validate_access_modes(spec: &Value, absent: &str, path: &Path, errors: &mut ErrorList) {
    let path = path.child("accessModes");
    let modes: Vec<&str> = list(spec, "/accessModes").iter().filter_map(Value::as_str).collect();
    if modes.is_empty() {
        errors.required(&path, absent);
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.not_supported(&path, mode, &ACCESS_MODES);
    }
    let others = modes.iter().any(|mode| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode));
    if others && modes.contains(&"ReadWriteOncePod") {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Judges the names of classes, and `volumeMode`.
pub(super) fn validate_classes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let name = text(spec, &format!("/{field}"));
        if !name.is_empty() {
            push_all(errors, &path.child(field), name, names::dns1123_subdomain(name));
        }
    }
    let mode = some(spec, "/volumeMode").and_then(Value::as_str);
    if let Some(mode) = mode.filter(|mode| !["Block", "Filesystem"].contains(mode)) {
        errors.not_supported(&path.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

/// `RWO,ROX`: access modes, each once, in a fixed order.
pub(super) fn access_modes(object: &Value, pointer: &str) -> String {
    let given: Vec<&str> = list(object, pointer).iter().filter_map(Value::as_str).collect();
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let shown: Vec<&str> = short.iter().filter(|(mode, _)| given.contains(mode)).map(|(_, short)| *short).collect();
    shown.join(",")
}

/// The storage class, by the field or by the annotation that preceded it.
pub(super) fn class(object: &Value) -> &str {
    object::annotation(object, CLASS_ANNOTATION).unwrap_or_else(|| text(object, "/spec/storageClassName"))
}

pub(super) fn phase(object: &Value) -> Value {
    json!(if object::is_deleting(object) { "Terminating" } else { text(object, "/status/phase") })
}

/// A field that reads `<unset>` if it is absent.
pub(super) fn or_unset(object: &Value, pointer: &str) -> Value {
    json!(some(object, pointer).and_then(Value::as_str).unwrap_or(UNSET))
}
