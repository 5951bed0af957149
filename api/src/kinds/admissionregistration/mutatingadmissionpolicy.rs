//! MutatingAdmissionPolicy: expressions that change what is written.

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;
use serde_json::{Value, json};

use super::expressions::{Scope, Wanted};
use super::policy;
use crate::field::{ErrorList, Path};
use crate::kinds::check::required_one_of;
use crate::kinds::tree::{fill, list, object, some, text};
use crate::resource::Descriptor;
use crate::strategy::Strategy;

const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<MutatingAdmissionPolicy>()
        .categories(&["api-extensions"])
        .columns(policy::columns("Mutations", |o, _| json!(list(o, "/spec/mutations").len())))
        .conditional()
        .strategy(MutatingAdmissionPolicyStrategy)
}

#[derive(Debug)]
struct MutatingAdmissionPolicyStrategy;

impl Strategy for MutatingAdmissionPolicyStrategy {
    fn default(&self, object: &mut Value) {
        policy::default(object);
        if let Some(spec) = self::object(object, "spec") {
            fill(spec, "reinvocationPolicy", "Never");
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        policy::validate(object, errors);
        let (spec, path) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
        required_one_of(spec, "reinvocationPolicy", &path, REINVOCATION_POLICIES, errors);
        let mutations = list(spec, "/mutations");
        if mutations.is_empty() {
            errors.required(&path.child("mutations"), "mutations must contain at least one item");
        }
        let scope = Scope::policy(spec);
        for (index, mutation) in mutations.iter().enumerate() {
            validate_mutation(mutation, &scope, &path.child("mutations").index(index), errors);
        }
    }
}

/// A mutation has the one field that its type names.
fn validate_mutation(mutation: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    required_one_of(mutation, "patchType", path, PATCH_TYPES, errors);
    let wanted = match text(mutation, "/patchType") {
        "ApplyConfiguration" => "applyConfiguration",
        "JSONPatch" => "jsonPatch",
        _ => return,
    };
    for field in ["applyConfiguration", "jsonPatch"] {
        let (there, path) = (some(mutation, &format!("/{field}")), path.child(field));
        match there {
            Some(patch) if field == wanted && text(patch, "/expression").trim().is_empty() => {
                errors.required(&path.child("expression"), "expression is not specified");
            }
            Some(patch) if field == wanted => {
                scope.expression(text(patch, "/expression"), Wanted::Anything, &path.child("expression"), errors);
            }
            Some(_) => errors
                .forbidden(&path, &format!("must not be specified when patchType is {}", text(mutation, "/patchType"))),
            None if field == wanted => {
                errors
                    .required(&path, &format!("must be specified when patchType is {}", text(mutation, "/patchType")));
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_mutation_has_the_field_of_its_type() {
        for (mutation, count) in [
            (json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}), 0),
            (json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}), 0),
            (json!({"patchType": "ApplyConfiguration", "jsonPatch": {"expression": "[]"}}), 2),
            (json!({"patchType": "JSONPatch", "jsonPatch": {}}), 1),
            (json!({"patchType": "Magic"}), 1),
            (json!({}), 1),
        ] {
            let all = complaints(|errors| validate_mutation(&mutation, &Scope::webhook(), &Path::new("m"), errors));
            assert_eq!(all.len(), count, "{mutation}: {all:?}");
        }
    }

    #[test]
    fn a_policy_changes_something_once() {
        let mut policy = json!({"spec": {}});
        MutatingAdmissionPolicyStrategy.default(&mut policy);
        assert_eq!(policy["spec"], json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never"}));
        let all = complaints(|errors| MutatingAdmissionPolicyStrategy.validate(&policy, errors));
        assert_eq!(
            all,
            [
                "spec.matchConstraints: Required value",
                "spec.mutations: Required value: mutations must contain at least one item"
            ]
        );
    }
}
