//! RoleBinding: gives a role to somebody in one namespace.

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::Value;

use super::binding;
use crate::field::ErrorList;
use crate::resource::Descriptor;
use crate::strategy::{NameRule, Part, Strategy};

/// What it may refer to.
const KINDS: &[&str] = &["Role", "ClusterRole"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<RoleBinding>()
        .columns(binding::columns())
        .create_on_update()
        .no_generation()
        .strategy(RoleBindingStrategy)
}

#[derive(Debug)]
struct RoleBindingStrategy;

impl Strategy for RoleBindingStrategy {
    fn default(&self, object: &mut Value) {
        binding::default(object);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        binding::validate(object, KINDS, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        binding::validate_update(new, old, KINDS, errors);
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}
