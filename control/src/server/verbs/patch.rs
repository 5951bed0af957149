//! Patch: JSON, merge and strategic merge patches (an apply is a verb of its own) of an object or of a subresource's view of it.

use http::{Response, StatusCode};
use serde_json::Value;
use wherry_api::decode::{self, Decoded};
use wherry_api::patch::{self, PatchType};
use wherry_api::status::ApiError;

use super::{apply, update};
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::{PATCH, WriteOptions};
use crate::server::subresources::View;
use crate::server::{metadata, negotiate};

/// Operations that a JSON patch may have, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;

pub(crate) async fn patch(call: &mut Call, view: View, body: Body) -> Result<Response<Body>, ServerError> {
    let (kind, format) = negotiate::patch_type(&call.headers, &call.resource)?;
    if kind == PatchType::Apply {
        return apply::apply(call, view, body, format).await;
    }
    let options = WriteOptions::parse(&call.query, PATCH)?;
    let bytes = call.read(body).await?;
    let decoded = call.apart(0, || decode::tree(&bytes, format)).await?;
    call.requested(&decoded.object);
    check_size(kind, &decoded.object)?;
    let (resource, info) = (call.resource.clone(), call.info.clone());
    let mut warnings = Vec::new();
    let stored = update::modify(call, &view, &options, |old| {
        let shown = view.show(old.clone())?;
        let patched = patch::apply(kind, &resource, &shown, &decoded.object)?;
        let mut changed = if view.is_object() {
            let patched = Decoded { object: patched, warnings: decoded.warnings.clone() };
            let checked = decode::patched(&resource, patched, &decoded.object, options.validation)?;
            warnings = checked.warnings;
            checked.object
        } else {
            patched
        };
        metadata::settle_namespace(&resource, &mut changed, &info)?;
        metadata::check_name(&changed, &info.name)?;
        view.write_back(&resource, old, changed)
    })
    .await?;
    call.warnings.extend(warnings);
    update::show(call, &view, StatusCode::OK, stored).await
}

fn check_size(kind: PatchType, patch: &Value) -> Result<(), ApiError> {
    match (kind, patch) {
        (PatchType::Json, Value::Array(operations)) if operations.len() > MAX_OPERATIONS => Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.len()),
        )),
        (PatchType::Json, _) | (_, Value::Object(_)) => Ok(()),
        _ => Err(ApiError::bad_request("the patch must be a JSON object")),
    }
}
