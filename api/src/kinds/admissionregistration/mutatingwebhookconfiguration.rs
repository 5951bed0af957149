//! MutatingWebhookConfiguration: webhooks that may change what is written.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use serde_json::Value;

use super::webhook;
use crate::field::ErrorList;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<MutatingWebhookConfiguration>()
        .categories(&["api-extensions"])
        .columns(webhook::columns())
        .conditional()
        .strategy(MutatingWebhookConfigurationStrategy)
}

#[derive(Debug)]
struct MutatingWebhookConfigurationStrategy;

impl Strategy for MutatingWebhookConfigurationStrategy {
    fn default(&self, object: &mut Value) {
        webhook::default(object, true);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        webhook::validate(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        webhook::validate(new, Some(old), errors);
    }
}
