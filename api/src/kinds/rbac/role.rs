//! Role: rules within one namespace.

use k8s_openapi::api::rbac::v1::Role;
use serde_json::{Value, json};

use super::rules;
use crate::field::ErrorList;
use crate::kinds::cells::{self, column};
use crate::kinds::tree::text;
use crate::resource::Descriptor;
use crate::strategy::{NameRule, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Role>()
        .columns(vec![cells::name(), created()])
        .create_on_update()
        .no_generation()
        .strategy(RoleStrategy)
}

/// The time of creation, which Kubernetes shows for roles instead of their age.
pub(super) fn created() -> crate::resource::Column {
    let description = "CreationTimestamp is a timestamp representing the server time when this object was created.";
    column("Created At", "date", description, |o, _| json!(text(o, "/metadata/creationTimestamp")))
}

#[derive(Debug)]
struct RoleStrategy;

impl Strategy for RoleStrategy {
    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        rules::validate(object, true, errors);
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}
