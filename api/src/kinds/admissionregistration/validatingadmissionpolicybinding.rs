//! ValidatingAdmissionPolicyBinding: where a policy holds, with which parameters, and what a failure does.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use serde_json::Value;

use super::policy;
use crate::field::{ErrorList, Path};
use crate::kinds::check::{no_duplicates, strings};
use crate::resource::Descriptor;
use crate::strategy::Strategy;

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ValidatingAdmissionPolicyBinding>()
        .categories(&["api-extensions"])
        .columns(policy::binding_columns())
        .conditional()
        .strategy(ValidatingAdmissionPolicyBindingStrategy)
}

#[derive(Debug)]
struct ValidatingAdmissionPolicyBindingStrategy;

impl Strategy for ValidatingAdmissionPolicyBindingStrategy {
    fn default(&self, object: &mut Value) {
        policy::default_binding(object);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        policy::validate_binding(object, errors);
        validate_actions(object, &Path::new("spec").child("validationActions"), errors);
    }
}

fn validate_actions(binding: &Value, path: &Path, errors: &mut ErrorList) {
    let actions = strings(binding, "/spec/validationActions");
    for (index, action) in actions.iter().enumerate() {
        if !ACTIONS.contains(action) {
            errors.not_supported(&path.index(index), action, ACTIONS);
        }
    }
    no_duplicates(&actions, path, errors);
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                   response and headers serves no purpose)";
        errors.invalid(path, binding.pointer("/spec/validationActions").unwrap_or(&Value::Null), why);
    }
    if actions.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_failure_denies_or_warns_and_may_be_audited() {
        let judge = |actions: Value| {
            let binding = json!({"spec": {"policyName": "p", "validationActions": actions}});
            complaints(|errors| ValidatingAdmissionPolicyBindingStrategy.validate(&binding, errors)).len()
        };
        assert_eq!(judge(json!(["Deny", "Audit"])), 0);
        for bad in [json!([]), json!(["Deny", "Warn"]), json!(["Warn", "Warn"]), json!(["Panic"])] {
            assert_eq!(judge(bad.clone()), 1, "{bad}");
        }
    }
}
