//! Reading and changing the common parts of an object's JSON tree: type, metadata, owner references, finalizers; and
//! the one encoding that is stored, cached and sent.
//!
//! Readers take anything (a missing or ill-typed part reads as absent); writers create what they need. Times are RFC 3339
//! in UTC with whole seconds, as `metav1.Time` is.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// Marks the object as being deleted.
pub fn set_deletion(object: &mut Value, at: Timestamp, grace_period_seconds: i64) {
    set_meta(object, "deletionTimestamp", format_time(at));
    set_meta(object, "deletionGracePeriodSeconds", grace_period_seconds);
}

/// `2006-01-02T15:04:05Z`: whole seconds.
pub fn format_time(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// `2006-01-02T15:04:05.000000Z`, as `metav1.MicroTime` is.
pub fn format_micro_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// An RFC 3339 time with an offset, as Go reads it.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if !is_time(text) {
        return None;
    }
    let time: Timestamp = text.parse().ok()?;
    (0..=9999).contains(&time.to_zoned(TimeZone::UTC).year()).then_some(time)
}

/// Like [`parse_time`], for a `metav1.MicroTime`: its fraction has six digits.
pub fn parse_micro_time(text: &str) -> Option<Timestamp> {
    let micro = text.get(19..26).is_some_and(|fraction| fits(fraction, ".000000"));
    let ended = !text.get(26..27).is_some_and(|next| fits(next, "0"));
    if micro && ended { parse_time(text) } else { None }
}

/// Whether a text is written like a time of RFC 3339. What no clock here can name is one all the same.
pub fn is_time(text: &str) -> bool {
    let Some((start, rest)) = text.split_at_checked(19) else { return false };
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("0", rest),
    };
    fits(start, "0000-00-00T00:00:00")
        && start.get(17..).is_some_and(|seconds| seconds < "60")
        && (1..=9).contains(&fraction.len())
        && (zone == "Z" || fits(zone, "+00:00") || fits(zone, "-00:00"))
}

/// Whether a text has a digit where the form has a nought, and is the form elsewhere.
fn fits(text: &str, form: &str) -> bool {
    let same = |(given, wanted): (u8, u8)| if wanted == b'0' { given.is_ascii_digit() } else { given == wanted };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(same)
}

/// Compact JSON with `"resourceVersion":""` in `metadata` (whatever was there), and the offset between its quotes, where
/// the store writes the revision.
pub fn encode(object: &Value) -> (Vec<u8>, usize) {
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    let metadata = map.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    let mut splice = 0;
    out.push(b'{');
    let before = map.iter().filter(|(key, _)| key.as_str() < "metadata");
    let after = map.iter().filter(|(key, _)| key.as_str() > "metadata");
    for (key, value) in before {
        write_entry(&mut out, key, value);
    }
    write_key(&mut out, "metadata");
    write_metadata(&mut out, metadata, &mut splice);
    for (key, value) in after {
        write_entry(&mut out, key, value);
    }
    out.push(b'}');
    (out, splice)
}

fn write_metadata(out: &mut Vec<u8>, metadata: &Map<String, Value>, splice: &mut usize) {
    const FIELD: &str = "resourceVersion";
    out.push(b'{');
    for (key, value) in metadata.iter().filter(|(key, _)| key.as_str() < FIELD) {
        write_entry(out, key, value);
    }
    write_key(out, FIELD);
    out.push(b'"');
    *splice = out.len();
    out.push(b'"');
    for (key, value) in metadata.iter().filter(|(key, _)| key.as_str() > FIELD) {
        write_entry(out, key, value);
    }
    out.push(b'}');
}

fn write_entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    write_key(out, key);
    // A Vec takes every write and a tree's keys are strings: this cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn write_key(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    let _ = serde_json::to_writer(&mut *out, key);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn encoding_leaves_room_for_the_revision_between_the_quotes() {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "{"},
            "metadata": {"name": "x", "resourceVersion": "7", "uid": "u"}});
        let (mut bytes, splice) = encode(&object);
        bytes.splice(splice..splice, *b"42");
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            r#"{"apiVersion":"v1","data":{"a":"{"},"kind":"ConfigMap","metadata":{"name":"x","resourceVersion":"42","uid":"u"}}"#
        );
    }

    #[test]
    fn an_object_without_metadata_is_encoded_with_it() {
        let (bytes, splice) = encode(&json!({"z": 1}));
        assert_eq!(bytes, br#"{"metadata":{"resourceVersion":""},"z":1}"#);
        assert_eq!(bytes.get(splice), Some(&b'"'));
    }

    #[test]
    fn times_have_whole_seconds_and_round_trip() {
        let time: Timestamp = "2024-02-29T23:59:58.987654Z".parse().unwrap();
        assert_eq!(format_time(time), "2024-02-29T23:59:58Z");
        assert_eq!(format_micro_time(time), "2024-02-29T23:59:58.987654Z");
        assert_eq!(parse_time("2024-02-29T23:59:58.987654Z"), Some(time));
        assert_eq!(parse_time("2024-02-29 23:59:58Z"), None);
        assert_eq!(parse_time(""), None);
    }

    #[test]
    fn a_time_is_one_that_go_reads() {
        for good in ["2024-02-29T01:02:03Z", "2024-02-29T01:02:03.5+05:30", "0000-01-01T00:00:00Z"] {
            assert!(parse_time(good).is_some(), "{good}");
        }
        for bad in [
            "2024-02-29T01:02:03-04[America/New_York]",
            "2024-02-29T01:02:03Z[UTC]",
            "2024-02-29T01:02:60Z",
            "2024-02-29T01:02:03+05",
            "2024-02-29T01:02:03+05:00:00",
            "2024-02-29T01:02:03,5Z",
            "2024-02-29T01:02:03.Z",
            "2024-02-29T01:02:03z",
            "2024-02-29T01:02:03",
            "2023-02-29T01:02:03Z",
            "-02024-02-29T01:02:03Z",
            "0000-01-01T00:00:00+01:00",
            "2024-02-29T01:02:0é",
        ] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_micro_time_has_six_digits() {
        assert!(parse_micro_time("2024-02-29T01:02:03.000000Z").is_some());
        assert!(parse_micro_time("2024-02-29T01:02:03.000001+01:00").is_some());
        for bad in ["2024-02-29T01:02:03Z", "2024-02-29T01:02:03.00000Z", "2024-02-29T01:02:03.0000000Z"] {
            assert_eq!(parse_micro_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_typed_clients_write_is_read() {
        let noon: Timestamp = "2024-02-29T12:00:00Z".parse().unwrap();
        let micro = serde_json::to_value(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(noon)).unwrap();
        assert_eq!(micro.as_str().and_then(parse_micro_time), Some(noon));
    }

    /// Much that is nearly a time.
    const NEARLY: &str = "[0-9]{4}-[0-1][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]([.,][0-9]{0,10})?(Z|z|[+-][0-9]{2}(:?[0-9]{2}){0,2}|\\[UTC\\]){0,2}";

    proptest::proptest! {
        #[test]
        fn a_time_that_is_read_is_of_one_form(text in NEARLY) {
            let form = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$";
            let good = regex::Regex::new(form).unwrap().is_match(&text);
            proptest::prop_assert_eq!(is_time(&text), good);
            if let Some(time) = parse_time(&text) {
                proptest::prop_assert!(good);
                proptest::prop_assert!(is_time(&format_time(time)));
                let micro = format_micro_time(time);
                proptest::prop_assert_eq!(parse_micro_time(&micro).map(format_micro_time), Some(micro));
            }
        }
    }

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
