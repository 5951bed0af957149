//! RFC 6902 JSON Patch.
use crate::status::ApiError;
use serde_json::Value;
/// Applies a patch; a failed `test` or a missing path is 422, a malformed patch 400.
pub fn apply(_object: &Value, _patch: &Value) -> Result<Value, ApiError> {
    todo!()
}
