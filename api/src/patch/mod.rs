//! The patch formats that the API accepts. Each is a pure function of the object and the patch.

pub mod json;
pub mod merge;
pub mod strategic;

use serde_json::Value;

use crate::resource::Descriptor;
use crate::status::ApiError;

/// A patch's format, from its content type.
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

/// Applies `patch` to `object`. `Apply` is not handled here.
pub fn apply(kind: PatchType, resource: &Descriptor, object: &Value, patch: &Value) -> Result<Value, ApiError> {
    match kind {
        PatchType::Json => json::apply(object, patch),
        PatchType::Merge => Ok(merge::apply(object, patch)),
        PatchType::Strategic => strategic::apply(resource, object, patch),
        PatchType::Apply => Err(ApiError::unsupported_media_type("server-side apply is not supported yet")),
    }
}
