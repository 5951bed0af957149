//! What ConfigMap and Secret share: keys that are file names, a total size, and `immutable`.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::tree::is_true;
use crate::meta::{self, names, push_all};

/// Bytes that all values of a ConfigMap or of a Secret may have together.
pub(crate) const MAX_TOTAL: usize = 1024 * 1024;

/// Judges one key.
pub(crate) fn validate_key(key: &str, path: &Path, errors: &mut ErrorList) {
    push_all(errors, &path.key(key), key, names::config_map_key(key));
}

/// Once `immutable`, neither that nor any of `fields` may change.
pub(crate) fn validate_immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut ErrorList) {
    if !is_true(old, "/immutable") {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    if !is_true(new, "/immutable") {
        errors.forbidden(&Path::new("immutable"), why);
    }
    for field in fields {
        if !meta::same(new.get(field), old.get(field)) {
            errors.forbidden(&Path::new(field), why);
        }
    }
}

/// How many bytes a base64 value stands for.
pub(crate) fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}
