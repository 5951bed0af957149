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
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;

    /// The least patch that makes `b` of `a`.
    fn diff(a: &Value, b: &Value) -> Value {
        let (Value::Object(a), Value::Object(b)) = (a, b) else { return b.clone() };
        let mut patch = Map::new();
        for (key, value) in b {
            match a.get(key) {
                Some(old) if old == value => {}
                Some(old) if old.is_object() && value.is_object() => drop(patch.insert(key.clone(), diff(old, value))),
                Some(_) | None => drop(patch.insert(key.clone(), value.clone())),
            }
        }
        patch.extend(a.keys().filter(|key| !b.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
        Value::Object(patch)
    }

    /// Objects without nulls, which a merge patch cannot write.
    fn object() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..9).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        let value = scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map("[a-d]", value, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_difference_of_two_objects_makes_one_of_the_other(a in object(), b in object()) {
            prop_assert_eq!(apply(&a, &diff(&a, &b)), b);
        }

        #[test]
        fn a_patch_twice_is_a_patch_once(a in object(), patch in object()) {
            let once = apply(&a, &patch);
            prop_assert_eq!(apply(&once, &patch), once);
        }
    }

    #[test]
    fn maps_merge_lists_are_replaced_and_null_removes() {
        let object = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        let patch = json!({"a": {"b": null, "c": [3]}, "e": {"f": null}});
        assert_eq!(apply(&object, &patch), json!({"a": {"c": [3]}, "d": 1, "e": {}}));
    }
}
