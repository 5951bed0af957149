//! Schemas of built-in kinds: made from `k8s-openapi`'s `schemars` feature on first use, a group at a time; the OpenAPI
//! documents derived from them are kept as compressed bytes, never as expanded values.

use std::sync::Arc;

use bytes::Bytes;

use crate::registry::Registry;

/// The structure of one definition: what fields it has, their types, and how its lists merge.
/// Shared by decoding (unknown fields), strategic merge, later server-side apply, and OpenAPI.
#[derive(Debug)]
pub struct Shape {}

/// The shape of a definition by its OpenAPI name (`io.k8s.api.apps.v1.Deployment`).
pub fn shape(_definition: &str) -> Option<Arc<Shape>> {
    todo!()
}

/// An OpenAPI document, gzip-compressed, with a strong ETag that is a hash of its contents.
#[derive(Clone, Debug)]
pub struct Document {
    pub gzip: Bytes,
    pub etag: String,
}

/// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`: paths, operations (with `fieldValidation` parameters and
/// `x-kubernetes-group-version-kind`) and component schemas with merge keys and list types.
pub fn openapi_v3(_registry: &Registry, _group: &str, _version: &str) -> Option<Document> {
    todo!()
}

/// `/openapi/v2` for all groups.
pub fn openapi_v2(_registry: &Registry) -> Document {
    todo!()
}
