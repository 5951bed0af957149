//! AdmissionReview: what a webhook is asked, and what its answer means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::status::{ApiError, Details};

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

/// What a webhook has said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Value,
    /// The text of a JSON patch.
    pub(super) patch: Option<Vec<u8>>,
}

/// An answer that keeps the rules, of a webhook that may change the object if it is `mutating`. Error: what is wrong with it.
pub(super) fn answer(reply: &Reply, uid: &str, webhook: &Value, mutating: bool) -> Result<Answer, String> {
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
    let patch = if mutating { patch(response, version(webhook))? } else { None };
    Ok(Answer { response: response.clone(), patch })
}

/// The patch of an answer. `v1beta1` has no other type of them than JSON patches, and does not look at what is said.
fn patch(response: &Value, version: &str) -> Result<Option<Vec<u8>>, String> {
    let (encoded, kind) = (text(response, "patch"), response.get("patchType").and_then(Value::as_str));
    match (encoded, kind) {
        ("", Some(_)) if version == "v1" => {
            Err("webhook returned response.patchType but not response.patch".to_owned())
        }
        ("", _) => Ok(None),
        (_, None) if version == "v1" => Err("webhook returned response.patch but not response.patchType".to_owned()),
        (_, Some("")) if version == "v1" => Err("webhook returned invalid response.patchType of \"\"".to_owned()),
        (_, Some(other)) if version == "v1" && other != "JSONPatch" => Err(format!("unsupported patch type {other:?}")),
        _ => STANDARD.decode(encoded).map(Some).map_err(|error| format!("the patch is not base64: {error}")),
    }
}

/// The error of a webhook that said no: its own Status.
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
    let mut error = ApiError::new(code, text(status, "reason").to_owned(), message);
    *error.details = Details::from_json(status.get("details").unwrap_or(&Value::Null));
    error
}
