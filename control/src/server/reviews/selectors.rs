//! The selectors that an access review asks about, as a list's query would say them, for authorizers that look at them.
//!
//! What must stay true: a requirement that cannot be said is left out, so that a wider list is asked about, never a
//! narrower one.

use serde_json::Value;
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::selector::escape;

/// Judges `fieldSelector` or `labelSelector` of a review's `resourceAttributes`.
pub(super) fn check(attributes: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    let Some(selector) = attributes.get(field).filter(|selector| !selector.is_null()) else { return };
    let (raw, path) = (object::text_at(selector, "rawSelector"), path.child(field));
    match (raw.is_empty(), requirements(selector).is_empty()) {
        (false, false) => {
            errors.invalid(
                &path.child("rawSelector"),
                &raw.into(),
                "may not specified at the same time as requirements",
            );
        }
        (true, true) => {
            errors.required(
                &path.child("requirements"),
                &format!("when {path} is specified, requirements or rawSelector is required"),
            );
        }
        _ => {}
    }
}

/// `metadata.name=a,spec.nodeName!=b`; `None` if there is none, or nothing in it can be said.
pub(super) fn of_fields(attributes: &Value) -> Option<String> {
    text(attributes.get("fieldSelector")?, |key, operator, values| match (operator, values) {
        ("In", [value]) => Some(format!("{key}={}", escape(value))),
        ("NotIn", [value]) => Some(format!("{key}!={}", escape(value))),
        _ => None,
    })
}

/// `app in (a,b),!old`; `None` if there is none, or nothing in it can be said.
pub(super) fn of_labels(attributes: &Value) -> Option<String> {
    text(attributes.get("labelSelector")?, |key, operator, values| match (operator, values) {
        ("In", [_, ..]) => Some(format!("{key} in ({})", values.join(","))),
        ("NotIn", [_, ..]) => Some(format!("{key} notin ({})", values.join(","))),
        ("Exists", []) => Some(key.to_owned()),
        ("DoesNotExist", []) => Some(format!("!{key}")),
        _ => None,
    })
}

fn text(selector: &Value, say: impl Fn(&str, &str, &[&str]) -> Option<String>) -> Option<String> {
    let raw = object::text_at(selector, "rawSelector");
    if !raw.is_empty() {
        return Some(raw);
    }
    let said = requirements(selector).iter().filter_map(|requirement| {
        let values = requirement.get("values").and_then(Value::as_array);
        let values: Vec<&str> = values.into_iter().flatten().filter_map(Value::as_str).collect();
        say(&object::text_at(requirement, "key"), &object::text_at(requirement, "operator"), &values)
    });
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| said.join(","))
}

fn requirements(selector: &Value) -> &[Value] {
    selector.get("requirements").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_are_said_as_a_query_says_them() {
        let asked = json!({
            "fieldSelector": {"requirements": [
                {"key": "spec.nodeName", "operator": "In", "values": ["n,1"]},
                {"key": "metadata.name", "operator": "In", "values": ["a", "b"]},
                {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
            ]},
            "labelSelector": {"requirements": [
                {"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
            ]},
        });
        assert_eq!(of_fields(&asked).as_deref(), Some("spec.nodeName=n\\,1,status.phase!=Failed"));
        assert_eq!(of_labels(&asked).as_deref(), Some("app in (a,b),!old"));
        assert_eq!(of_fields(&json!({"fieldSelector": {"rawSelector": "x=y"}})).as_deref(), Some("x=y"));
        assert_eq!(of_labels(&json!({})), None);
    }
}
