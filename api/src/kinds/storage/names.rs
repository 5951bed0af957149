//! Names of drivers and provisioners, and their parameters.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::map;
use crate::meta::{names, push_all};

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;
const MAX_DRIVER: usize = 63;

/// A provisioner or attacher: a qualified name, whatever its case.
pub(super) fn provisioner(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    push_all(errors, path, name, names::qualified_name(&name.to_lowercase()));
}

/// The name of a driver (CSI): a short subdomain, whatever its case.
pub(crate) fn driver(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > MAX_DRIVER {
        errors.too_long(path, MAX_DRIVER);
    }
    if !name.is_empty() {
        push_all(errors, path, name, names::dns1123_subdomain(&name.to_lowercase()));
    }
}

/// Opaque parameters of a class.
pub(super) fn parameters(class: &Value, path: &Path, errors: &mut ErrorList) {
    if map(class, "/parameters").count() > MAX_PARAMETERS {
        return errors.too_long(path, MAX_PARAMETERS);
    }
    let mut size = 0;
    for (key, value) in map(class, "/parameters") {
        if key.is_empty() {
            errors.invalid(path, &json!(key), "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_PARAMETERS_SIZE {
        errors.too_long(path, MAX_PARAMETERS_SIZE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_driver_is_a_short_subdomain() {
        for (name, count) in [("csi.example.com", 0), ("CSI.Example", 0), ("", 1), ("a_b", 1), (&*"a".repeat(64), 1)] {
            let all = complaints(|errors| driver(name, &Path::new("d"), errors));
            assert_eq!(all.len(), count, "{all:?}");
        }
    }

    #[test]
    fn parameters_are_bounded() {
        let judge = |value: Value| complaints(|errors| parameters(&value, &Path::new("p"), errors)).len();
        assert_eq!(judge(json!({"parameters": {"a": "b"}})), 0);
        assert_eq!(judge(json!({"parameters": {"": "b"}})), 1);
        assert_eq!(judge(json!({"parameters": {"a": "b".repeat(MAX_PARAMETERS_SIZE)}})), 1);
    }
}
