//! ResourceClaimTemplate: a claim for each pod that names it. It is written once.

use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;

use super::claim;
use crate::field::{ErrorList, Path};
use crate::kinds::cells;
use crate::kinds::tree::object;
use crate::meta;
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ResourceClaimTemplate>()
        .idle(Idle::Yet)
        .columns(vec![cells::name(), cells::age()])
        .no_generation()
        .strategy(ResourceClaimTemplateStrategy)
}

#[derive(Debug)]
struct ResourceClaimTemplateStrategy;

impl Strategy for ResourceClaimTemplateStrategy {
    fn default(&self, template: &mut Value) {
        if let Some(spec) = object(template, "spec").and_then(|spec| object(spec, "spec")) {
            claim::default(spec);
        }
    }

    fn validate(&self, template: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec").child("metadata");
        meta::labels(template.pointer("/spec/metadata/labels"), &path.child("labels"), errors);
        meta::annotations(template.pointer("/spec/metadata/annotations"), &path.child("annotations"), errors);
        let spec = template.pointer("/spec/spec").unwrap_or(&Value::Null);
        claim::validate(spec, &Path::new("spec").child("spec"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        meta::immutable(new.get("spec"), old.get("spec"), &Path::new("spec"), errors);
    }
}
