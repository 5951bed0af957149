//! Webhooks that judge what is written, all at once.

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::Value;
use wherry_api::status::ApiError;

use super::super::{Plugin, Request};
use super::{Context, Objects, exempt, list, webhook};

/// Kubernetes' `ValidatingAdmissionWebhook`.
#[derive(Debug)]
pub(super) struct ValidatingWebhooks(pub(super) Context);

#[async_trait]
impl Plugin for ValidatingWebhooks {
    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        if exempt(request) {
            return Ok(());
        }
        let objects = Objects { new, old };
        let mut asked = Vec::new();
        for configuration in self.0.registered("validatingwebhookconfigurations") {
            for webhook in list(&configuration, "webhooks") {
                if webhook::concerns(&self.0, request, objects, webhook)? {
                    asked.push(webhook.clone());
                }
            }
        }
        let answers = join_all(asked.iter().map(|webhook| webhook::call(&self.0, request, objects, webhook))).await;
        // The first refusal, in the order of the configurations.
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }
}
