//! RFC 6902 JSON Patch.
//!
//! Bounds: 10,000 operations, and 3 MiB of copied values, because a few `copy` operations can double an object each.

use json_patch::{Patch, PatchOperation};
use serde::Deserialize;
use serde_json::Value;

use super::does_not_apply;
use crate::status::ApiError;

const MAX_OPERATIONS: usize = 10_000;
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies a patch; a failed `test` or a missing path is 422, a malformed patch 400.
pub fn apply(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let Patch(operations) =
        Patch::deserialize(patch).map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        let message = format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}: Request entity too large: limit is {MAX_OPERATIONS}"
        );
        return Err(ApiError::new(413, "RequestEntityTooLarge", message));
    }
    let mut patched = object.clone();
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += copy.from.resolve(&patched).map_or(0, |value| value.to_string().len());
            if copied > MAX_COPIED_BYTES {
                return Err(ApiError::too_large(MAX_COPIED_BYTES));
            }
        }
        json_patch::patch(&mut patched, std::slice::from_ref(operation))
            .map_err(|error| does_not_apply(format!("operation {index} failed at {}: {}", error.path, error.kind)))?;
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_apply_in_order() {
        let object = json!({"spec": {"replicas": 1, "list": ["a"]}});
        let patch = json!([
            {"op": "test", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": "/spec/replicas", "value": 2},
            {"op": "add", "path": "/spec/list/-", "value": "b"},
            {"op": "add", "path": "/spec/list/0", "value": "c"},
            {"op": "copy", "from": "/spec/list", "path": "/copy"},
            {"op": "move", "from": "/spec/replicas", "path": "/moved"},
            {"op": "remove", "path": "/copy/0"},
        ]);
        let patched = apply(&object, &patch).unwrap();
        assert_eq!(patched, json!({"spec": {"list": ["c", "a", "b"]}, "copy": ["a", "b"], "moved": 2}));
    }

    #[test]
    fn what_does_not_apply_is_422_and_what_is_malformed_400() {
        let object = json!({"a": 1});
        for patch in [
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "remove", "path": "/b"}]),
            json!([{"op": "add", "path": "/b/c", "value": 1}]),
            json!([{"op": "replace", "path": "/b", "value": 1}]),
        ] {
            let error = apply(&object, &patch).unwrap_err();
            assert_eq!((error.code, error.reason, error.details.causes.len()), (422, "Invalid", 1), "{patch}");
        }
        for patch in
            [json!({}), json!([{"op": "dance", "path": "/a"}]), json!([{"op": "add", "path": "a", "value": 1}])]
        {
            assert_eq!(apply(&object, &patch).unwrap_err().code, 400, "{patch}");
        }
    }

    #[test]
    fn copies_that_double_the_object_are_refused() {
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": {}})];
        operations.extend((0..60).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")})));
        assert_eq!(apply(&json!({}), &Value::Array(operations)).unwrap_err().code, 413);
    }
}
