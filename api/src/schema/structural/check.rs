//! Kubernetes' rules for what a structural schema must be.

use std::collections::HashSet;

use serde_json::Value;

use super::{Additional, Junctors, Kind, ListType, META_FIELDS, Rule, Structural};
use crate::field::{ErrorList, Path};

/// Reasons that a rule may give.
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Root,
    Item,
    Field,
}

/// Judges a node and those below it, junctors included.
pub(super) fn invariants(schema: &Structural, level: Level, path: &Path, errors: &mut ErrorList) {
    shape(schema, level, path, errors);
    list(schema, path, errors);
    extensions(schema, path, errors);
    metadata(schema, level, path, errors);
    for (name, property) in &schema.properties {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    if let Some(values) = schema.values() {
        invariants(values, Level::Field, &path.child("additionalProperties"), errors);
    }
    if let Some(items) = schema.items() {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    if let Some(junctors) = &schema.junctors {
        nested(junctors, schema.int_or_string, path, errors);
    }
}

fn shape(schema: &Structural, level: Level, path: &Path, errors: &mut ErrorList) {
    let untyped = schema.kind.is_none() && !schema.int_or_string && !schema.preserve_unknown_fields;
    if schema.embedded_resource && schema.kind != Some(Kind::Object) {
        must_be(schema.kind.map_or("", Kind::name), "object", "x-kubernetes-embedded-resource", path, errors);
    } else if untyped {
        errors.required(
            &path.child("type"),
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if let (Level::Root, Some(kind)) = (level, schema.kind)
        && kind != Kind::Object
    {
        errors.invalid(&path.child("type"), &kind.name().into(), "must be object at the root");
    }
    if schema.kind == Some(Kind::Array) && schema.items.is_none() {
        errors.required(&path.child("items"), "must be specified");
    }
    if !matches!(schema.additional, Additional::Unset) {
        let additional = path.child("additionalProperties");
        if level == Level::Root {
            errors.forbidden(&additional, "must not be used at the root");
        }
        if schema.embedded_resource {
            errors.forbidden(&additional, "must not be used if x-kubernetes-embedded-resource is set");
        }
    }
}

/// The type that an extension demands.
pub(super) fn must_be(kind: &str, wanted: &str, extension: &str, path: &Path, errors: &mut ErrorList) {
    let condition = if extension == "x-kubernetes-embedded-resource" { "is true" } else { "is specified" };
    let why = format!("must be {wanted} if {extension} {condition}");
    match kind {
        "" => errors.required(&path.child("type"), &why),
        kind if kind != wanted => errors.invalid(&path.child("type"), &kind.into(), &why),
        _ => {}
    }
}

fn list(schema: &Structural, path: &Path, errors: &mut ErrorList) {
    let type_path = path.child("x-kubernetes-list-type");
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if schema.list_type.is_some() {
        must_be(schema.kind.map_or("", Kind::name), "array", "x-kubernetes-list-type", path, errors);
    }
    let has_keys = !schema.list_map_keys.is_empty();
    match schema.list_type {
        None if has_keys => errors.required(&type_path, "must be map if x-kubernetes-list-map-keys is non-empty"),
        Some(other @ (ListType::Atomic | ListType::Set)) if has_keys => {
            let name = if other == ListType::Set { "set" } else { "atomic" };
            errors.invalid(&type_path, &name.into(), "must be map if x-kubernetes-list-map-keys is non-empty");
        }
        Some(ListType::Map) if !has_keys => {
            errors.required(&keys_path, "must not be empty if x-kubernetes-list-type is map");
        }
        _ => {}
    }
    let items_path = path.child("items");
    match (schema.list_type, schema.items()) {
        (Some(ListType::Map), None) => {
            errors.required(&items_path, "must have a schema if x-kubernetes-list-type is map");
        }
        (Some(ListType::Map), Some(items)) => list_map(schema, items, path, errors),
        (Some(ListType::Set), Some(items)) => list_set(items, &items_path, errors),
        _ => {}
    }
}

fn list_set(items: &Structural, path: &Path, errors: &mut ErrorList) {
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    match items.kind {
        Some(Kind::Array) if matches!(items.list_type, Some(ListType::Set | ListType::Map)) => {
            let name = if items.list_type == Some(ListType::Set) { "set" } else { "map" };
            errors.invalid(&path.child("x-kubernetes-list-type"), &name.into(), why);
        }
        Some(Kind::Object) if !items.atomic_map => {
            errors.invalid(&path.child("x-kubernetes-map-type"), &Value::Null, why);
        }
        _ => {}
    }
    if items.nullable {
        errors.forbidden(&path.child("nullable"), "cannot be nullable when x-kubernetes-list-type is set");
    }
}

fn list_map(schema: &Structural, items: &Structural, path: &Path, errors: &mut ErrorList) {
    let (items_path, keys_path) = (path.child("items"), path.child("x-kubernetes-list-map-keys"));
    if items.nullable {
        errors.forbidden(&items_path.child("nullable"), "cannot be nullable when x-kubernetes-list-type is map");
    }
    if items.kind != Some(Kind::Object) {
        let kind = items.kind.map_or("", Kind::name);
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&items_path.child("type"), &kind.into(), why);
        return;
    }
    let all = Value::from(schema.list_map_keys.clone());
    let mut seen = HashSet::new();
    for key in &schema.list_map_keys {
        if !seen.insert(key) {
            errors.invalid(&keys_path, &all, "must not contain duplicate entries");
        }
        let Some(property) = items.properties.get(key) else {
            errors.invalid(&keys_path, &all, "entries must all be names of item properties");
            continue;
        };
        let at = items_path.child("properties").key(key);
        if matches!(property.kind, Some(Kind::Array | Kind::Object)) {
            let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&at.child("type"), &"object".into(), why);
        }
        if property.default.is_none() && !items.limits.required.contains(key) {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&at.child("default"), why);
        }
        if property.nullable {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&at.child("nullable"), why);
        }
    }
}

fn extensions(schema: &Structural, path: &Path, errors: &mut ErrorList) {
    let why = "must be false if x-kubernetes-int-or-string is true";
    if schema.int_or_string && schema.preserve_unknown_fields {
        errors.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), &true.into(), why);
    }
    if schema.int_or_string && schema.embedded_resource {
        errors.invalid(&path.child("x-kubernetes-embedded-resource"), &true.into(), why);
    }
    if schema.embedded_resource && !schema.preserve_unknown_fields && schema.properties.is_empty() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&path.child("properties"), why);
    }
}

/// What a schema may say of the fields that every object has.
fn metadata(schema: &Structural, level: Level, path: &Path, errors: &mut ErrorList) {
    if level != Level::Root && !schema.embedded_resource {
        return;
    }
    for name in ["apiVersion", "kind"] {
        if let Some(property) = schema.properties.get(name)
            && property.kind != Some(Kind::String)
        {
            let kind = property.kind.map_or("", Kind::name);
            let at = path.child("properties").key(name).child("type");
            errors.invalid(&at, &kind.into(), "must be string");
        }
    }
    let Some(metadata) = schema.properties.get("metadata") else { return };
    let at = path.child("properties").key("metadata");
    if metadata.kind != Some(Kind::Object) {
        let kind = metadata.kind.map_or("", Kind::name);
        errors.invalid(&at.child("type"), &kind.into(), "must be object");
    }
    if level == Level::Root && !is_plain_metadata(metadata) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(&at, why);
    }
}

fn is_plain_metadata(metadata: &Structural) -> bool {
    metadata.properties.keys().all(|name| matches!(name.as_str(), "name" | "generateName"))
        && matches!(metadata.additional, Additional::Unset)
        && metadata.items.is_none()
        && metadata.junctors.is_none()
        && metadata.limits.required.is_empty()
        && metadata.rules.is_empty()
        && !(metadata.nullable
            || metadata.preserve_unknown_fields
            || metadata.int_or_string
            || metadata.embedded_resource
            || metadata.atomic_map)
}

/// A type may be given under a junctor only where it says what `x-kubernetes-int-or-string` says.
fn nested(junctors: &Junctors, int_or_string: bool, path: &Path, errors: &mut ErrorList) {
    let is_pair = |any_of: &[Structural]| {
        let kinds: Vec<Option<Kind>> = any_of.iter().map(|s| s.kind).collect();
        kinds == [Some(Kind::Integer), Some(Kind::String)] || kinds == [Some(Kind::String), Some(Kind::Integer)]
    };
    let pair_here = int_or_string && is_pair(&junctors.any_of);
    for (field, list) in [("anyOf", &junctors.any_of), ("allOf", &junctors.all_of), ("oneOf", &junctors.one_of)] {
        for (index, schema) in list.iter().enumerate() {
            let at = path.child(field).index(index);
            let allowed = field == "anyOf" && pair_here;
            let first_all_of = field == "allOf" && index == 0 && int_or_string;
            value_validation(schema, allowed, first_all_of, &at, errors);
        }
    }
    if let Some(not) = &junctors.not {
        value_validation(not, false, false, &path.child("not"), errors);
    }
}

fn value_validation(schema: &Structural, typed: bool, pair_below: bool, path: &Path, errors: &mut ErrorList) {
    if schema.kind.is_some() && !typed {
        errors.forbidden(&path.child("type"), "must be empty to be structural");
    }
    for (name, property) in &schema.properties {
        let at = path.child("properties").key(name);
        if name == "metadata" {
            errors.forbidden(&at, "must not be specified in a nested context");
        }
        value_validation(property, false, false, &at, errors);
    }
    if let Some(items) = schema.items() {
        value_validation(items, false, false, &path.child("items"), errors);
    }
    if let Some(junctors) = &schema.junctors {
        nested(junctors, pair_below, path, errors);
    }
}

/// What a rule's parts must be, its expressions aside.
pub(super) fn rule(rule: &Rule, path: &Path, errors: &mut ErrorList) {
    let breaks = |text: &str| text.trim().contains(['\n', '\r']);
    let message_path = path.child("message");
    if rule.rule.trim().is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if !rule.message.is_empty() && rule.message.trim().is_empty() {
        errors.invalid(&message_path, &rule.message.clone().into(), "must be non-empty if specified");
    } else if breaks(&rule.message) {
        errors.invalid(&message_path, &rule.message.clone().into(), "must not contain line breaks");
    } else if breaks(&rule.rule) && rule.message.trim().is_empty() {
        errors.required(&message_path, "message must be specified if rule contains line breaks");
    }
    if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
        errors.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
    }
    if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
        errors.not_supported(&path.child("reason"), &rule.reason, &REASONS);
    }
    if !rule.field_path.is_empty() {
        let (at, value) = (path.child("fieldPath"), Value::from(rule.field_path.clone()));
        if rule.field_path.trim().is_empty() {
            errors.invalid(&at, &value, "must be non-empty if specified");
        }
        if breaks(&rule.field_path) {
            errors.invalid(&at, &value, "must not contain line breaks");
        }
    }
}

/// Judges all defaults: they must be what their own schema allows, and hold nothing that it does not know.
pub(super) fn defaults(schema: &Structural, path: &Path, whole: bool, errors: &mut ErrorList) {
    if let Some(default) = &schema.default {
        let at = path.child("default");
        let mut pruned = default.clone();
        schema.prune_value(&mut pruned);
        if pruned != *default {
            errors.invalid(&at, default, "must not have unknown fields");
        }
        schema.validate_at(default, None, &at, errors);
    }
    if let Some(items) = schema.items() {
        defaults(items, &path.child("items"), items.embedded_resource, errors);
    }
    for (name, property) in &schema.properties {
        if whole && META_FIELDS.contains(&name.as_str()) {
            continue;
        }
        defaults(property, &path.child("properties").key(name), property.embedded_resource, errors);
    }
    if let Some(values) = schema.values() {
        defaults(values, &path.child("additionalProperties"), values.embedded_resource, errors);
    }
}
