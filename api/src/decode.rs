//! From a request's body to one JSON tree: format (JSON, YAML), duplicate and unknown fields, wrong types, each with a
//! message that names the place.

use serde_json::Value;

use crate::resource::Descriptor;
use crate::status::ApiError;

/// The `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// Unknown and duplicate fields become warnings (Kubernetes' default).
    #[default]
    Warn,
    Strict,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
}

/// A decoded object and what the client should be warned of.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Parses a body into a tree without looking at its kind (patches, options, lists). A duplicate key is in `warnings`.
/// Errors: 400 with line and column, or that the body is not UTF-8.
pub fn tree(_body: &[u8], _format: Format) -> Result<Decoded, ApiError> {
    todo!()
}

/// Decodes a body as an object of `resource`: [`tree`], then [`object`].
pub fn body(
    resource: &Descriptor,
    body: &[u8],
    format: Format,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let decoded = tree(body, format)?;
    object(resource, decoded, validation)
}

/// Checks a tree (from a body or the result of a patch) against the kind's schema: apiVersion and kind match (absent
/// ones are filled in), types fit (400 as Kubernetes words it), unknown fields are removed and reported as
/// `validation` says, nulls are dropped.
pub fn object(_resource: &Descriptor, _decoded: Decoded, _validation: FieldValidation) -> Result<Decoded, ApiError> {
    todo!()
}
