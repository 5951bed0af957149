//! Reviews: questions that are answered and forgotten. Their descriptors are listed like any other kind's, so discovery, OpenAPI and
//! authorization know them; here are their answers.

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::status::ApiError;

use super::call::Call;
use super::error::ServerError;
use crate::auth::{Attributes, Decision, UserInfo};

mod selectors;
mod spec;

/// Answers a review: the object with its `status`.
pub(crate) async fn create(call: &Call, mut review: Value) -> Result<Value, ServerError> {
    let resource = call.resource.clone();
    object::set_type(&mut review, &resource);
    if resource.plural.ends_with("accessreviews") {
        spec::check(&resource, &review, &call.info.namespace)?;
    }
    if resource.plural == "tokenreviews" && object::text_at(&review, "spec.token").is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication").into());
    }
    let status = match (resource.group.as_ref(), resource.plural.as_ref()) {
        ("authentication.k8s.io", "selfsubjectreviews") => json!({"userInfo": call.user.to_json()}),
        ("authentication.k8s.io", "tokenreviews") => token(call, &review).await,
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            let user = call.user.clone();
            access(call, &review, &user).await?
        }
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
            access(call, &review, &subject(&review)).await?
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => rules(call, &review).await?,
        _ => return Err(ApiError::method_not_allowed().into()),
    };
    object::set_at(&mut review, "status", status);
    Ok(review)
}

/// Whether a user may do what a review describes.
async fn access(call: &Call, review: &Value, user: &UserInfo) -> Result<Value, ServerError> {
    let attributes = attributes(review);
    let decision = call.server.authorizer().authorize(user, &attributes).await;
    let mut status = json!({"allowed": decision.allowed()});
    let reason = match decision {
        Decision::Allow => call.server.authorizer().reason(user, &attributes).await,
        Decision::Deny(reason) => reason,
    };
    if !reason.is_empty() {
        object::set_at(&mut status, "reason", reason);
    }
    Ok(status)
}

/// All that the user may do in a namespace.
async fn rules(call: &Call, review: &Value) -> Result<Value, ServerError> {
    let namespace = object::text_at(review, "spec.namespace");
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request").into());
    }
    let found = call.server.authorizer().rules(&call.user, &namespace).await;
    let (mut resources, mut others) = (Vec::new(), Vec::new());
    for rule in found.rules {
        match rule.non_resource_urls.filter(|urls| !urls.is_empty()) {
            Some(urls) => others.push(json!({"verbs": rule.verbs, "nonResourceURLs": urls})),
            None => resources.push(json!(PolicyRule { non_resource_urls: None, ..rule })),
        }
    }
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": others, "incomplete": !found.errors.is_empty()});
    if !found.errors.is_empty() {
        object::set_at(&mut status, "evaluationError", found.errors.join(", "));
    }
    Ok(status)
}

/// What a review that has been checked asks about.
fn attributes(review: &Value) -> Attributes {
    let Some(of) = review.pointer("/spec/resourceAttributes").filter(|attributes| !attributes.is_null()) else {
        let text = |field: &str| object::text_at(review, &format!("spec.nonResourceAttributes.{field}"));
        return Attributes::non_resource(text("verb"), text("path"));
    };
    let text = |field: &str| object::text_at(of, field);
    Attributes {
        verb: text("verb"),
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        field_selector: selectors::of_fields(of),
        label_selector: selectors::of_labels(of),
        ..Attributes::default()
    }
}

fn subject(review: &Value) -> UserInfo {
    let texts = |value: Option<&Value>| -> Vec<String> {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    UserInfo {
        name: object::text_at(review, "spec.user"),
        uid: object::text_at(review, "spec.uid"),
        groups: texts(review.pointer("/spec/groups")),
        extra: review
            .pointer("/spec/extra")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.clone(), texts(Some(values))))
            .collect(),
    }
}

/// Whose token it is, if it is good.
async fn token(call: &Call, review: &Value) -> Value {
    let audiences: Vec<String> = review
        .pointer("/spec/audiences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let Some(tokens) = call.server.tokens() else { return json!({"error": "this server issues no tokens"}) };
    match tokens.authenticate(&object::text_at(review, "spec.token"), &audiences).await {
        Ok(verified) => json!({
            "authenticated": true, "user": verified.user.to_json(), "audiences": verified.audiences,
        }),
        Err(error) => json!({"error": error.to_string()}),
    }
}
