//! Errors as Kubernetes says them: `metav1.Status` with reason, details, causes and the right HTTP code.
//!
//! An `ApiError` is the outside message only. What a log needs beside it travels as the error's source in the module
//! that failed.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::resource::{Descriptor, GroupResource};

/// One cause in `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// A failure that a client reads. Serialised by [`ApiError::to_status`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: u16,
    /// A `metav1.StatusReason`: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, …
    pub reason: Cow<'static, str>,
    pub message: String,
    pub details: Box<Details>,
}

/// `status.details`; empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

impl ApiError {
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: Box::default() }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        name.clone_into(&mut self.details.name);
        self.details.group = resource.group.to_string();
        self.details.kind = resource.resource.to_string();
        self
    }

    /// 404 for an object.
    pub fn not_found(resource: &Descriptor, name: &str) -> Self {
        Self::missing(&resource.group_resource(), name)
    }

    /// The same of a resource whose descriptor is not at hand.
    pub fn missing(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404 for a path that no route has.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn already_exists(resource: &Descriptor, name: &str) -> Self {
        let resource = resource.group_resource();
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists")).about(&resource, name)
    }

    pub fn conflict(resource: &Descriptor, name: &str, why: impl fmt::Display) -> Self {
        let resource = resource.group_resource();
        let what = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", what).about(&resource, name)
    }

    /// 409 for a stale resourceVersion.
    pub fn modified(resource: &Descriptor, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422 with one cause per field.
    pub fn invalid(resource: &Descriptor, name: &str, errors: &ErrorList) -> Self {
        Self::invalid_of(&resource.group, &resource.kind, name, errors)
    }

    /// The same of what has no descriptor (options, a Binding).
    pub fn invalid_of(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let joined = if let [one] = list.as_slice() { one.clone() } else { format!("[{}]", list.join(", ")) };
        let mut error = Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {joined}"));
        name.clone_into(&mut error.details.name);
        group.clone_into(&mut error.details.group);
        kind.clone_into(&mut error.details.kind);
        error.details.causes = errors
            .iter()
            .map(|e| Cause {
                reason: e.kind.reason().to_owned(),
                message: e.message.clone(),
                field: e.path.to_string(),
            })
            .collect();
        error
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 for a write of an object, or for all that has no name.
    pub fn forbidden(resource: &Descriptor, name: &str, why: impl fmt::Display) -> Self {
        Self::withheld(&resource.group_resource(), name, why)
    }

    /// The same of a resource whose descriptor is not at hand.
    pub fn withheld(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let quoted = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        Self::new(403, "Forbidden", format!("{resource}{quoted} is forbidden: {why}")).about(resource, name)
    }

    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// 410: the resourceVersion is older than the kept history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.details.retry_after_seconds = retry_after_seconds;
        error
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// The `metav1.Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        let details = self.details.to_json();
        if let (Value::Object(status), false) = (&mut status, details.is_empty()) {
            status.insert("details".into(), Value::Object(details));
        }
        status
    }
}

impl Details {
    /// The `details` of a Status that another server has sent. What is not as it should be is left out.
    pub fn from_json(details: &Value) -> Self {
        let text = |of: &Value, field: &str| of.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let cause = |cause: &Value| Cause {
            reason: text(cause, "reason"),
            message: text(cause, "message"),
            field: text(cause, "field"),
        };
        let seconds = details.get("retryAfterSeconds").and_then(Value::as_u64);
        Self {
            name: text(details, "name"),
            group: text(details, "group"),
            kind: text(details, "kind"),
            uid: text(details, "uid"),
            causes: details.get("causes").and_then(Value::as_array).into_iter().flatten().map(cause).collect(),
            retry_after_seconds: seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or_default(),
        }
    }

    fn to_json(&self) -> serde_json::Map<String, Value> {
        let mut map = serde_json::Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !value.is_empty() {
                map.insert(key.into(), Value::String(value.clone()));
            }
        }
        if !self.causes.is_empty() {
            let causes =
                self.causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}));
            map.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        map
    }
}
