//! Group and names of a definition.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::check::strings;
use crate::kinds::tree::text;
use crate::meta::names::{dns1035_label, dns1123_subdomain};

pub(super) fn group(group: &str, path: &Path, errors: &mut ErrorList) {
    let complaints = dns1123_subdomain(group);
    if group.is_empty() {
        errors.required(path, "");
    } else if !complaints.is_empty() {
        errors.invalid(path, &json!(group), &complaints.join(","));
    } else if !group.contains('.') {
        errors.invalid(path, &json!(group), "should be a domain with at least one dot");
    }
}

/// The names that `spec` must have.
pub(super) fn required(names: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(names, &format!("/{field}")).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    good(names, path, errors);
}

/// The accepted names.
pub(super) fn status(crd: &Value, errors: &mut ErrorList) {
    if let Some(names) = crd.pointer("/status/acceptedNames") {
        good(names, &Path::new("status").child("acceptedNames"), errors);
    }
}

fn good(names: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["plural", "singular"] {
        let name = text(names, &format!("/{field}"));
        if !name.is_empty() {
            label(name, &path.child(field), errors);
        }
    }
    for field in ["kind", "listKind"] {
        let name = text(names, &format!("/{field}"));
        let complaints = dns1035_label(&name.to_lowercase());
        if !name.is_empty() && !complaints.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
            errors.invalid(&path.child(field), &json!(name), &why);
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in strings(names, &format!("/{field}")).into_iter().enumerate() {
            label(name, &path.child(field).index(index), errors);
        }
    }
    let (kind, list_kind) = (text(names, "/kind"), text(names, "/listKind"));
    if !kind.is_empty() && kind == list_kind {
        errors.invalid(&path.child("listKind"), &json!(list_kind), "kind and listKind may not be the same");
    }
}

fn label(name: &str, path: &Path, errors: &mut ErrorList) {
    let complaints = dns1035_label(name);
    if !complaints.is_empty() {
        errors.invalid(path, &json!(name), &complaints.join(","));
    }
}
