//! Requests whose answers nobody reads: status patches, deletions, events. Bodies go out as bytes and answers are not
//! parsed, because a typed Pod costs more than all the rest of such a request.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

/// Why such a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered, and not with success.
    #[error("the API server answered {code}: {message}")]
    Refused { code: StatusCode, message: String },
    #[error("cannot build the request")]
    Request(#[source] http::Error),
    #[error("cannot reach the API server")]
    Unreachable(#[source] Box<kube::Error>),
}

impl ApiError {
    pub fn code(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Sends `body`; succeeds with the answer's bytes on a 2xx answer.
pub async fn send(client: &Client, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Bytes, ApiError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, kind)
        .header(header::ACCEPT, "application/json")
        .body(Body::from(body))
        .map_err(ApiError::Request)?;
    let unreachable = |error| ApiError::Unreachable(Box::new(error));
    let response = client.send(request).await.map_err(unreachable)?;
    let code = response.status();
    let bytes = response.into_body().collect().await.map_err(unreachable)?.to_bytes();
    if code.is_success() {
        return Ok(bytes);
    }
    let status: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let message = status.get("message").and_then(|m| m.as_str()).unwrap_or_default().to_owned();
    Err(ApiError::Refused { code, message })
}

/// The path of a pod, or of one of its subresources (`/status`).
pub fn pod_path(namespace: &str, name: &str, subresource: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}{subresource}")
}

pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const MERGE: &str = "application/merge-patch+json";
pub const JSON: &str = "application/json";
