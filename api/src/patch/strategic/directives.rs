//! Keys of a patch that say how to merge, and removing them from what becomes part of an object.

use serde_json::Value;

use super::{PatchError, Tree, go_map};

const MARKER: &str = "$patch";
pub(super) const RETAIN: &str = "$retainKeys";
/// A field's name follows.
pub(super) const ORDER: &str = "$setElementOrder/";
/// A field's name follows.
pub(super) const MERGE_DELETE_LIST: &str = "$deleteFromPrimitiveList/";

/// The value of `$patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    Replace,
    Delete,
    Merge,
}

impl Directive {
    /// Takes the directive out of a map.
    pub(super) fn take(map: &mut Tree) -> Result<Option<Self>, PatchError> {
        let Some(value) = map.remove(MARKER) else { return Ok(None) };
        match value.as_str() {
            Some("replace") => Ok(Some(Self::Replace)),
            Some("delete") => Ok(Some(Self::Delete)),
            Some("merge") => Ok(Some(Self::Merge)),
            _ => Err(PatchError::UnknownDirective {
                given: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                map: go_map(map),
            }),
        }
    }
}

fn is_directive(key: &str) -> bool {
    key == MARKER || key == RETAIN || key.starts_with(ORDER) || key.starts_with(MERGE_DELETE_LIST)
}

/// A patch's value as it enters an object that has nothing there: without nulls and directives. `None`: it deletes.
pub(super) fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.get(MARKER).is_some_and(|directive| directive == "delete") => None,
        Value::Object(map) => Some(Value::Object(cleaned(map))),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(clean_item).collect())),
        other => Some(other),
    }
}

/// A list item that only carries a directive is no item.
fn clean_item(item: Value) -> Option<Value> {
    let only_directive = item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(MARKER));
    if only_directive { None } else { clean(item) }
}

/// [`clean`] for the contents of a map.
pub(super) fn cleaned(map: Tree) -> Tree {
    let kept = map.into_iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
    kept.filter_map(|(key, value)| Some((key, clean(value)?))).collect()
}
