//! Versions of a definition: schema, subresources, columns, selectable fields.
//!
//! Where all versions have the same schema (or subresources, or columns) it is judged once, under the path that Kubernetes
//! gives to what a definition has as a whole.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::cel::rules::Rules;
use crate::custom::{FORMATS, TYPES};
use crate::field::{ErrorList, Path};
use crate::kinds::check::no_duplicates;
use crate::kinds::tree::{is_true, list, some, text};
use crate::meta::names::dns1035_label;
use crate::schema::structural::{self, Kind, Structural};

/// Selectable fields of a version.
const MAX_SELECTABLE: usize = 8;

/// Fields that the root of a schema may have beside a status subresource.
const ROOT_FIELDS: [&str; 25] = [
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let versions = list(spec, "/versions");
    let all = path.child("versions");
    for (index, version) in versions.iter().enumerate() {
        let name = text(version, "/name");
        let complaints = dns1035_label(name);
        if !complaints.is_empty() {
            errors.invalid(&all.index(index).child("name"), &json!(name), &complaints.join(","));
        }
    }
    let names: Vec<&str> = versions.iter().map(|version| text(version, "/name")).collect();
    if names.iter().collect::<HashSet<_>>().len() < names.len() {
        errors.invalid(&all, &json!(names), "must contain unique version names");
    }
    if versions.iter().filter(|version| is_true(version, "/storage")).count() != 1 {
        errors.invalid(&all, &json!(names), "must have exactly one version marked as storage version");
    }
    for (part, whole) in [
        ("schema", "validation"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
    ] {
        let same = versions.windows(2).all(|pair| matches!(pair, [a, b] if a.get(part) == b.get(part)));
        for (index, version) in versions.iter().enumerate() {
            let path = if same { path.child(whole) } else { all.index(index).child(part) };
            match part {
                "schema" => schema(version, &path, &all.index(index).child("schema"), same && index > 0, errors),
                _ if same && index > 0 => {}
                "subresources" => subresources(version, &path, errors),
                _ => columns(version, &path, errors),
            }
        }
    }
    for (index, version) in versions.iter().enumerate() {
        selectable(version, &all.index(index).child("selectableFields"), errors);
    }
}

/// `seen`: an equal schema has been judged.
fn schema(version: &Value, path: &Path, own: &Path, seen: bool, errors: &mut ErrorList) {
    let Some(schema) = some(version, "/schema/openAPIV3Schema") else {
        return errors.required(&own.child("openAPIV3Schema"), "schemas are required");
    };
    if seen {
        return;
    }
    let path = path.child("openAPIV3Schema");
    let odd = schema.as_object().into_iter().flatten().find(|(field, _)| !ROOT_FIELDS.contains(&field.as_str()));
    if some(version, "/subresources/status").is_some() && odd.is_some() {
        let why = format!(
            "only {ROOT_FIELDS:?} fields are allowed at the root of the schema if the status subresource is enabled"
        );
        errors.invalid(&path, schema, &why);
    }
    let mut found = ErrorList::default();
    let parsed = structural::parse(schema, &path, &mut found);
    if found.is_empty()
        && let Some(rules) = Rules::compile(&parsed, &path, &mut found)
        && found.is_empty()
    {
        rules.judge_defaults(&parsed, &path, &mut found);
    }
    (&found).into_iter().cloned().for_each(|error| errors.push(error));
}

fn subresources(version: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(scale) = some(version, "/subresources/scale") else { return };
    let path = path.child("scale");
    for (field, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let (value, path) = (text(scale, &format!("/{field}")), path.child(field));
        if value.is_empty() {
            errors.required(&path, "");
        } else {
            simple_path(value, &path, &[root], errors);
        }
    }
    let selector = text(scale, "/labelSelectorPath");
    if !selector.is_empty() {
        simple_path(selector, &path.child("labelSelectorPath"), &[".spec.", ".status."], errors);
    }
}

/// A path of names and dots under one of `roots`.
fn simple_path(value: &str, path: &Path, roots: &[&str], errors: &mut ErrorList) {
    if !value.starts_with('.') {
        errors.invalid(path, &json!(value), "must be a simple json path starting with .");
    } else if !roots.iter().any(|root| value.starts_with(root)) {
        let names: Vec<&str> = roots.iter().map(|root| root.trim_end_matches('.')).collect();
        let names = if names.len() > 1 { format!("either {}", names.join(" or ")) } else { names.concat() };
        errors.invalid(path, &json!(value), &format!("should be a json path under {names}"));
    } else if value.contains('[') {
        errors.invalid(path, &json!(value), "should be a json path without array notation");
    }
}

fn columns(version: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, column) in list(version, "/additionalPrinterColumns").iter().enumerate() {
        let path = path.index(index);
        if text(column, "/name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        match text(column, "/type") {
            "" => errors.required(&path.child("type"), &format!("must be one of {}", TYPES.join(","))),
            kind if TYPES.contains(&kind) => {}
            kind => errors.invalid(&path.child("type"), &json!(kind), &format!("must be one of {}", TYPES.join(","))),
        }
        let format = text(column, "/format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            let why = format!("must be one of {}", FORMATS.join(","));
            errors.invalid(&path.child("format"), &json!(format), &why);
        }
        match text(column, "/jsonPath") {
            "" => errors.required(&path.child("JSONPath"), ""),
            value if !value.starts_with('.') => {
                errors.invalid(&path.child("JSONPath"), &json!(value), "must be a simple json path starting with .");
            }
            _ => {}
        }
    }
}

fn selectable(version: &Value, path: &Path, errors: &mut ErrorList) {
    let fields = list(version, "/selectableFields");
    if fields.is_empty() {
        return;
    }
    if fields.len() > MAX_SELECTABLE {
        errors.too_many(path, fields.len(), MAX_SELECTABLE);
    }
    let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
    let schema = structural::parse(schema, &Path::default(), &mut ErrorList::default());
    for (index, field) in fields.iter().enumerate() {
        let path = path.index(index).child("jsonPath");
        let value = text(field, "/jsonPath");
        let mut refuse = |why: &str| errors.invalid(&path, &json!(value), why);
        match value.strip_prefix('.') {
            None if value.is_empty() => errors.required(&path, ""),
            None => refuse("must be a simple json path starting with ."),
            Some(rest) if rest == "metadata" || rest.starts_with("metadata.") => {
                refuse("must not point to fields in metadata");
            }
            Some(rest) => match rest.split('.').try_fold(&schema, |node, name| node.properties.get(name)) {
                None => refuse("is an invalid path: does not refer to a valid field"),
                Some(node) if !is_scalar(node) => refuse(
                    "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                     formats are allowed.",
                ),
                Some(_) => {}
            },
        }
    }
    let paths: Vec<&str> = fields.iter().map(|field| text(field, "/jsonPath")).collect();
    no_duplicates(&paths, path, errors);
}

fn is_scalar(node: &Structural) -> bool {
    matches!(node.kind, Some(Kind::String | Kind::Boolean | Kind::Integer))
}
