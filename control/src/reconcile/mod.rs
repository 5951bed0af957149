//! What every controller, the scheduler and the node have in common: shared typed caches that show a process its own
//! writes, a work queue by key, a driver that runs reconcilers, and an event recorder.
//!
//! What must stay true: a reconciler gets a key and reads the state; it never runs twice at once for one key; every task
//! is owned by a driver that stops it; there is one cache per kind and process, whoever reads it.

pub mod driver;
pub mod events;
pub mod kinds;
pub mod metrics;
pub mod queue;
pub mod shared;
pub mod store;

use std::fmt;
use std::sync::Arc;

use kube::{Resource, ResourceExt};

pub use driver::{Controller, Running};
pub use events::EventRecorder;
pub use metrics::Metrics;
pub use queue::Queue;
pub use shared::Shared;
pub use store::{Change, Store};

/// An object's place within its kind. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object that came from the server.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a reconcile must be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {step}")]
    Request {
        step: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the label selector is not valid")]
    Selector(#[source] kube::core::ParseExpressionError),
    #[error("an object cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// The state does not allow to finish yet.
    #[error("{0}")]
    Unfinished(String),
}

/// Names the step in which a request failed.
pub trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Error>;
}

impl<T> Step<T> for Result<T, kube::Error> {
    fn step(self, step: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Request { step, source: Box::new(source) })
    }
}

impl Error {
    /// The server's message, where the server gave one: what an event shows to a person.
    pub fn message(&self) -> String {
        match self {
            Self::Request { source, .. } => message_of(source),
            other => other.to_string(),
        }
    }

    /// Another writer was first; trying again needs no attention.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Request { source, .. } if code_of(source) == Some(409))
    }
}

/// The HTTP code of an API error.
pub fn code_of(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// What the server said, or the whole error.
pub fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether a create was refused because its namespace is going away.
pub fn namespace_is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
}

/// An absent object is as good as a deleted one.
pub fn absent_is_fine<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if code_of(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The reference through which a controller owns the object, if one does.
pub fn controller_of(
    meta: &kube::api::ObjectMeta,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))
}

/// The object's uid, or `""`.
pub fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// An object's resourceVersion as a number, 0 if it has none: versions of one cluster are ordered.
pub fn version<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or_default()
}
