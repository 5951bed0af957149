//! One webhook: whether it is asked, and the asking.

use std::time::{Duration, Instant};

use serde_json::Value;
use wherry_api::status::ApiError;

use super::super::{Request, Step};
use super::environment::{Environment, conditions_hold};
use super::equivalent::{View, Views};
use super::review::Answer;
use super::{Context, Objects, ignores_failure, list, matching, review, text};
use crate::outbound::ClientConfig;
use crate::uuid;

/// What a webhook is shown of a request; `None`: it is not asked. `views` are those of the request so far.
pub(super) async fn concerns(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    webhook: &Value,
    views: &mut Views,
) -> Result<Option<View>, ApiError> {
    let rules = list(webhook, "rules");
    if rules.is_empty() {
        return Ok(None);
    }
    let Some(seen) = matching::matches(context, request, objects, webhook, rules)? else { return Ok(None) };
    let view = views.get(request, objects, seen).await?;
    if !list(webhook, "matchConditions").is_empty() {
        let environment = Environment::new(context, &view.request(request), view.objects(objects));
        match conditions_hold(context, &environment, webhook) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(_) if ignores_failure(webhook) => return Ok(None),
            Err(error) => {
                let name = matching::name(request, objects);
                return Err(ApiError::forbidden(request.resource, name, error));
            }
        }
    }
    Ok(Some(view))
}

/// Asks a webhook, of a request as it is shown. `None`: it failed, and that is to be ignored. Error: it failed, or said no.
pub(super) async fn call(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    webhook: &Value,
    step: Step,
) -> Result<Option<Answer>, ApiError> {
    let began = Instant::now();
    let answer = judged(context, request, objects, webhook, step).await;
    let (name, rejected) = (text(webhook, "name"), answer.is_err());
    context.durations.webhook(name, step, request.operation, rejected, began.elapsed());
    answer
}

async fn judged(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    webhook: &Value,
    step: Step,
) -> Result<Option<Answer>, ApiError> {
    let name = text(webhook, "name");
    if request.dry_run && !matches!(text(webhook, "sideEffects"), "None" | "NoneOnDryRun") {
        return Err(ApiError::bad_request(format!("admission webhook {name:?} does not support dry run")));
    }
    if request.notes.time_left().is_zero() {
        return Err(late());
    }
    let answer = match exchange(context, request, objects, webhook, step).await {
        Ok(answer) => answer,
        // Whatever its policy: nothing is written for a client that was to have its answer.
        Err(error) if request.notes.time_left().is_zero() => {
            tracing::warn!(webhook = name, error, "a request's webhooks took too long");
            return Err(late());
        }
        Err(error) if ignores_failure(webhook) => {
            tracing::warn!(webhook = name, error, "a webhook failed, which its configuration says to ignore");
            return Ok(None);
        }
        Err(error) => {
            return Err(ApiError::internal(format!("failed calling webhook {name:?}: {error}")));
        }
    };
    let response = &answer.response;
    for warning in list(response, "warnings").iter().filter_map(Value::as_str) {
        request.notes.warn(warning);
    }
    for (key, value) in response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten() {
        request.notes.audit(format!("{name}/{key}"), value.as_str().unwrap_or_default());
    }
    if response.get("allowed") == Some(&Value::Bool(true)) {
        Ok(Some(answer))
    } else {
        Err(review::denial(name, response))
    }
}

fn late() -> ApiError {
    ApiError::timeout("Timeout: request did not complete within requested timeout - context deadline exceeded")
}

async fn exchange(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    webhook: &Value,
    step: Step,
) -> Result<Answer, String> {
    let seconds = webhook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(10).clamp(1, 30);
    let config = ClientConfig::parse(webhook.get("clientConfig").unwrap_or(&Value::Null))
        .map_err(|error| format!("could not get REST client: {error}"))?;
    let uid = uuid::random();
    let asked = review::ask(request, objects, &uid, webhook).to_string();
    let within = Duration::from_secs(seconds).min(request.notes.time_left());
    let told = format!("timeout={}s", within.as_secs() + u64::from(within.subsec_nanos() > 0));
    let reply = context
        .outbound
        .post(&config, &told, asked.into(), within)
        .await
        .map_err(|error| format!("failed to call webhook: {error}"))?;
    let mutating = matches!(step, Step::Admit);
    review::answer(&reply, &uid, webhook, mutating)
        .map_err(|error| format!("received invalid webhook response: {error}"))
}
