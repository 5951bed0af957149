//! Reading and changing the common parts of an object's JSON tree: type, metadata, owner references, finalizers.
//!
//! Readers take anything (a missing or ill-typed part reads as absent); writers create what they need.

mod encode;
mod time;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::encode::encode;
pub use self::time::{format_micro_time, format_time, is_time, parse_micro_time, parse_time};
use crate::resource::Descriptor;

/// `metadata.name`, or `""`.
pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

/// `metadata.namespace`, or `""`.
pub fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

/// `metadata.uid`, or `""`.
pub fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}

/// `metadata.resourceVersion`, or `""`.
pub fn resource_version(object: &Value) -> &str {
    meta_str(object, "resourceVersion")
}

/// A string field of `metadata`, or `""`.
pub fn meta_str<'a>(object: &'a Value, field: &str) -> &'a str {
    meta(object, field).and_then(Value::as_str).unwrap_or_default()
}

/// A field of `metadata`.
pub fn meta<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(field)
}

/// `metadata`, created if it is absent. `None` if `object` is not an object.
pub fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    child_mut(object.as_object_mut()?, "metadata")
}

/// The object in `map[field]`, created (or put in place of something else) if need be.
fn child_mut<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    let value = map.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}

/// Sets a field of `metadata`; null removes it.
pub fn set_meta(object: &mut Value, field: &str, value: impl Into<Value>) {
    let value = value.into();
    if let Some(metadata) = metadata_mut(object) {
        if value.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(field.to_owned(), value);
        }
    }
}

/// Makes fields of `metadata` what they are in another object: absent where they are absent there.
pub fn copy_meta(object: &mut Value, from: &Value, fields: &[&str]) {
    for field in fields {
        set_meta(object, field, meta(from, field).cloned().unwrap_or(Value::Null));
    }
}

/// Removes a field of `metadata` and returns what it was.
pub fn remove_meta(object: &mut Value, field: &str) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(field)
}

/// `apiVersion`, or `""`.
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// `kind`, or `""`.
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// Writes `apiVersion` and `kind`.
pub fn set_type(object: &mut Value, resource: &Descriptor) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), resource.api_version().into());
        map.insert("kind".into(), resource.kind.as_ref().into());
    }
}

/// A field by its dotted path (`spec.nodeName`); no path of an index or of a key with a dot.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, part| value.get(part))
}

/// A scalar by its dotted path as field selectors compare it; `""` if it is absent or not a scalar.
pub fn text_at(object: &Value, path: &str) -> String {
    match at(object, path) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

/// Sets a field by its dotted path and creates the objects on the way; null removes it.
pub fn set_at(object: &mut Value, path: &str, value: impl Into<Value>) {
    let value = value.into();
    let (parents, last) = path.rsplit_once('.').map_or((None, path), |(parents, last)| (Some(parents), last));
    let Some(mut map) = object.as_object_mut() else { return };
    for part in parents.into_iter().flat_map(|p| p.split('.')) {
        match child_mut(map, part) {
            Some(next) => map = next,
            None => return,
        }
    }
    if value.is_null() {
        map.remove(last);
    } else {
        map.insert(last.to_owned(), value);
    }
}

/// Pairs of a string map of `metadata` (`labels`, `annotations`).
fn pairs<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = meta(object, field).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// All labels, in the order of their keys.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(object, "labels")
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta(object, "labels")?.get(key)?.as_str()
}

pub fn annotations(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(object, "annotations")
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta(object, "annotations")?.get(key)?.as_str()
}

pub fn set_label(object: &mut Value, key: &str, value: &str) {
    set_pair(object, "labels", key, value);
}

pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    set_pair(object, "annotations", key, value);
}

fn set_pair(object: &mut Value, field: &str, key: &str, value: &str) {
    if let Some(map) = metadata_mut(object).and_then(|metadata| child_mut(metadata, field)) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Removes an annotation, and the map with its last one.
pub fn remove_annotation(object: &mut Value, key: &str) {
    let Some(metadata) = metadata_mut(object) else { return };
    if let Some(map) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        map.remove(key);
        if map.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = meta(object, "finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Writes `metadata.finalizers`; an empty list removes the field.
pub fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    let value = if finalizers.is_empty() { Value::Null } else { finalizers.into() };
    set_meta(object, "finalizers", value);
}

/// Adds a finalizer unless it is there. Returns whether the object changed.
pub fn add_finalizer(object: &mut Value, finalizer: &str) -> bool {
    let mut list: Vec<String> = finalizers(object).into_iter().map(str::to_owned).collect();
    if list.iter().any(|f| f == finalizer) {
        return false;
    }
    list.push(finalizer.to_owned());
    set_finalizers(object, list);
    true
}

/// An item of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

impl OwnerReference {
    /// The group of `apiVersion`; `""` is the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub fn is_controller(&self) -> bool {
        self.controller == Some(true)
    }

    pub fn blocks_deletion(&self) -> bool {
        self.block_owner_deletion == Some(true)
    }
}

/// `metadata.ownerReferences`; items that are not references are left out.
pub fn owner_references(object: &Value) -> Vec<OwnerReference> {
    let list = meta(object, "ownerReferences").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|item| OwnerReference::deserialize(item).ok()).collect()
}

/// The reference whose `controller` is true.
pub fn controller(object: &Value) -> Option<OwnerReference> {
    owner_references(object).into_iter().find(OwnerReference::is_controller)
}

/// `metadata.generation`, or 0.
pub fn generation(object: &Value) -> i64 {
    meta(object, "generation").and_then(Value::as_i64).unwrap_or_default()
}

pub fn set_generation(object: &mut Value, generation: i64) {
    set_meta(object, "generation", generation);
}

/// `metadata.creationTimestamp`.
pub fn creation_timestamp(object: &Value) -> Option<Timestamp> {
    parse_time(meta_str(object, "creationTimestamp"))
}

/// `metadata.deletionTimestamp`.
pub fn deletion_timestamp(object: &Value) -> Option<Timestamp> {
    parse_time(meta_str(object, "deletionTimestamp"))
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    !meta_str(object, "deletionTimestamp").is_empty()
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period(object: &Value) -> Option<i64> {
    meta(object, "deletionGracePeriodSeconds").and_then(Value::as_i64)
}

/// Marks the object as being deleted. `at` is written without its fraction of a second.
pub fn set_deletion(object: &mut Value, at: Timestamp, grace_period_seconds: i64) {
    set_meta(object, "deletionTimestamp", format_time(at));
    set_meta(object, "deletionGracePeriodSeconds", grace_period_seconds);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finalizer_is_added_once_and_the_last_takes_the_field_with_it() {
        let mut object = json!({"metadata": {}});
        assert!(add_finalizer(&mut object, "a/b"));
        assert!(!add_finalizer(&mut object, "a/b"));
        assert_eq!(finalizers(&object), ["a/b"]);
        set_finalizers(&mut object, Vec::new());
        assert_eq!(object, json!({"metadata": {}}));
    }

    #[test]
    fn a_dotted_path_is_read_set_and_removed() {
        let mut object = json!({});
        set_at(&mut object, "spec.replicas", 3);
        assert_eq!(text_at(&object, "spec.replicas"), "3");
        set_at(&mut object, "spec.replicas", Value::Null);
        assert_eq!(object, json!({"spec": {}}));
    }
}
