//! The patch formats that the API accepts. Each is a pure function of the object and the patch.

pub mod apply;
pub mod json;
pub mod merge;
pub mod strategic;

use serde_json::Value;

use crate::resource::Descriptor;
use crate::status::{ApiError, Cause};

/// A patch's format, which its content type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`: server-side apply.
    Apply,
}

impl PatchType {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// Applies `patch` to `object`. Server-side apply needs to know who applies: see [`apply::apply`].
pub fn apply(kind: PatchType, resource: &Descriptor, object: &Value, patch: &Value) -> Result<Value, ApiError> {
    match kind {
        PatchType::Json => json::apply(object, patch),
        PatchType::Merge => Ok(merge::apply(object, patch)),
        PatchType::Strategic => strategic::apply(resource, object, patch),
        PatchType::Apply => Err(ApiError::unsupported_media_type("an apply patch is applied by its own verb")),
    }
}

/// 422 for a good patch that does not fit the object: what went wrong with the part at `field` is the cause, in front of
/// which clients print it.
fn does_not_apply(field: &str, why: String) -> ApiError {
    let message = format!("the server rejected our request due to an error in our request: {field}: {why}");
    let mut error = ApiError::new(422, "Invalid", message);
    let reason = "UnexpectedServerResponse".into();
    error.details.causes.push(Cause { reason, message: why, field: field.to_owned() });
    error
}
