//! AdmissionReview: what a webhook is asked, and what its answer means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::status::ApiError;

use super::super::Request;
use super::{Objects, environment, list, text};
use crate::outbound::Reply;

/// Versions that are spoken, the preferred one first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// The document that is sent.
pub(super) fn ask(request: &Request<'_>, objects: Objects<'_>, uid: &str, webhook: &Value) -> Value {
    let mut asked = environment::request_value(request, objects);
    if let Value::Object(map) = &mut asked {
        map.insert("uid".into(), uid.into());
        map.insert("object".into(), objects.new.cloned().unwrap_or(Value::Null));
        map.insert("oldObject".into(), objects.old.cloned().unwrap_or(Value::Null));
        map.retain(|key, value| !(matches!(key.as_str(), "subResource" | "requestSubResource") && value == ""));
    }
    let version = version(webhook);
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": asked})
}

fn version(webhook: &Value) -> &'static str {
    let speaks = |version: &&&str| list(webhook, "admissionReviewVersions").iter().any(|v| v == **version);
    VERSIONS.iter().find(speaks).copied().unwrap_or("v1")
}

/// An answer that keeps the rules. Error: what is wrong with it.
pub(super) fn answer(reply: &Reply, uid: &str, webhook: &Value) -> Result<Value, String> {
    if !reply.status.is_success() {
        let said =
            String::from_utf8_lossy(reply.body.get(..reply.body.len().min(200)).unwrap_or_default()).into_owned();
        let said =
            if said.trim().is_empty() { "the server rejected our request".to_owned() } else { said.trim().to_owned() };
        return Err(format!("the server responded with status code {}: {said}", reply.status.as_u16()));
    }
    let review = reply.json().ok_or("the answer is not JSON")?;
    let wanted = format!("admission.k8s.io/{}", version(webhook));
    if object::api_version(&review) != wanted || object::kind(&review) != "AdmissionReview" {
        return Err(format!(
            "expected webhook response of {wanted}, Kind=AdmissionReview, got {}, Kind={}",
            object::api_version(&review),
            object::kind(&review)
        ));
    }
    let response = review.get("response").filter(|r| r.is_object()).ok_or("webhook response was absent")?;
    let named = text(response, "uid");
    if named != uid && version(webhook) == "v1" {
        return Err(format!("expected response.uid={uid:?}, got {named:?}"));
    }
    Ok(response.clone())
}

/// The JSON patch of an answer; `None`: it changes nothing.
pub(super) fn patch(response: &Value) -> Result<Option<Value>, String> {
    let encoded = text(response, "patch");
    match (encoded, text(response, "patchType")) {
        ("", "") => Ok(None),
        ("", kind) => Err(format!("webhook returned response.patchType {kind:?} but not response.patch")),
        (encoded, "JSONPatch") => {
            let bytes = STANDARD.decode(encoded).map_err(|error| format!("the patch is not base64: {error}"))?;
            let patch = serde_json::from_slice(&bytes).map_err(|error| format!("the patch is not JSON: {error}"))?;
            Ok(Some(patch))
        }
        (_, kind) => Err(format!("webhook returned invalid response.patchType of {kind:?}")),
    }
}

/// Reasons of Kubernetes' Status that an answer may give.
const REASONS: [&str; 14] = [
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Invalid",
    "Timeout",
    "TooManyRequests",
    "BadRequest",
    "MethodNotAllowed",
    "InternalError",
    "ServiceUnavailable",
    "Expired",
];

/// The error of a webhook that said no.
pub(super) fn denial(name: &str, response: &Value) -> ApiError {
    let status = response.get("status").unwrap_or(&Value::Null);
    let denied = format!("admission webhook {name:?} denied the request");
    let message = match (text(status, "message"), text(status, "reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let reason = REASONS.iter().find(|known| **known == text(status, "reason")).copied().unwrap_or_default();
    ApiError::new(code, reason, message)
}
