//! Strategic merge patch: lists merge by their keys, with `$patch`, `$setElementOrder`, `$retainKeys`, `$deleteFromPrimitiveList`.
//!
//! Which lists merge, and by which key, is in the kind's [`Shape`]. A directive never ends up in the
//! object. The order of a merged list is Kubernetes': items of the patch in the patch's order (or that of
//! `$setElementOrder`), the others between them where the object had them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::resource::Descriptor;
use crate::schema::{self, Merge, Shape, Type};
use crate::status::ApiError;

mod directives;
mod list;
mod order;

use directives::{Directive, MERGE_DELETE_LIST, ORDER, RETAIN};

/// Why a patch does not apply. The texts are those of Kubernetes' `mergepatch` package.
#[derive(Debug, thiserror::Error)]
enum PatchError {
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: String },
    #[error("cannot merge lists without merge key for {0}")]
    NoKeyDeclared(String),
    #[error("unknown patch type: {given:?} in map: {map}")]
    UnknownDirective { given: String, map: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeInList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    #[error("The order in patch list:\n{list}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch { list: String, order: String },
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("a strategic merge patch must be an object")]
    NoMap,
}

/// Applies a patch by the merge facts of the kind's definition. A patch that makes no sense is 400.
pub fn apply(resource: &Descriptor, object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let shape = schema::of(resource);
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(ApiError::bad_request(PatchError::NoMap.to_string()));
    };
    match merge_map(object.clone(), patch.clone(), Level::Struct(&shape)) {
        Ok(patched) => Ok(Value::Object(patched)),
        Err(error @ PatchError::ListOfLists) => Err(super::does_not_apply("patch", error.to_string())),
        Err(error) => Err(ApiError::bad_request(error.to_string())),
    }
}

/// What is known of a map's values.
#[derive(Clone, Copy)]
enum Level<'a> {
    Struct(&'a Shape),
    Map(&'a Type),
    Unknown,
}

impl<'a> Level<'a> {
    fn of(kind: Option<&'a Type>) -> Self {
        match kind {
            Some(Type::Object(shape)) => Self::Struct(shape),
            Some(Type::Map(values)) => Self::Map(values),
            _ => Self::Unknown,
        }
    }

    /// The type and merge facts of a field.
    fn field(self, name: &str) -> (Option<&'a Type>, Option<&'static Merge>) {
        match self {
            Self::Struct(shape) => shape.field(name).map_or((None, None), |field| (Some(&field.kind), field.merge)),
            Self::Map(values) => (Some(values), None),
            Self::Unknown => (None, None),
        }
    }

    fn name(self) -> &'a str {
        match self {
            Self::Struct(shape) => shape.short_name(),
            Self::Map(_) | Self::Unknown => "",
        }
    }
}

type Tree = Map<String, Value>;

/// Merges a patch into a map.
fn merge_map(mut object: Tree, mut patch: Tree, level: Level<'_>) -> Result<Tree, PatchError> {
    match Directive::take(&mut patch)? {
        Some(Directive::Replace) => return Ok(directives::cleaned(patch)),
        Some(Directive::Delete) => return Ok(Tree::new()),
        Some(Directive::Merge) | None => {}
    }
    if let Some(retained) = patch.remove(RETAIN) {
        retain(&mut object, &patch, &retained)?;
    }
    merge_ordered_lists(&mut object, &mut patch, level)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(MERGE_DELETE_LIST) {
            delete_from_list(&mut object, field, &value)?;
        } else if value.is_null() {
            object.remove(&key);
        } else {
            let merged = match object.remove(&key) {
                Some(old) => merge_value(old, value, level, &key)?,
                None => directives::clean(value),
            };
            if let Some(merged) = merged {
                object.insert(key, merged);
            }
        }
    }
    Ok(object)
}

/// The new value of a field that both sides have.
fn merge_value(old: Value, new: Value, level: Level<'_>, field: &str) -> Result<Option<Value>, PatchError> {
    let (kind, merge) = level.field(field);
    Ok(match (old, new) {
        (Value::Object(old), Value::Object(new)) => Some(Value::Object(merge_map(old, new, Level::of(kind))?)),
        (Value::Array(old), Value::Array(new)) => Some(Value::Array(merge_list(&old, new, kind, merge)?)),
        (_, new) => directives::clean(new),
    })
}

/// Merges or replaces a list, as the field's facts say.
fn merge_list(
    old: &[Value],
    new: Vec<Value>,
    kind: Option<&Type>,
    merge: Option<&'static Merge>,
) -> Result<Vec<Value>, PatchError> {
    let Some(merge) = merge.filter(|m| m.patch_merge) else {
        return Ok(new.into_iter().filter_map(directives::clean).collect());
    };
    let items = match kind {
        Some(Type::List(items)) => Level::of(Some(items)),
        _ => Level::Unknown,
    };
    list::merge(old, new, merge.patch_merge_key, items)
}

/// Fields with a `$setElementOrder/FIELD` beside them: merged, then put in that order.
fn merge_ordered_lists(object: &mut Tree, patch: &mut Tree, level: Level<'_>) -> Result<(), PatchError> {
    let fields: Vec<String> = patch.keys().filter_map(|key| key.strip_prefix(ORDER)).map(str::to_owned).collect();
    for field in fields {
        let Some(Value::Array(order)) = patch.remove(&format!("{ORDER}{field}")) else {
            return Err(PatchError::SetElementOrder);
        };
        let (kind, merge) = level.field(&field);
        let key = merge.and_then(|m| m.patch_merge_key);
        let items = match patch.remove(&field) {
            Some(Value::Array(items)) => Some(items),
            Some(other) => {
                // Null removes the list, anything else replaces it: the order says nothing then.
                patch.insert(field, other);
                continue;
            }
            None => None,
        };
        order::check(items.as_deref().unwrap_or_default(), &order, key)?;
        let old = match object.remove(&field) {
            Some(Value::Array(old)) => Some(old),
            _ => None,
        };
        let live = old.clone().unwrap_or_default();
        let merged = match (old, items) {
            (Some(old), None) => old,
            (None, Some(items)) => items.into_iter().filter_map(directives::clean).collect(),
            (Some(old), Some(items)) => merge_list(&old, items, kind, merge)?,
            (None, None) => continue,
        };
        object.insert(field, Value::Array(order::arrange(merged, &order, &live, key)));
    }
    Ok(())
}

/// `$retainKeys`: keys that it does not list go; a patch that sets others contradicts itself.
fn retain(object: &mut Tree, patch: &Tree, retained: &Value) -> Result<(), PatchError> {
    let retained: HashSet<&str> =
        retained.as_array().ok_or(PatchError::RetainKeys)?.iter().filter_map(Value::as_str).collect();
    let is_directive = |key: &str| key.starts_with(MERGE_DELETE_LIST) || key.starts_with(ORDER);
    let extra =
        |(key, value): (&String, &Value)| !value.is_null() && !is_directive(key) && !retained.contains(key.as_str());
    if patch.iter().any(extra) {
        return Err(PatchError::RetainKeys);
    }
    object.retain(|key, _| retained.contains(key.as_str()));
    Ok(())
}

/// `$deleteFromPrimitiveList/FIELD`.
fn delete_from_list(object: &mut Tree, field: &str, deleted: &Value) -> Result<(), PatchError> {
    let deleted: HashSet<&Value> = deleted.as_array().ok_or(PatchError::PrimitiveList)?.iter().collect();
    if let Some(Value::Array(items)) = object.get_mut(field) {
        items.retain(|item| !deleted.contains(item));
    }
    Ok(())
}

/// A tree as Go prints it in an error: `map[name:a ports:[map[…]]]`.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => go_map(map),
        other => other.to_string(),
    }
}

fn go_map(map: &Tree) -> String {
    let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
    format!("map[{}]", entries.join(" "))
}

#[cfg(test)]
mod tests;
