//! RFC 7386 JSON Merge Patch.

use serde_json::Value;

/// Applies a patch; null removes.
pub fn apply(object: &Value, patch: &Value) -> Value {
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    patched
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_merge_lists_are_replaced_and_null_removes() {
        let object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        let patch = json!({"a": {"b": null, "c": [3]}, "e": {"f": null}});
        assert_eq!(apply(&object, &patch), json!({"a": {"c": [3]}, "d": 1, "e": {}}));
    }
}
