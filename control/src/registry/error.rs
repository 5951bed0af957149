//! Every failure of the registry becomes an OCI error answer here: a code of the distribution specification, a message,
//! and the HTTP status that goes with it.

use std::io;

use http::header::{CONTENT_TYPE, RANGE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::digest::{Digest, NotADigest};
use crate::auth::Attributes;
use crate::server::body::{self, Body, BoxError, GatherError, Unread};

/// Why a request of the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("authentication required")]
    Unauthenticated,
    #[error("requested access to {repository:?} is denied: {why}")]
    Denied { repository: String, missing: Box<Attributes>, why: String },
    #[error("no such path")]
    NoSuchPath,
    #[error("the method is not supported here")]
    Method,
    #[error("a repository is named NAMESPACE/NAME, in lower-case letters, digits, and single separators: {0:?}")]
    Name(String),
    #[error(
        "namespaces \"{0}\" not found: a repository is NAMESPACE/NAME, and its namespace must exist before its images"
    )]
    NoNamespace(String),
    #[error("unable to push into namespace {0} because it is being terminated")]
    Ending(String),
    #[error("repository name not known to registry: {0}")]
    NameUnknown(String),
    #[error(transparent)]
    Digest(#[from] NotADigest),
    #[error("provided digest did not match uploaded content: {expected} was expected, {actual} was sent")]
    Mismatch { expected: Digest, actual: Digest },
    #[error("blob unknown to registry: {0}")]
    BlobUnknown(Digest),
    #[error("blob upload unknown to registry")]
    UploadUnknown,
    /// `at` is where the next chunk must begin.
    #[error("the chunk does not begin where the last one ended, at {at}")]
    OutOfOrder { at: u64 },
    #[error("the blob is larger than the {limit} bytes that this registry takes")]
    BlobTooLarge { limit: u64 },
    #[error("{limit} uploads of this user are open; finish or cancel one")]
    TooManyUploads { limit: usize },
    #[error("too many uploads are open; try again later")]
    NoRoom,
    #[error("too many requests; try again later")]
    Crowded,
    #[error(
        "the server's disk is almost full: what is left is for the cluster's own state; delete images, or make room"
    )]
    Full,
    #[error("manifest unknown: {0}")]
    ManifestUnknown(String),
    #[error("manifest invalid: {0}")]
    ManifestInvalid(String),
    #[error("manifest references a manifest or blob unknown to registry: {0}")]
    ManifestBlobUnknown(Digest),
    #[error("the manifest is larger than the {limit} bytes that this registry takes")]
    ManifestTooLarge { limit: usize },
    #[error("the range lies outside of the blob's {size} bytes")]
    Range { size: u64 },
    #[error("a parameter is not valid: {0}")]
    Parameter(&'static str),
    #[error("the upload's data stopped")]
    Body(#[source] BoxError),
    #[error("the registry's files cannot be read or written")]
    Io(#[from] io::Error),
    #[error("an answer could not be made")]
    Answer(#[from] http::Error),
    #[error("a task of the registry failed")]
    Task(#[from] tokio::task::JoinError),
}

impl RegistryError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied { .. } | Self::Ending(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Name(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown(_) | Self::NoNamespace(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::Digest(_) | Self::Mismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::OutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::BlobTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::TooManyUploads { .. } | Self::NoRoom | Self::Crowded => {
                (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS")
            }
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestBlobUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Self::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::Parameter(_) => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, "DENIED"),
            Self::Io(_) | Self::Answer(_) | Self::Task(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }

    /// What a program may want to know: the right that is missing.
    fn detail(&self) -> Value {
        let Self::Denied { missing, .. } = self else { return json!({}) };
        let Attributes { verb, group, resource, namespace, name, .. } = &**missing;
        json!({"verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name})
    }

    /// The answer, and a line in the log for what is not the client's fault.
    pub(crate) fn respond(&self) -> Response<Body> {
        let (status, code) = self.code();
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(error = self as &dyn std::error::Error, "the image registry failed");
            match self {
                Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => "the server's disk is full".to_owned(),
                _ => "the registry failed; its log says why".to_owned(),
            }
        } else {
            self.to_string()
        };
        let text = json!({"errors": [{"code": code, "message": message, "detail": self.detail()}]}).to_string();
        let mut response = Response::new(body::full(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Unauthenticated => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"wherry\""));
            }
            Self::OutOfOrder { at } => {
                if let Ok(range) = HeaderValue::try_from(format!("0-{}", at.saturating_sub(1))) {
                    headers.insert(RANGE, range);
                }
            }
            _ => {}
        }
        response
    }
}

impl From<Unread> for RegistryError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Gather(GatherError::TooLarge(limit)) => Self::ManifestTooLarge { limit },
            Unread::Gather(GatherError::Broken(error)) => Self::Body(error),
            Unread::Late => Self::Body(unread.into()),
            Unread::Crowded => Self::Crowded,
        }
    }
}
