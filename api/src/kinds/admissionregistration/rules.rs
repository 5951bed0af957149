//! Which requests a webhook or a policy is about: operations on resources.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::check::{one_of, strings};
use crate::kinds::tree::{fill, list_mut};

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];

/// Defaults of the rules under `key`.
pub(super) fn default(parent: &mut Value, key: &str) {
    for rule in list_mut(parent, key) {
        fill(rule, "scope", "*");
    }
}

/// Judges one `RuleWithOperations`.
pub(super) fn validate(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let operations = strings(rule, "/operations");
    alone(rule, "operations", "operations", path, errors);
    for (index, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(operation) {
            errors.not_supported(&path.child("operations").index(index), operation, OPERATIONS);
        }
    }
    alone(rule, "apiGroups", "API groups", path, errors);
    alone(rule, "apiVersions", "API versions", path, errors);
    for (index, version) in strings(rule, "/apiVersions").iter().enumerate() {
        if version.is_empty() {
            errors.required(&path.child("apiVersions").index(index), "");
        }
    }
    resources(rule, &path.child("resources"), errors);
    one_of(rule, "scope", path, SCOPES, errors);
}

/// A list that is not empty, in which `*` stands alone.
fn alone(rule: &Value, field: &str, what: &str, path: &Path, errors: &mut ErrorList) {
    let values = strings(rule, &format!("/{field}"));
    let path = path.child(field);
    if values.is_empty() {
        errors.required(&path, "");
    }
    if values.len() > 1 && values.contains(&"*") {
        let value = rule.get(field).unwrap_or(&Value::Null);
        errors.invalid(&path, value, &format!("if '*' is present, must not specify other {what}"));
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`, `*/*`: none that another already covers.
fn resources(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let all = strings(rule, "/resources");
    if all.is_empty() {
        errors.required(path, "");
    }
    let (mut whole, mut every) = (Vec::new(), Vec::new());
    for (index, name) in all.iter().enumerate() {
        let path = path.index(index);
        if name.is_empty() {
            errors.required(&path, "");
        }
        let Some((resource, subresource)) = name.split_once('/') else { continue };
        let quoted = serde_json::json!(name);
        if whole.contains(&resource) {
            errors.invalid(&path, &quoted, &format!("if '{resource}/*' is present, must not specify {name}"));
        }
        if every.contains(&subresource) {
            errors.invalid(&path, &quoted, &format!("if '*/{subresource}' is present, must not specify {name}"));
        }
        if subresource == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            every.push(subresource);
        }
    }
    let value = rule.get("resources").unwrap_or(&Value::Null);
    if all.len() > 1 && all.contains(&"*/*") {
        errors.invalid(path, value, "if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && all.iter().any(|r| *r != "*" && !r.contains('/')) {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, value, why);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn nothing_is_named_that_is_covered_already() {
        for (resources, complaint) in [
            (json!(["pods", "pods/log"]), None),
            (json!(["*"]), None),
            (json!(["*", "pods/log"]), None),
            (
                json!(["*", "pods"]),
                Some(
                    "resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
                ),
            ),
            (
                json!(["*/*", "pods/log"]),
                Some(
                    "resources: Invalid value: [\"*/*\",\"pods/log\"]: if '*/*' is present, must not specify other resources",
                ),
            ),
            (
                json!(["pods/*", "pods/log"]),
                Some("resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log"),
            ),
            (
                json!(["*/scale", "pods/scale"]),
                Some(
                    "resources[1]: Invalid value: \"pods/scale\": if '*/scale' is present, must not specify pods/scale",
                ),
            ),
            (json!([]), Some("resources: Required value")),
        ] {
            let rule =
                json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources});
            let all = complaints(|errors| validate(&rule, &Path::default(), errors));
            assert_eq!(all.iter().map(String::as_str).next(), complaint, "{rule}");
        }
    }

    #[test]
    fn a_star_stands_alone() {
        let rule = json!({"operations": ["*", "CREATE"], "apiGroups": ["*", "apps"], "apiVersions": [],
            "resources": ["pods"], "scope": "Galaxy"});
        assert_eq!(
            complaints(|errors| validate(&rule, &Path::new("r"), errors)),
            [
                "r.operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
                "r.apiGroups: Invalid value: [\"*\",\"apps\"]: if '*' is present, must not specify other API groups",
                "r.apiVersions: Required value",
                "r.scope: Unsupported value: \"Galaxy\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
            ]
        );
    }
}
