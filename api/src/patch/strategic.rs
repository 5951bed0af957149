//! Strategic merge patch: lists merge by their keys, with `$patch`, `$setElementOrder`, `$retainKeys`, `$deleteFromPrimitiveList`.
use crate::resource::Descriptor;
use crate::status::ApiError;
use serde_json::Value;
/// Applies a patch by the merge facts of the kind's definition.
pub fn apply(_resource: &Descriptor, _object: &Value, _patch: &Value) -> Result<Value, ApiError> {
    todo!()
}
