//! Eviction: deletes a pod, when its disruption budgets allow that. There are no budgets yet, so it always does. The pod says
//! before that it ends for no fault of its own.
//!
//! Admission judges the Eviction; the delete that follows is the server's own.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::status::ApiError;

use crate::admission::Operation;
use crate::server::answer;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::WriteOptions;
use crate::server::verbs::delete::{self, Admission, DeleteOptions};
use crate::server::verbs::update::modify_admitted;

pub(crate) async fn evict(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let (eviction, asked) = super::asked(call, body).await?;
    if object::name(&eviction) != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object").into());
    }
    let mut options = delete_options(&eviction, asked.dry_run)?;
    let name = call.info.name.clone();
    call.admit(&call.admission(Operation::Create, &name, asked.dry_run), Some(&eviction), None).await?;
    if !options.is_dry_run() {
        say_why(call, &mut options).await?;
    }
    delete::run(call, &name, &options, Admission::Given).await?;
    answer::value(call.accepted, StatusCode::CREATED, &super::done())
}

/// Writes into the pod's status why it ends. Preconditions are about the pod before that.
async fn say_why(call: &mut Call, options: &mut DeleteOptions) -> Result<(), ServerError> {
    let (resource, asked) = (call.resource.clone(), options.clone());
    let change = |pod: &Value| {
        asked.check_preconditions(&resource, pod)?;
        Ok(disrupted(pod, Timestamp::now()))
    };
    let revision = modify_admitted(call, &WriteOptions::default(), change).await?.revision;
    if let Some(version) = options.preconditions.as_mut().and_then(|p| p.resource_version.as_mut()) {
        *version = revision.to_string();
    }
    Ok(())
}

/// The pod with the condition `DisruptionTarget`.
fn disrupted(pod: &Value, now: Timestamp) -> Value {
    const TYPE: &str = "DisruptionTarget";
    let mut conditions = object::at(pod, "status.conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is = |condition: &Value, field: &str, value: &str| condition.get(field).and_then(Value::as_str) == Some(value);
    let before = conditions.iter().find(|c| is(c, "type", TYPE) && is(c, "status", "True"));
    let since = before.and_then(|c| c.get("lastTransitionTime")).cloned();
    conditions.retain(|c| !is(c, "type", TYPE));
    conditions.push(json!({
        "type": TYPE, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastTransitionTime": since.unwrap_or_else(|| json!(object::format_time(now))),
        "observedGeneration": object::generation(pod),
    }));
    let mut pod = pod.clone();
    object::set_at(&mut pod, "status.conditions", conditions);
    pod
}

/// How the pod is to be deleted. A dry run of the request is one of the delete.
fn delete_options(eviction: &Value, dry_run: bool) -> Result<DeleteOptions, ApiError> {
    let mut options = DeleteOptions::embedded(eviction.get("deleteOptions"))?;
    if dry_run {
        options.dry_run = Some(vec!["All".to_owned()]);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_of_both_asks_for_a_dry_run() {
        let dry = json!({"deleteOptions": {"dryRun": ["All"], "gracePeriodSeconds": 3}});
        for (eviction, asked, is) in [(&json!({}), false, false), (&json!({}), true, true), (&dry, false, true)] {
            assert_eq!(delete_options(eviction, asked).unwrap().is_dry_run(), is, "{eviction} {asked}");
        }
        assert_eq!(delete_options(&dry, false).unwrap().grace_period_seconds, Some(3));
    }
}
