//! RFC 6902 JSON Patch.
//!
//! Bounds: 10,000 operations; 3 MiB of copied values, because a few `copy` operations can double an object each; and 128
//! levels, because an object that is nested deeper could not be read again.

use json_patch::{Patch, PatchOperation};
use serde::Deserialize;
use serde_json::Value;

use super::does_not_apply;
use crate::status::ApiError;

const MAX_OPERATIONS: usize = 10_000;
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
const MAX_DEPTH: usize = 127;

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
    let mut bounds = Bounds { deepest: depth(object), copied: 0 };
    let mut patched = object.clone();
    for (index, operation) in operations.iter().enumerate() {
        if tests_absence(operation, &patched) {
            continue;
        }
        bounds.check(operation, &patched)?;
        json_patch::patch(&mut patched, std::slice::from_ref(operation))
            .map_err(|error| does_not_apply(format!("operation {index} failed at {}: {}", error.path, error.kind)))?;
    }
    Ok(patched)
}

/// A `test` for null holds where there is nothing, as in Kubernetes: clients add a field only if it is not there.
fn tests_absence(operation: &PatchOperation, object: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let parent = test.path.parent().and_then(|parent| parent.resolve(object).ok());
    test.value.is_null() && parent.is_some() && test.path.resolve(object).is_err()
}

/// What the operations so far have used up.
struct Bounds {
    /// The object is not deeper than this.
    deepest: usize,
    copied: usize,
}

impl Bounds {
    fn check(&mut self, operation: &PatchOperation, object: &Value) -> Result<(), ApiError> {
        match operation {
            PatchOperation::Add(add) => self.deepen(add.path.count(), || depth(&add.value)),
            PatchOperation::Replace(replace) => self.deepen(replace.path.count(), || depth(&replace.value)),
            PatchOperation::Move(moved) => self.carry(moved.path.count(), || moved.from.resolve(object).ok()),
            PatchOperation::Copy(copy) => {
                self.copied += copy.from.resolve(object).map_or(0, |value| value.to_string().len());
                if self.copied > MAX_COPIED_BYTES {
                    return Err(ApiError::too_large(MAX_COPIED_BYTES));
                }
                self.carry(copy.path.count(), || copy.from.resolve(object).ok())
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => Ok(()),
        }
    }

    /// A part of the object goes to a path: looked at only where the object's depth alone does not settle it.
    fn carry<'a>(&mut self, at: usize, part: impl FnOnce() -> Option<&'a Value>) -> Result<(), ApiError> {
        let bound = self.deepest;
        if at + bound <= MAX_DEPTH {
            return self.deepen(at, || bound);
        }
        self.deepen(at, || part().map_or(0, depth))
    }

    fn deepen(&mut self, at: usize, depth: impl FnOnce() -> usize) -> Result<(), ApiError> {
        self.deepest = self.deepest.max(at + depth());
        if self.deepest > MAX_DEPTH {
            return Err(does_not_apply(format!("the object would be nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(())
    }
}

/// Levels of a value; a scalar has none.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
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
    fn a_test_for_null_holds_where_there_is_nothing() {
        let object = json!({"metadata": {"name": "a"}});
        let patch = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["x"]},
        ]);
        let patched = apply(&object, &patch).unwrap();
        assert_eq!(patched, json!({"metadata": {"name": "a", "finalizers": ["x"]}}));
        assert_eq!(apply(&patched, &patch).unwrap_err().code, 422);
        let nowhere = json!([{"op": "test", "path": "/status/phase", "value": null}]);
        assert_eq!(apply(&object, &nowhere).unwrap_err().code, 422);
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

    #[test]
    fn copies_and_moves_that_nest_too_deep_are_refused() {
        for name in ["copy", "move"] {
            let mut operations = vec![json!({"op": "add", "path": "/a", "value": {"x": {}}})];
            for n in 0..200 {
                let (from, to) = if n % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") };
                operations.push(json!({"op": "add", "path": to, "value": {}}));
                operations.push(json!({"op": name, "from": from, "path": format!("{to}/n")}));
            }
            let error = apply(&json!({}), &Value::Array(operations)).unwrap_err();
            assert_eq!(error.code, 422, "{name}");
        }
    }

    #[test]
    fn many_moves_of_an_ordinary_object_are_fine() {
        let mut operations = Vec::new();
        for n in 0..200 {
            let (from, to) = if n % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") };
            operations.push(json!({"op": "move", "from": from, "path": to}));
        }
        let object = json!({"a": {"x": [1]}});
        assert_eq!(apply(&object, &Value::Array(operations)).unwrap(), object);
    }
}
