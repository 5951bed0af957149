//! Parts that classes, claims and slices share: selectors, configuration for drivers, tolerations.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::cel::{Program, Type};
use crate::field::{ErrorList, Path};
use crate::kinds::check::one_of;
use crate::kinds::storage::names::driver;
use crate::kinds::tree::{int, list, some, text};
use crate::meta::{names, push_all};

const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;
pub(super) const MAX_CONFIGS: usize = 32;

/// Judges `selectors`.
pub(super) fn selectors(parent: &Value, path: &Path, errors: &mut ErrorList) {
    let (all, path) = (list(parent, "/selectors"), path.child("selectors"));
    if all.len() > MAX_SELECTORS {
        errors.too_many(&path, all.len(), MAX_SELECTORS);
    }
    for (index, selector) in all.iter().enumerate() {
        let path = path.index(index).child("cel");
        match some(selector, "/cel") {
            None => errors.required(&path, ""),
            Some(_) if text(selector, "/cel/expression").is_empty() => errors.required(&path.child("expression"), ""),
            Some(_) if text(selector, "/cel/expression").len() > MAX_EXPRESSION => {
                errors.too_long(&path.child("expression"), MAX_EXPRESSION);
            }
            Some(_) => expression(text(selector, "/cel/expression"), &path.child("expression"), errors),
        }
    }
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
        Some(parameters) if !parameters.is_object() => {
            errors.invalid(&path, &json!("<value omitted>"), "must be a valid JSON object");
        }
        Some(parameters) if parameters.to_string().len() > MAX_PARAMETERS => errors.too_long(&path, MAX_PARAMETERS),
        Some(_) => {}
    }
}

/// Judges tolerations of devices' taints.
pub(super) fn tolerations(parent: &Value, path: &Path, errors: &mut ErrorList) {
    for (index, toleration) in list(parent, "/tolerations").iter().enumerate() {
        let path = path.child("tolerations").index(index);
        let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
        if !key.is_empty() {
            push_all(errors, &path.child("key"), key, names::qualified_name(key));
        }
        match (operator, some(toleration, "/value")) {
            ("Exists", Some(value)) if value != "" => {
                errors.invalid(&path.child("value"), value, "must be empty for operator `Exists`");
            }
            ("Equal", value) => {
                let value = value.and_then(Value::as_str).unwrap_or_default();
                push_all(errors, &path.child("value"), value, names::label_value(value));
                if key.is_empty() {
                    errors.required(&path.child("key"), "must be set when operator is `Equal`");
                }
            }
            _ => {}
        }
        one_of(toleration, "operator", &path, &["Equal", "Exists"], errors);
        effect(toleration, &path, errors);
    }
}

/// `NoSchedule` or `NoExecute`, if there is one.
pub(super) fn effect(parent: &Value, path: &Path, errors: &mut ErrorList) {
    if !text(parent, "/effect").is_empty() {
        one_of(parent, "effect", path, &["NoExecute", "NoSchedule", "None"], errors);
    }
    if let Some(seconds) = some(parent, "/tolerationSeconds")
        && text(parent, "/effect") != "NoExecute"
        && int(parent, "/tolerationSeconds").is_some()
    {
        errors.invalid(&path.child("effect"), seconds, "must be `NoExecute` when `tolerationSeconds` is set");
    }
}

/// A name that another name of the claim refers to.
pub(super) fn label(parent: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    match text(parent, &format!("/{field}")) {
        "" => errors.required(&path.child(field), ""),
        value => push_all(errors, &path.child(field), value, names::dns1123_label(value)),
    }
}

/// Reports items whose `field` an earlier one has.
pub(super) fn distinct(items: &[Value], field: &str, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let name = item.get(field).unwrap_or(&Value::Null);
        if !seen.insert(name) && item.get(field).is_some() {
            errors.duplicate(&path.index(index).child(field), name);
        }
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
            (json!({"operator": "Equal", "value": "v"}), 1),
            (json!({"operator": "Exists", "value": "v"}), 1),
            (json!({"operator": "Near"}), 1),
            (json!({"operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}), 1),
        ] {
            let parent = json!({ "tolerations": [toleration] });
            assert_eq!(complaints(|errors| tolerations(&parent, &Path::new("t"), errors)).len(), count, "{parent}");
        }
    }
}
