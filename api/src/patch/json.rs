//! RFC 6902 JSON Patch.
//!
//! Bounds: 10,000 operations; 3 MiB of copied values, because a few `copy` operations can double an object each; 128
//! levels, because an object that is nested deeper could not be read again; and the list elements that operations move
//! aside, because each insertion at the head of a long list moves all of it.

use json_patch::jsonptr::Pointer;
use json_patch::{Patch, PatchOperation};
use serde::Deserialize;
use serde_json::Value;

use super::does_not_apply;
use crate::status::ApiError;

const MAX_OPERATIONS: usize = 10_000;
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
const MAX_DEPTH: usize = 127;
/// List elements that are moved, and values that are looked at to know how deep they are: a fraction of a second, and more than
/// all operations need that build a list from nothing.
const MAX_MOVED: usize = 60_000_000;

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
    let mut bounds = Bounds { deepest: depth(object, &mut 0), copied: 0, moved: 0 };
    let mut patched = object.clone();
    for (index, operation) in operations.iter().enumerate() {
        if tests_absence(operation, &patched) {
            continue;
        }
        bounds.check(operation, &patched)?;
        json_patch::patch(&mut patched, std::slice::from_ref(operation)).map_err(|error| {
            let (field, operation) = (format!("patch[{index}]"), name(operation));
            does_not_apply(&field, format!("{operation} of \"{}\" does not apply: {}", error.path, error.kind))
        })?;
    }
    Ok(patched)
}

/// As the patch names it.
fn name(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
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
    moved: usize,
}

impl Bounds {
    fn check(&mut self, operation: &PatchOperation, object: &Value) -> Result<(), ApiError> {
        self.moved += match operation {
            PatchOperation::Add(add) => behind(&add.path, object),
            PatchOperation::Remove(remove) => behind(&remove.path, object),
            PatchOperation::Copy(copy) => behind(&copy.path, object),
            PatchOperation::Move(moved) => behind(&moved.from, object) + behind(&moved.path, object),
            PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
        };
        self.settle()?;
        match operation {
            PatchOperation::Add(add) => self.deepen(add.path.count(), || Some(&add.value)),
            PatchOperation::Replace(replace) => self.deepen(replace.path.count(), || Some(&replace.value)),
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

    /// Error: 413 when the operations so far are too much work.
    fn settle(&self) -> Result<(), ApiError> {
        if self.moved <= MAX_MOVED {
            return Ok(());
        }
        let message = format!(
            "The allowed maximum of list elements that the operations of a JSON patch move is {MAX_MOVED}: replace a long \
             list as a whole: Request entity too large: limit is {MAX_MOVED}"
        );
        Err(ApiError::new(413, "RequestEntityTooLarge", message))
    }

    /// A part of the object goes to a path: looked at only where the object's depth alone does not settle it.
    fn carry<'a>(&mut self, at: usize, part: impl FnOnce() -> Option<&'a Value>) -> Result<(), ApiError> {
        if at + self.deepest > MAX_DEPTH {
            return self.deepen(at, part);
        }
        self.deepest += at;
        Ok(())
    }

    fn deepen<'a>(&mut self, at: usize, part: impl FnOnce() -> Option<&'a Value>) -> Result<(), ApiError> {
        let depth = part().map_or(0, |part| depth(part, &mut self.moved));
        self.settle()?;
        self.deepest = self.deepest.max(at + depth);
        if self.deepest > MAX_DEPTH {
            return Err(does_not_apply(
                "patch",
                format!("the object would be nested more than {MAX_DEPTH} levels deep"),
            ));
        }
        Ok(())
    }
}

/// How many elements of a list stand at or after a place in it: they move when something comes or goes there.
fn behind(path: &Pointer, object: &Value) -> usize {
    let Some(Value::Array(list)) = path.parent().and_then(|parent| parent.resolve(object).ok()) else { return 0 };
    let place = path.last().and_then(|token| token.decoded().parse::<usize>().ok());
    place.map_or(0, |place| list.len().saturating_sub(place))
}

/// Levels of a value; a scalar has none. `seen` counts the values that are looked at.
fn depth(value: &Value, seen: &mut usize) -> usize {
    *seen += 1;
    match value {
        Value::Array(items) => 1 + items.iter().map(|item| depth(item, seen)).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(|value| depth(value, seen)).max().unwrap_or_default(),
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
            assert_eq!((error.code, &*error.reason, error.details.causes.len()), (422, "Invalid", 1), "{patch}");
            // Clients print `FIELD: MESSAGE`.
            let (cause, operation) = (&error.details.causes[0], patch[0]["op"].as_str().unwrap());
            assert_eq!(cause.field, "patch[0]");
            assert!(
                cause.message.starts_with(&format!("{operation} of \"/")) && error.message.contains(&cause.message)
            );
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

    /// How many elements a patch of `operations` insertions moves in a list of `elements`.
    fn moved(elements: usize, operations: usize) -> usize {
        let mut object = json!({"x": vec![0; elements]});
        let mut bounds = Bounds { deepest: 2, copied: 0, moved: 0 };
        let add = json!([{"op": "add", "path": "/x/0", "value": 1}]);
        let Patch(add) = Patch::deserialize(&add).unwrap();
        for _ in 0..operations {
            bounds.check(&add[0], &object).unwrap();
            json_patch::patch(&mut object, &add).unwrap();
        }
        bounds.moved
    }

    #[test]
    fn what_insertions_move_is_counted_and_bounded() {
        let (once, longer, more) = (moved(1000, 100), moved(2000, 100), moved(1000, 200));
        assert!(once >= 100_000 && longer >= 2 * once - 10_000 && more >= 2 * once, "{once} {longer} {more}");
        let object = json!({"x": vec![0; 300_000], "y": []});
        let repeated = |operation: Value| apply(&object, &Value::Array(vec![operation; 9000]));
        for operation in [
            json!({"op": "add", "path": "/x/0", "value": 1}),
            json!({"op": "remove", "path": "/x/0"}),
            json!({"op": "copy", "from": "/x/0", "path": "/x/0"}),
            json!({"op": "move", "from": "/x/0", "path": "/x/299999"}),
        ] {
            let error = repeated(operation.clone()).unwrap_err();
            assert_eq!((error.code, &*error.reason), (413, "RequestEntityTooLarge"), "{operation}");
            assert!(error.message.contains("list elements"), "{}", error.message);
        }
        for operation in [
            json!({"op": "add", "path": "/x/-", "value": 1}),
            json!({"op": "add", "path": "/y/0", "value": 1}),
            json!({"op": "replace", "path": "/x/0", "value": 1}),
            json!({"op": "test", "path": "/x/0", "value": 0}),
            json!({"op": "remove", "path": "/x/290000"}),
        ] {
            assert!(repeated(operation.clone()).is_ok(), "{operation}");
        }
    }

    #[test]
    fn looking_how_deep_a_part_is_counts_too() {
        let mut deep = json!(1);
        for _ in 0..125 {
            deep = json!([deep]);
        }
        let object = json!({"deep": deep, "a": {"x": vec![0; 300_000]}});
        let moves: Vec<Value> = (0..1000)
            .map(|n| {
                let (from, to) = if n % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") };
                json!({"op": "move", "from": from, "path": to})
            })
            .collect();
        assert_eq!(apply(&object, &Value::Array(moves)).unwrap_err().code, 413);
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
