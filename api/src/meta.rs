//! Metadata, judged alike for every kind: names, labels, annotations, owner references, finalizers, and what an update
//! may not change. Messages and field paths are those of apimachinery's `api/validation`.
//!
//! A name has been generated before an object is judged; server-set fields (uid, timestamps) are not judged on create,
//! because the verb sets them itself.

use serde_json::{Map, Value, json};

use crate::field::{ErrorList, Path};
use crate::resource::Descriptor;

pub mod names;

/// Bytes that all annotations of an object may have together, keys included.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;
/// Kubernetes' text for a field that no update may change.
pub const IMMUTABLE: &str = "field is immutable";

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const GENERATED_PREFIX_MAX: usize = 58;

/// A name from a `generateName`: the prefix, cut so that the result is a label, and five characters. `random(n)` is a
/// number below `n`.
pub fn generate_name(prefix: &str, mut random: impl FnMut(usize) -> usize) -> String {
    let mut end = prefix.len().min(GENERATED_PREFIX_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix.get(..end).unwrap_or_default().to_owned();
    let suffix = (0..SUFFIX_LENGTH).filter_map(|_| ALPHABET.get(random(ALPHABET.len()) % ALPHABET.len()));
    name.extend(suffix.map(|b| char::from(*b)));
    name
}

/// Judges the metadata of a new object.
pub fn validate_create(resource: &Descriptor, object: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata");
    let meta = object.get("metadata").unwrap_or(&Value::Null);
    let rule = resource.strategy.name_rule();
    let generate = text(meta, "generateName");
    if !generate.is_empty() {
        push_all(errors, &path.child("generateName"), generate, names::by_rule(rule, generate, true));
    }
    let name = text(meta, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        push_all(errors, &path.child("name"), name, names::by_rule(rule, name, false));
    }
    namespace(resource, meta, &path, errors);
    common(resource, meta, &path, errors);
}

/// Judges what an update does to metadata. What the server keeps by itself (an absent uid, timestamps) has been carried
/// over from `old` before.
pub fn validate_update(resource: &Descriptor, new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata");
    let (new, old) = (new.get("metadata").unwrap_or(&Value::Null), old.get("metadata").unwrap_or(&Value::Null));
    if !text(old, "deletionTimestamp").is_empty() {
        no_new_finalizers(new, old, &path.child("finalizers"), errors);
    }
    let generation = |meta: &Value| meta.get("generation").and_then(Value::as_i64).unwrap_or_default();
    if generation(new) < generation(old) {
        errors.invalid(&path.child("generation"), &json!(generation(new)), "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        immutable(new.get(field), old.get(field), &path.child(field), errors);
    }
    common(resource, new, &path, errors);
}

/// Reports a field that differs between two versions of an object.
pub fn immutable(new: Option<&Value>, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    if !same(new, old) {
        errors.invalid(path, new.unwrap_or(&Value::Null), IMMUTABLE);
    }
}

/// Equality as Kubernetes sees it: absent, null, and empty maps, lists and strings are the same.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let (a, b) = (present(a), present(b));
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.iter().all(|(key, value)| same(Some(value), b.get(key)))
                && b.iter().all(|(key, value)| a.contains_key(key) || present(Some(value)).is_none())
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (a, b) => a == b,
    }
}

fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|v| match v {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    })
}

/// Label keys and values at `path`, as in `metadata.labels` or a pod template.
pub fn labels(map: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    for (key, value) in entries(map) {
        push_all(errors, path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        push_all(errors, path, value, names::label_value(value));
    }
}

/// Annotation keys, whatever their case, and the size of all of them.
pub fn annotations(map: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in entries(map) {
        push_all(errors, path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(path, ANNOTATIONS_MAX);
    }
}

/// One `Invalid value` per complaint.
pub fn push_all(errors: &mut ErrorList, path: &Path, value: &str, complaints: Vec<String>) {
    for complaint in complaints {
        errors.invalid(path, &json!(value), &complaint);
    }
}

fn namespace(resource: &Descriptor, meta: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("namespace");
    let namespace = text(meta, "namespace");
    if !resource.namespaced() {
        if !namespace.is_empty() {
            errors.forbidden(&path, "not allowed on this type");
        }
    } else if namespace.is_empty() {
        errors.required(&path, "");
    } else {
        push_all(errors, &path, namespace, names::dns1123_label(namespace));
    }
}

fn common(resource: &Descriptor, meta: &Value, path: &Path, errors: &mut ErrorList) {
    labels(meta.get("labels"), &path.child("labels"), errors);
    annotations(meta.get("annotations"), &path.child("annotations"), errors);
    owners(meta.get("ownerReferences"), &path.child("ownerReferences"), errors);
    finalizers(meta.get("finalizers"), &path.child("finalizers"), errors);
    if built_in(resource) {
        standard_finalizers(meta.get("finalizers"), &path.child("finalizers"), errors);
    }
    managed_fields(meta.get("managedFields"), &path.child("managedFields"), errors);
}

fn owners(list: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let mut controller: Option<String> = None;
    for owner in items(list) {
        let api_version = text(owner, "apiVersion");
        if api_version.rsplit('/').next().unwrap_or_default().is_empty() {
            errors.invalid(&path.child("apiVersion"), &json!(api_version), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                errors.invalid(&path.child(field), &json!(""), "must not be empty");
            }
        }
        if api_version == "v1" && text(owner, "kind") == "Event" {
            errors.invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            match &controller {
                Some(first) => errors.invalid(
                    path,
                    list.unwrap_or(&Value::Null),
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {this}"
                    ),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(list: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let all: Vec<&str> = strings(list).collect();
    for finalizer in &all {
        push_all(errors, path, finalizer, names::qualified_name(finalizer));
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        errors.invalid(path, &json!(all), "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// Kubernetes' own kinds, but for definitions and APIServices, which bring finalizers of their own. Custom resources live in
/// groups with a domain of their own.
fn built_in(resource: &Descriptor) -> bool {
    let group = &*resource.group;
    let extends = ["apiextensions.k8s.io", "apiregistration.k8s.io"].contains(&group);
    !extends && (!group.contains('.') || group.ends_with(".k8s.io"))
}

/// On Kubernetes' own kinds a finalizer without a domain is one of Kubernetes' own.
fn standard_finalizers(list: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    for (index, finalizer) in strings(list).enumerate() {
        if !finalizer.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path.index(index), &json!(finalizer), why);
        }
    }
}

fn no_new_finalizers(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let had: Vec<&str> = strings(old.get("finalizers")).collect();
    let mut extra: Vec<String> =
        strings(new.get("finalizers")).filter(|f| !had.contains(f)).map(|f| format!("{f:?}")).collect();
    if !extra.is_empty() {
        extra.sort();
        extra.dedup();
        let list = extra.join(", ");
        errors.forbidden(
            path,
            &format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers \
                 []string{{{list}}}"
            ),
        );
    }
}

fn managed_fields(list: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    for (index, entry) in items(list).enumerate() {
        let path = path.index(index);
        let operation = text(entry, "operation");
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(&path.child("operation"), &json!(operation), "must be `Apply` or `Update`");
        }
        let kind = text(entry, "fieldsType");
        if !kind.is_empty() && kind != "FieldsV1" {
            errors.invalid(&path.child("fieldsType"), &json!(kind), "must be `FieldsV1`");
        }
        if text(entry, "manager").len() > 128 {
            errors.too_long(&path.child("manager"), 128);
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    items(list).filter_map(Value::as_str)
}

fn entries(map: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    map.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Node};

    use super::*;

    fn created(metadata: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        validate_create(&Descriptor::of::<ConfigMap>(), &json!({ "metadata": metadata }), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn updated(new: &Value, old: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        let resource = Descriptor::of::<ConfigMap>();
        validate_update(&resource, &json!({ "metadata": new }), &json!({ "metadata": old }), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_generated_name_is_a_label_that_ends_in_five_letters_without_vowels() {
        let mut next = 0;
        let name = generate_name("web-", |n| {
            next += 7;
            next % n
        });
        assert_eq!(name.len(), 9);
        assert!(name.bytes().skip(4).all(|b| ALPHABET.contains(&b)), "{name}");
        assert_eq!(generate_name(&"a".repeat(80), |_| 0).len(), 63);
        assert_eq!(generate_name(&"é".repeat(40), |_| 0), format!("{}bbbbb", "é".repeat(29)));
    }

    #[test]
    fn an_object_has_a_name_in_a_namespace() {
        assert_eq!(
            created(&json!({})),
            ["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"]
        );
        assert!(created(&json!({"name": "a", "namespace": "b"})).is_empty());
        let mut errors = ErrorList::default();
        let object = json!({"metadata": {"name": "a", "namespace": "b"}});
        validate_create(&Descriptor::of::<Node>(), &object, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn labels_annotations_and_finalizers_are_judged() {
        let all = created(&json!({"name": "a", "namespace": "b", "labels": {"a b": "ok", "c": "-"},
            "annotations": {"Any.Case/X": "fine", "": "x"}, "finalizers": ["orphan", "foregroundDeletion", "x y"]}));
        let paths: Vec<&str> = all.iter().map(|m| m.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            paths,
            [
                "metadata.labels",
                "metadata.labels",
                "metadata.annotations",
                "metadata.annotations",
                "metadata.finalizers",
                "metadata.finalizers",
                "metadata.finalizers[2]"
            ]
        );
        let big = json!({"name": "a", "namespace": "b", "annotations": {"a": "x".repeat(ANNOTATIONS_MAX)}});
        assert_eq!(created(&big), ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
    }

    #[test]
    fn an_owner_is_complete_and_one_controls() {
        let owner = |name: &str| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "u", "controller": true});
        let all = created(&json!({"name": "a", "namespace": "b", "ownerReferences": [owner("x"), owner("y"), {}]}));
        assert!(all[0].contains(
            "Only one reference can have Controller set to true. Found \"true\" in references for ReplicaSet/x and \
             ReplicaSet/y"
        ));
        assert_eq!(all.len(), 5);
        assert_eq!(all[1], "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty");
    }

    #[test]
    fn an_update_keeps_identity_and_takes_no_finalizer_while_deleting() {
        let old = json!({"name": "a", "namespace": "b", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]});
        assert!(updated(&old, &old).is_empty());
        let mut new = old.clone();
        new["uid"] = json!("2");
        new["finalizers"] = json!(["a/b", "c/d"]);
        assert_eq!(
            updated(&new, &old),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{\"c/d\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
        assert!(
            updated(
                &json!({"name": "a", "namespace": "b", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
                &old
            )
            .is_empty()
        );
    }

    #[test]
    fn empty_and_absent_are_the_same() {
        assert!(same(Some(&json!({"z": 1, "a": {}, "b": []})), Some(&json!({"z": 1}))));
        assert!(same(None, Some(&Value::Null)));
        assert!(!same(Some(&json!({"a": 0})), Some(&json!({}))));
    }

    proptest::proptest! {
        #[test]
        fn a_name_generated_from_a_good_prefix_is_good(prefix in "[a-z][-a-z0-9]{0,80}", seed in 0_usize..1000) {
            let name = generate_name(&prefix, |n| seed % n);
            proptest::prop_assert!(names::dns1123_label(&name).is_empty(), "{}", name);
        }

        #[test]
        fn a_subdomain_is_good_if_all_its_labels_are(labels in proptest::collection::vec("[-a-zA-Z0-9_]{0,4}", 1..5)) {
            let good = labels.iter().all(|label| names::dns1123_label(label).is_empty());
            proptest::prop_assert_eq!(names::dns1123_subdomain(&labels.join(".")).is_empty(), good);
        }
    }
}
