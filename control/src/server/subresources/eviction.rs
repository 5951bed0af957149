//! Eviction: deletes a pod, when its disruption budgets allow that. There are no budgets yet, so it always does.
//!
//! Admission judges the Eviction; the delete that follows is the server's own.

use http::{Response, StatusCode};
use serde_json::Value;
use wherry_api::object;
use wherry_api::status::ApiError;

use crate::admission::Operation;
use crate::server::answer;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::verbs::delete::{self, Admission, DeleteOptions};

pub(crate) async fn evict(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let (eviction, asked) = super::asked(call, body).await?;
    if object::name(&eviction) != call.info.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object").into());
    }
    let options = delete_options(&eviction, asked.dry_run)?;
    let name = call.info.name.clone();
    call.admit(&call.admission(Operation::Create, &name, asked.dry_run), Some(&eviction), None).await?;
    delete::run(call, &name, &options, Admission::Given).await?;
    answer::value(call.accepted, StatusCode::CREATED, &super::done())
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
    use serde_json::json;

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
