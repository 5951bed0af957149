//! Every failure of the API server becomes an HTTP answer here and nowhere else.
//!
//! What the client reads is an [`ApiError`]; what the log gets is the error itself with its sources.

use std::io;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use wherry_api::status::{ApiError, Cause};

use super::body::{self, Body};
use crate::auth::tokens::TokenError;
use crate::cache::CacheError;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A page's snapshot is gone; `token` continues with what there is now.
    #[error("the list's snapshot is no longer kept")]
    ContinueExpired { token: String },
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the watch cache failed")]
    Cache(#[from] CacheError),
    #[error("a stored object could not be read or written")]
    Object(#[source] serde_json::Error),
    #[error("a namespace's images could not be removed")]
    Images(#[from] RegistryError),
    #[error("the node could not be asked")]
    Node(#[source] body::BoxError),
    #[error("a token could not be issued")]
    Token(#[from] TokenError),
    #[error("the copy of the state could not be read")]
    Backup(#[source] io::Error),
    #[error("an answer could not be made")]
    Answer(#[from] http::Error),
    #[error("a task of the server failed")]
    Task(#[from] tokio::task::JoinError),
}

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can \
     start a new list without the continue parameter, or use the continue token in this response to retrieve the \
     remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
     created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

impl ServerError {
    /// What the client is told.
    pub fn to_api(&self) -> ApiError {
        match self {
            Self::Api(error) => error.clone(),
            Self::ContinueExpired { .. } => ApiError::expired(CONTINUE_EXPIRED),
            Self::Store(error) => store(error),
            Self::Cache(error) => cache(error),
            Self::Object(_) => ApiError::internal("a stored object is not readable"),
            Self::Images(_) => ApiError::internal("the namespace's images could not be removed"),
            Self::Node(source) => ApiError::internal(source),
            Self::Token(source) => ApiError::internal(source),
            Self::Backup(_) => ApiError::internal("the copy of the state could not be read"),
            Self::Answer(_) | Self::Task(_) => ApiError::internal("the answer could not be made"),
        }
    }

    /// The `metav1.Status` that the client reads.
    pub fn to_status(&self) -> Value {
        let mut status = self.to_api().to_status();
        if let (Self::ContinueExpired { token }, Some(Value::Object(meta))) = (self, status.get_mut("metadata")) {
            meta.insert("continue".into(), token.clone().into());
        }
        status
    }

    /// Whether it is the server's fault, and so worth a line in the log. Of a full disk the store has told.
    pub fn is_internal(&self) -> bool {
        self.to_api().code >= 500 && !self.is_unmet() && !self.is_full()
    }

    fn is_full(&self) -> bool {
        let (Self::Store(error) | Self::Cache(CacheError::Store(error))) = self else { return false };
        matches!(error, StoreError::Full | StoreError::InUse)
    }

    /// Whether the client asked for what this server does not do, or does not have yet: anybody may ask so, again and again.
    pub fn is_unmet(&self) -> bool {
        matches!(self.to_api().code, 501 | 504 | 508)
    }
}

fn store(error: &StoreError) -> ApiError {
    match error {
        StoreError::Precondition { .. } => ApiError::new(
            409,
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        StoreError::Compacted { asked, oldest } => {
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        StoreError::Closed => ApiError::unavailable("the server is shutting down"),
        StoreError::Full => ApiError::internal("the server's disk is full; writes succeed again when it has room"),
        StoreError::InUse => ApiError::internal(
            "the server's disk was full, and its store is still read for a backup; writes succeed again when that has ended",
        ),
        StoreError::Locked { .. }
        | StoreError::Newer { .. }
        | StoreError::Damaged { .. }
        | StoreError::Sealed { .. }
        | StoreError::Engine(_) => ApiError::internal("the store failed"),
    }
}

fn cache(error: &CacheError) -> ApiError {
    match error {
        CacheError::Expired { .. } | CacheError::TooSlow => ApiError::expired(error.to_string()),
        CacheError::TooLarge { .. } => {
            let mut answer = ApiError::timeout(error.to_string());
            answer.details.retry_after_seconds = 1;
            answer.details.causes.push(Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            });
            answer
        }
        CacheError::Unknown(_) => ApiError::no_such_path(),
        CacheError::Store(error) => store(error),
    }
}

/// The answer for a failure.
pub fn respond(error: &ServerError) -> Response<Body> {
    let api = error.to_api();
    let mut response = status_response(StatusCode::from_u16(api.code), &error.to_status());
    if api.details.retry_after_seconds > 0 {
        let seconds = HeaderValue::from(api.details.retry_after_seconds);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn status_response<E>(code: Result<StatusCode, E>, status: &Value) -> Response<Body> {
    let mut text = status.to_string();
    text.push('\n');
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_continue_token_is_410_with_a_fresh_one() {
        let status = ServerError::ContinueExpired { token: "abc".into() }.to_status();
        assert_eq!(status.pointer("/metadata/continue"), Some(&Value::from("abc")));
        assert_eq!(status.get("code"), Some(&Value::from(410)));
        assert_eq!(status.get("reason"), Some(&Value::from("Expired")));
    }

    #[test]
    fn a_revision_of_the_future_says_when_to_retry() {
        let answer = respond(&CacheError::TooLarge { asked: 9, current: 1 }.into());
        assert_eq!(answer.status(), 504);
        assert_eq!(answer.headers().get("retry-after").map(HeaderValue::as_bytes), Some(&b"1"[..]));
    }

    #[test]
    fn what_the_engine_says_stays_in_the_log() {
        let error = ServerError::from(StoreError::Engine("disk /secret is full".into()));
        assert!(!error.to_status().to_string().contains("secret"));
    }

    #[test]
    fn a_failure_is_logged_as_what_failed() {
        let told = |error: ServerError| (error.to_string(), error.to_api().code, error.is_internal());
        assert_eq!(told(TokenError::Malformed.into()), ("a token could not be issued".to_owned(), 500, true));
        let gone = ServerError::Backup(io::ErrorKind::NotFound.into());
        assert_eq!(told(gone), ("the copy of the state could not be read".to_owned(), 500, true));
    }

    #[test]
    fn a_full_disk_is_told_to_the_client_and_not_once_more_in_the_log() {
        let error = ServerError::from(StoreError::Full);
        assert_eq!((error.to_api().code, error.is_internal()), (500, false));
        assert!(error.to_status().to_string().contains("the server's disk is full"));
    }

    #[test]
    fn what_is_not_there_is_not_the_servers_fault() {
        let of = |code| ServerError::from(ApiError::new(code, "x", "y"));
        assert!([500, 502, 503].into_iter().all(|code| of(code).is_internal() && !of(code).is_unmet()));
        assert!([501, 504].into_iter().all(|code| !of(code).is_internal() && of(code).is_unmet()));
        assert!(!of(404).is_internal() && !of(404).is_unmet());
    }
}
