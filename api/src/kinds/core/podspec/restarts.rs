//! When a container is started again: its own policy and rules, and what a resize does to it.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, some, text};

const POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const ACTIONS: &[&str] = &["Restart", "RestartAllContainers"];
const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;

/// Judges a container's `restartPolicy` and `restartPolicyRules`.
pub(super) fn validate(container: &Value, path: &Path, errors: &mut ErrorList) {
    let policy = some(container, "/restartPolicy").and_then(Value::as_str);
    let rules = list(container, "/restartPolicyRules");
    match policy {
        None if !rules.is_empty() => {
            errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        Some(policy) if !POLICIES.contains(&policy) => {
            errors.not_supported(&path.child("restartPolicy"), policy, POLICIES);
        }
        _ => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MAX_RULES {
        errors.too_many(&path, rules.len(), MAX_RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let action = text(rule, "/action");
        if !ACTIONS.contains(&action) {
            errors.not_supported(&path.child("action"), action, ACTIONS);
        }
        let codes_path = path.child("exitCodes");
        let Some(codes) = some(rule, "/exitCodes") else {
            errors.required(&codes_path, "must be specified");
            continue;
        };
        let operator = text(codes, "/operator");
        if !["In", "NotIn"].contains(&operator) {
            errors.not_supported(&codes_path.child("operator"), operator, &["In", "NotIn"]);
        }
        let values = list(codes, "/values").len();
        if values > MAX_CODES {
            errors.too_many(&codes_path.child("values"), values, MAX_CODES);
        }
    }
}

/// Judges `resizePolicy`. What it says wrong is said of the whole list, except for a repetition.
pub(super) fn validate_resize(container: &Value, pod_policy: &str, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, item) in list(container, "/resizePolicy").iter().enumerate() {
        let (resource, policy) = (text(item, "/resourceName"), text(item, "/restartPolicy"));
        if !seen.insert(resource) {
            errors.duplicate(&path.index(index), &json!(resource));
        }
        for (value, values) in
            [(resource, ["cpu", "memory"].as_slice()), (policy, ["NotRequired", "RestartContainer"].as_slice())]
        {
            if value.is_empty() {
                errors.required(path, "");
            } else if !values.contains(&value) {
                errors.not_supported(path, value, values);
            }
        }
        if pod_policy == "Never" && policy != "NotRequired" {
            errors.invalid(path, &json!(policy), "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    #[test]
    fn a_container_restarts_by_a_policy_that_exists() {
        let rule = json!({"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}});
        for (container, why) in [
            (
                json!({"restartPolicy": "X"}),
                "restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ),
            (
                json!({"restartPolicyRules": [rule]}),
                "restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            ),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Stop", "exitCodes": rule["exitCodes"]}]}),
                "restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
            ),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]}),
                "restartPolicyRules[0].exitCodes: Required value: must be specified",
            ),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "Gt"}}]}),
                "restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Gt\": supported values: \"In\", \"NotIn\"",
            ),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": vec![rule.clone(); 21]}),
                "restartPolicyRules: Too many: 21: must have at most 20 items",
            ),
        ] {
            assert_refused(json!({}), &container, &format!("spec.containers[0].{why}"));
        }
        let all = json!({"action": "RestartAllContainers", "exitCodes": rule["exitCodes"]});
        let good = json!({"name": "a", "image": "x", "restartPolicy": "Never", "restartPolicyRules": [rule, all]});
        assert_eq!(complaints(&json!({"containers": [good]})), Vec::<String>::new());
    }

    #[test]
    fn a_resize_restarts_or_not() {
        let place = "spec.containers[0].resizePolicy";
        let item = |resource: &str, policy: &str| json!({"resourceName": resource, "restartPolicy": policy});
        for (items, why) in [
            (
                vec![item("cpu", "X")],
                ": Unsupported value: \"X\": supported values: \"NotRequired\", \"RestartContainer\"",
            ),
            (vec![item("foo", "NotRequired")], ": Unsupported value: \"foo\": supported values: \"cpu\", \"memory\""),
            (vec![item("cpu", "NotRequired"), item("cpu", "NotRequired")], "[1]: Duplicate value: \"cpu\""),
            (vec![json!({"resourceName": "cpu"})], ": Required value"),
        ] {
            assert_refused(json!({}), &json!({ "resizePolicy": items }), &format!("{place}{why}"));
        }
        assert_refused(
            json!({"restartPolicy": "Never"}),
            &json!({"resizePolicy": [item("cpu", "RestartContainer")]}),
            &format!(
                "{place}: Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'"
            ),
        );
    }
}
