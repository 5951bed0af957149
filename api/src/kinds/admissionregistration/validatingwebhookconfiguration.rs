//! ValidatingWebhookConfiguration: webhooks that may refuse what is written.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use serde_json::Value;

use super::webhook;
use crate::field::ErrorList;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ValidatingWebhookConfiguration>()
        .categories(&["api-extensions"])
        .columns(webhook::columns())
        .conditional()
        .strategy(ValidatingWebhookConfigurationStrategy)
}

#[derive(Debug)]
struct ValidatingWebhookConfigurationStrategy;

impl Strategy for ValidatingWebhookConfigurationStrategy {
    fn default(&self, object: &mut Value) {
        webhook::default(object, false);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        webhook::validate(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        webhook::validate(new, Some(old), errors);
    }
}
