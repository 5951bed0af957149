//! Webhooks that judge what is written, all at once.

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::Value;
use wherry_api::status::ApiError;

use super::super::{Plugin, Request, Step};
use super::equivalent::Views;
use super::{Context, Objects, exempt, list, webhook};

/// Kubernetes' `ValidatingAdmissionWebhook`.
#[derive(Debug)]
pub(super) struct ValidatingWebhooks(pub(super) Context);

#[async_trait]
impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    async fn validate(&self, request: &Request<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
        if exempt(request) {
            return Ok(());
        }
        let objects = Objects { new, old };
        let (mut asked, mut views) = (Vec::new(), Views::default());
        for configuration in self.0.registered("validatingwebhookconfigurations").iter() {
            for webhook in list(configuration, "webhooks") {
                if let Some(view) = webhook::concerns(&self.0, request, objects, webhook, &mut views).await? {
                    asked.push((webhook.clone(), view));
                }
            }
        }
        let answers = asked.iter().map(async |(webhook, view)| {
            webhook::call(&self.0, &view.request(request), view.objects(objects), webhook, Step::Validate).await
        });
        let answers = join_all(answers).await;
        // The first refusal, in the order of the configurations.
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }
}
