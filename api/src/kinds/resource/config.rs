//! Parts that classes, claims and slices share: selectors, configuration for drivers, tolerations, names.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::cel::{Program, Type};
use crate::field::{ErrorList, Path};
use crate::kinds::check::{no_duplicates, one_of, required_one_of, strings};
use crate::kinds::storage::names::driver;
use crate::kinds::tree::{list, some, text};
use crate::meta::{names, push_all};

const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;
pub(super) const MAX_CONFIGS: usize = 32;
const MAX_POOL: usize = 253;
const MAX_IDENTIFIER: usize = 32;
const MAX_BINDING: usize = 4;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Judges each item of a list that is not too long: one that is is not looked at. Returns whether it was.
pub(super) fn each(
    items: &[Value],
    max: usize,
    path: &Path,
    errors: &mut ErrorList,
    judge: impl Fn(&Value, &Path, &mut ErrorList),
) -> bool {
    if items.len() > max {
        errors.too_many(path, items.len(), max);
        return false;
    }
    for (index, item) in items.iter().enumerate() {
        judge(item, &path.index(index), errors);
    }
    true
}

/// [`each`], of items that have values of their own under `field`.
pub(super) fn each_own(
    items: &[Value],
    field: &str,
    max: usize,
    path: &Path,
    errors: &mut ErrorList,
    judge: impl Fn(&Value, &Path, &mut ErrorList),
) {
    if each(items, max, path, errors, judge) {
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let own = text(item, &format!("/{field}"));
            if !seen.insert(own) {
                errors.duplicate(&path.index(index), &json!(own));
            }
        }
    }
}

/// Judges `selectors`.
pub(super) fn selectors(parent: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("selectors");
    each(list(parent, "/selectors"), MAX_SELECTORS, &path, errors, |selector, path, errors| {
        let path = path.child("cel");
        let source = text(selector, "/cel/expression");
        match some(selector, "/cel") {
            None => errors.required(&path, ""),
            Some(_) if source.is_empty() => errors.required(&path.child("expression"), ""),
            Some(_) if source.len() > MAX_EXPRESSION => {
                errors.too_long(&path.child("expression"), MAX_EXPRESSION);
            }
            Some(_) => expression(source, &path.child("expression"), errors),
        }
    });
}

/// Of `device`, whose attributes are its driver's: their types show when it is looked at.
fn expression(source: &str, path: &Path, errors: &mut ErrorList) {
    let device = ("device".to_owned(), Type::Dyn.into());
    if let Err(error) = Program::compile_to(source, &[device], &Type::Bool) {
        errors.invalid(path, &json!(source), &error.to_string());
    }
}

/// Judges what a driver is told: its name and an object that only it reads.
pub(super) fn opaque(config: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("opaque");
    let Some(opaque) = some(config, "/opaque") else { return errors.required(&path, "") };
    driver(text(opaque, "/driver"), &path.child("driver"), errors);
    let path = path.child("parameters");
    match some(opaque, "/parameters") {
        None => errors.required(&path, ""),
        Some(parameters) => raw(parameters, &path, errors),
    }
}

/// Judges an object that only a driver reads.
pub(super) fn raw(value: &Value, path: &Path, errors: &mut ErrorList) {
    if value.to_string().len() > MAX_PARAMETERS {
        errors.too_long(path, MAX_PARAMETERS);
    } else if !value.is_object() {
        errors.invalid(path, &json!("<value omitted>"), "must be a valid JSON object");
    }
}

/// Judges tolerations of devices' taints.
pub(super) fn tolerations(parent: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, toleration) in list(parent, "/tolerations").iter().enumerate() {
        let path = path.child("tolerations").index(index);
        let (key, value) = (text(toleration, "/key"), text(toleration, "/value"));
        if !key.is_empty() {
            push_all(errors, &path.child("key"), key, names::qualified_name(key));
        }
        match text(toleration, "/operator") {
            "Exists" if !value.is_empty() => {
                errors.invalid(&path.child("value"), &json!(value), "must be empty for operator `Exists`");
            }
            "Equal" => push_all(errors, &path.child("value"), value, names::label_value(value)),
            _ => {}
        }
        required_one_of(toleration, "operator", &path, &["Equal", "Exists"], errors);
        if !text(toleration, "/effect").is_empty() {
            one_of(toleration, "effect", &path, EFFECTS, errors);
        }
    }
}

/// Judges a taint of a device.
pub(super) fn taint(taint: &Value, path: &Path, errors: &mut ErrorList) {
    let (key, value) = (text(taint, "/key"), text(taint, "/value"));
    push_all(errors, &path.child("key"), key, names::qualified_name(key));
    push_all(errors, &path.child("value"), value, names::label_value(value));
    required_one_of(taint, "effect", path, EFFECTS, errors);
}

/// Judges the conditions that a device must meet, or must not, before its pod is bound.
pub(super) fn binding(parent: &Value, path: &Path, errors: &mut ErrorList) {
    let (met, failed) = (strings(parent, "/bindingConditions"), strings(parent, "/bindingFailureConditions"));
    for (field, conditions) in [("bindingConditions", &met), ("bindingFailureConditions", &failed)] {
        let path = path.child(field);
        if conditions.len() > MAX_BINDING {
            errors.too_many(&path, conditions.len(), MAX_BINDING);
            continue;
        }
        for (index, condition) in conditions.iter().enumerate() {
            push_all(errors, &path.index(index), condition, names::qualified_name(condition));
        }
        no_duplicates(conditions, &path, errors);
    }
    for (index, condition) in failed.iter().enumerate().filter(|(_, condition)| met.contains(condition)) {
        let why = "bindingFailureConditions must not overlap with bindingConditions";
        errors.invalid(&path.child("bindingFailureConditions").index(index), &json!(condition), why);
    }
    if met.is_empty() != failed.is_empty() {
        let (missing, there) = if met.is_empty() {
            ("bindingConditions", "bindingFailureConditions")
        } else {
            ("bindingFailureConditions", "bindingConditions")
        };
        errors.invalid(&path.child(missing), &json!([]), &format!("{missing} are required to use {there}"));
    }
}

/// A name that another name of the claim refers to.
pub(super) fn label(parent: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    match text(parent, &format!("/{field}")) {
        "" => errors.required(&path.child(field), ""),
        value => push_all(errors, &path.child(field), value, names::dns1123_label(value)),
    }
}

/// The name of a pool: subdomains with slashes between them.
pub(super) fn pool(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > MAX_POOL {
        errors.too_long(path, MAX_POOL);
    }
    for part in name.split('/') {
        push_all(errors, path, part, names::dns1123_subdomain(part));
    }
}

/// `identifier` or `example.com/identifier`: an attribute or a capacity. More than one slash is not judged, as in Kubernetes.
pub(super) fn qualified(name: &str, path: &Path, errors: &mut ErrorList) {
    match *name.split('/').collect::<Vec<_>>() {
        [id] => identifier(id, path, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid(path, &json!(""), "the domain must not be empty");
            } else {
                driver(domain, path, errors);
            }
            if id.is_empty() {
                errors.invalid(path, &json!(""), "the name must not be empty");
            } else {
                identifier(id, path, errors);
            }
        }
        _ => {}
    }
}

fn identifier(id: &str, path: &Path, errors: &mut ErrorList) {
    if id.len() > MAX_IDENTIFIER {
        errors.too_long(path, MAX_IDENTIFIER);
    }
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !id.starts_with(letter) || !id.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                   alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                   validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.invalid(path, &json!(id), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_selector_is_an_expression_that_compiles() {
        let judge = |selector: Value| {
            complaints(|errors| selectors(&json!({"selectors": [selector]}), &Path::new("spec"), errors)).len()
        };
        assert_eq!(judge(json!({"cel": {"expression": "true"}})), 0);
        assert_eq!(judge(json!({"cel": {"expression": "device.driver == 'gpu' && device.attributes['gpu'].big"}})), 0);
        for expression in ["device.driver ==", "other == 1", "1 + 1"] {
            assert_eq!(judge(json!({"cel": {"expression": expression}})), 1, "{expression}");
        }
        assert_eq!(judge(json!({})), 1);
        assert_eq!(judge(json!({"cel": {"expression": "x".repeat(MAX_EXPRESSION + 1)}})), 1);
    }

    #[test]
    fn a_driver_is_told_an_object() {
        let judge = |config: Value| complaints(|errors| opaque(&config, &Path::new("c"), errors)).len();
        assert_eq!(judge(json!({"opaque": {"driver": "a.example", "parameters": {"x": 1}}})), 0);
        assert_eq!(judge(json!({"opaque": {"driver": "a.example", "parameters": "x"}})), 1);
        assert_eq!(judge(json!({"opaque": {}})), 2);
        assert_eq!(judge(json!({})), 1);
    }

    #[test]
    fn a_toleration_means_something() {
        for (toleration, count) in [
            (json!({"operator": "Exists"}), 0),
            (json!({"operator": "Equal", "key": "k", "value": "v"}), 0),
            (json!({"operator": "Equal", "value": "v"}), 0),
            (json!({"operator": "Exists", "value": "v"}), 1),
            (json!({"operator": "Near"}), 1),
            (json!({"operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}), 0),
            (json!({"operator": "Exists", "effect": "Sometimes"}), 1),
        ] {
            let parent = json!({ "tolerations": [toleration] });
            assert_eq!(complaints(|errors| tolerations(&parent, &Path::new("t"), errors)).len(), count, "{parent}");
        }
    }

    #[test]
    fn what_is_bound_meets_conditions_and_may_fail_others() {
        for (met, failed, said) in [
            (json!([]), json!([]), vec![]),
            (json!(["a"]), json!(["b"]), vec![]),
            (
                json!(["a"]),
                json!([]),
                vec![
                    "d.bindingFailureConditions: Invalid value: []: bindingFailureConditions are required to use bindingConditions",
                ],
            ),
            (
                json!([]),
                json!(["b"]),
                vec![
                    "d.bindingConditions: Invalid value: []: bindingConditions are required to use bindingFailureConditions",
                ],
            ),
            (
                json!(["a", "a"]),
                json!(["a"]),
                vec![
                    "d.bindingConditions[1]: Duplicate value: \"a\"",
                    "d.bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
                ],
            ),
            (
                json!(["a", "b", "c", "d", "e"]),
                json!(["f"]),
                vec!["d.bindingConditions: Too many: 5: must have at most 4 items"],
            ),
        ] {
            let device = json!({"bindingConditions": met, "bindingFailureConditions": failed});
            assert_eq!(complaints(|errors| binding(&device, &Path::new("d"), errors)), said, "{device}");
        }
    }

    #[test]
    fn an_attribute_has_an_identifier_and_may_have_a_domain() {
        let long = "x".repeat(33);
        for (name, said) in [
            ("numa", None),
            ("example.com/numa", None),
            ("/numa", Some("a: Invalid value: \"\": the domain must not be empty".to_owned())),
            ("example.com/", Some("a: Invalid value: \"\": the name must not be empty".to_owned())),
            (&long, Some("a: Too long: may not be more than 32 bytes".to_owned())),
        ] {
            assert_eq!(
                complaints(|errors| qualified(name, &Path::new("a"), errors)),
                said.into_iter().collect::<Vec<_>>()
            );
        }
        assert_eq!(complaints(|errors| qualified("1a", &Path::new("a"), errors)).len(), 1);
    }
}
