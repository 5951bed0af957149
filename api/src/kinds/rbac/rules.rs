//! `PolicyRule`: verbs on resources, or on paths that are no resource's.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::tree::list;

/// Judges the rules of a Role (`namespaced`) or a ClusterRole.
pub(super) fn validate(role: &Value, namespaced: bool, errors: &mut ErrorList) {
    for (index, rule) in list(role, "/rules").iter().enumerate() {
        validate_rule(rule, namespaced, &Path::new("rules").index(index), errors);
    }
}

fn validate_rule(rule: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let has = |field: &str| !list(rule, &format!("/{field}")).is_empty();
    if !has("verbs") {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if has("nonResourceURLs") {
        let path = path.child("nonResourceURLs");
        let urls = rule.get("nonResourceURLs").unwrap_or(&Value::Null);
        if namespaced {
            errors.invalid(&path, urls, "namespaced rules cannot apply to non-resource URLs");
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            errors.invalid(&path, urls, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if !has("apiGroups") {
        errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !has("resources") {
        errors.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_rule_is_about_resources_or_about_paths() {
        for (rule, namespaced, expected) in [
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), true, vec![]),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}), false, vec![]),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}),
                true,
                vec![
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource \
                     URLs",
                ],
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]}),
                false,
                vec![
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources \
                     and non-resource URLs",
                ],
            ),
            (
                json!({}),
                true,
                vec![
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ],
            ),
        ] {
            let role = json!({"rules": [rule]});
            assert_eq!(complaints(|errors| validate(&role, namespaced, errors)), expected, "{role}");
        }
    }
}
