//! Match conditions, which webhooks and policies share, and a policy's `MatchResources`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::expressions::Scope;
use super::rules;
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::check::{no_duplicates, required_one_of, strings};
use crate::kinds::tree::{fill, list, object, some, text};
use crate::meta::{names, push_all};

pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const MAX_CONDITIONS: usize = 64;

/// Judges `matchConditions`.
pub(super) fn validate_conditions(parent: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let (all, path) = (list(parent, "/matchConditions"), path.child("matchConditions"));
    if all.len() > MAX_CONDITIONS {
        errors.too_many(&path, all.len(), MAX_CONDITIONS);
    }
    let mut seen = HashSet::new();
    for (index, condition) in all.iter().enumerate() {
        let path = path.index(index);
        if text(condition, "/expression").trim().is_empty() {
            errors.required(&path.child("expression"), "");
        }
        scope.condition(text(condition, "/expression"), &path.child("expression"), errors);
        let name = text(condition, "/name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
            continue;
        }
        push_all(errors, &path.child("name"), name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
    }
}

/// Defaults of the `MatchResources` under `key`, if it is there.
pub(super) fn default(parent: &mut Value, key: &str) {
    let Some(matching) = parent.get_mut(key).filter(|m| m.is_object()) else { return };
    fill(matching, "matchPolicy", "Equivalent");
    object(matching, "namespaceSelector");
    object(matching, "objectSelector");
    rules::default(matching, "resourceRules");
    rules::default(matching, "excludeResourceRules");
}

/// Judges a `MatchResources`.
pub(super) fn validate(matching: &Value, path: &Path, errors: &mut ErrorList) {
    required_one_of(matching, "matchPolicy", path, MATCH_POLICIES, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        match some(matching, &format!("/{field}")) {
            None => errors.required(&path.child(field), ""),
            Some(selector) => validate_selector(selector, &path.child(field), errors),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in list(matching, &format!("/{field}")).iter().enumerate() {
            let path = path.child(field).index(index);
            let named = strings(rule, "/resourceNames");
            for (index, name) in named.iter().enumerate() {
                push_all(errors, &path.child("resourceNames").index(index), name, names::path_segment(name));
            }
            no_duplicates(&named, &path.child("resourceNames"), errors);
            rules::validate(rule, &path, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_condition_has_a_name_of_its_own_and_an_expression() {
        let parent =
            json!({"matchConditions": [{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}, {}]});
        assert_eq!(
            complaints(|errors| validate_conditions(&parent, &Scope::webhook(), &Path::new("w"), errors)),
            [
                "w.matchConditions[1].expression: Required value",
                "w.matchConditions[1].name: Duplicate value: \"a\"",
                "w.matchConditions[2].expression: Required value",
                "w.matchConditions[2].name: Required value",
            ]
        );
    }

    #[test]
    fn defaults_make_resources_complete() {
        let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        let mut parent = json!({"matchConstraints": {"resourceRules": [rule]}});
        default(&mut parent, "matchConstraints");
        default(&mut parent, "absent");
        assert_eq!(parent["matchConstraints"]["resourceRules"][0]["scope"], "*");
        assert!(complaints(|e| validate(&parent["matchConstraints"], &Path::new("m"), e)).is_empty());
        assert_eq!(parent.get("absent"), None);
    }
}
