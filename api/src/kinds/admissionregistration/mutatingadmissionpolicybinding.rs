//! MutatingAdmissionPolicyBinding: where a mutating policy holds, and with which parameters.

use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicyBinding;
use serde_json::Value;

use super::policy;
use crate::field::ErrorList;
use crate::resource::Descriptor;
use crate::strategy::Strategy;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<MutatingAdmissionPolicyBinding>()
        .categories(&["api-extensions"])
        .columns(policy::binding_columns())
        .conditional()
        .strategy(MutatingAdmissionPolicyBindingStrategy)
}

#[derive(Debug)]
struct MutatingAdmissionPolicyBindingStrategy;

impl Strategy for MutatingAdmissionPolicyBindingStrategy {
    fn default(&self, object: &mut Value) {
        policy::default_binding(object);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        policy::validate_binding(object, errors);
    }
}
