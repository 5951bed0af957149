use crate::registry::Registry;
use bytes::Bytes;
/// An OpenAPI document, gzip-compressed, with a strong ETag that is a hash of its contents.
#[derive(Clone, Debug)]
pub struct Document {
    pub gzip: Bytes,
    pub etag: String,
}
pub fn openapi_v3(_registry: &Registry, _group: &str, _version: &str) -> Option<Document> {
    todo!()
}
pub fn openapi_v3_index(_registry: &Registry) -> Document {
    todo!()
}
pub fn openapi_v2(_registry: &Registry) -> Document {
    todo!()
}
