//! From a request's body to one JSON tree: format (JSON, YAML, CBOR, protobuf), duplicate and unknown fields, wrong types, each
//! with a message that names the place.
//!
//! What leaves [`object`] has the kind's shape, so that a typed view of it cannot fail: types fit, times, quantities and
//! base64 are good, nulls are gone. A body's depth is bounded (128 levels), so a hostile one cannot exhaust the stack; so
//! are its values, and the objects in its lists, so that neither defaults nor validation are asked for hundreds of
//! thousands of them.

use serde_json::Value;

use crate::resource::Descriptor;
use crate::status::{ApiError, Cause};

mod check;
mod nesting;
mod protobuf;
mod tree;

/// Complaints about one body that are told, as Kubernetes bounds them, and bytes of them after which no more are: each
/// names its place, which a hostile body can make long.
const MAX_COMPLAINTS: usize = 100;
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;

/// What is told of a body's unknown and duplicate fields.
#[derive(Debug, Default)]
struct Complaints {
    list: Vec<String>,
    bytes: usize,
}

impl Complaints {
    fn add(&mut self, text: impl FnOnce() -> String) {
        if self.list.len() < MAX_COMPLAINTS && self.bytes < MAX_COMPLAINT_BYTES {
            let text = text();
            self.bytes += text.len();
            self.list.push(text);
        }
    }
}

/// The `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    /// Unknown and duplicate fields become warnings (Kubernetes' default).
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// The query parameter's value; the empty one is the default.
    pub fn from_query(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Ignore" => Some(Self::Ignore),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Yaml,
    /// `application/cbor`, with or without the tag that says so.
    Cbor,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// A decoded object and what the client should be warned of.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Parses a body into a tree without looking at its kind (patches, options, lists). A duplicate key is in `warnings`; its
/// last value counts. Errors: 400 with line and column, or that the body is not UTF-8; 413 for too many values.
pub fn tree(body: &[u8], format: Format) -> Result<Decoded, ApiError> {
    match format {
        Format::Json => tree::json(utf8(body)?).map_err(refused),
        Format::Yaml => yaml(utf8(body)?),
        Format::Cbor => tree::cbor(body).map_err(refused),
        Format::Protobuf => match protobuf::tree(body) {
            Ok(object) => Ok(Decoded { object, warnings: Vec::new() }),
            Err(error @ protobuf::ProtobufError::Crowded(_)) => Err(crowded(error.to_string())),
            Err(error) => Err(ApiError::bad_request(error.to_string())),
        },
    }
}

fn utf8(body: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(body).map_err(|error| {
        ApiError::bad_request(format!("the body is not valid UTF-8: invalid byte at offset {}", error.valid_up_to()))
    })
}

fn yaml(text: &str) -> Result<Decoded, ApiError> {
    if !nesting::is_sane(text) {
        return Err(too_deep());
    }
    // Each value may have a key.
    if nesting::entries(text) > tree::MAX_VALUES || has_more(text, 2 * tree::MAX_VALUES)? {
        return Err(refused(tree::TreeError::Crowded));
    }
    tree::yaml(text).map_err(refused)
}

/// Whether a YAML text has more values and keys than these.
fn has_more(text: &str, most: usize) -> Result<bool, ApiError> {
    let nodes = nesting::nodes(text, most);
    Ok(nodes.map_err(|error| ApiError::bad_request(format!("error converting YAML to JSON: yaml: {error}")))? > most)
}

fn refused(error: tree::TreeError) -> ApiError {
    match error {
        tree::TreeError::Crowded => crowded(error.to_string()),
        error => ApiError::bad_request(error.to_string()),
    }
}

fn crowded(message: String) -> ApiError {
    ApiError::new(413, "RequestEntityTooLarge", message)
}

/// The keys that a YAML text has twice in one map, with their lines, in Go's words; the first few. For a text that [`tree()`]
/// has read.
pub fn repeated_keys(body: &[u8]) -> Vec<String> {
    std::str::from_utf8(body).map(tree::repeated_keys).unwrap_or_default()
}

/// All documents of a YAML (or JSON) text that are not empty, for manifests. Errors: 400 with line and column in the text.
pub fn documents(text: &str) -> Result<Vec<Decoded>, ApiError> {
    if !nesting::is_sane(text) {
        return Err(too_deep());
    }
    tree::documents(text).map_err(|error| ApiError::bad_request(error.to_string()))
}

fn too_deep() -> ApiError {
    ApiError::bad_request("error converting YAML to JSON: yaml: recursion limit exceeded")
}

/// Decodes a body as an object of `resource`: [`tree()`], then [`object()`].
pub fn body(
    resource: &Descriptor,
    body: &[u8],
    format: Format,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let decoded = tree(body, format)?;
    let checked = check::object(resource, decoded, format == Format::Yaml);
    settle(checked, validation).map_err(|refusal| refusal.into_error(resource))
}

/// Checks a tree (from a body) against the kind's schema: apiVersion and kind match (absent ones are filled in), types fit
/// (400 as Kubernetes words it), unknown fields are removed and reported as `validation` says, nulls are dropped.
pub fn object(resource: &Descriptor, decoded: Decoded, validation: FieldValidation) -> Result<Decoded, ApiError> {
    settle(check::object(resource, decoded, false), validation).map_err(|refusal| refusal.into_error(resource))
}

/// Like [`object`], for the result of a patch: what does not fit is the patch's fault, so it is 422 with the field `patch`.
/// `decoded.warnings` are those of the patch's own body.
pub fn patched(
    resource: &Descriptor,
    decoded: Decoded,
    patch: &Value,
    validation: FieldValidation,
) -> Result<Decoded, ApiError> {
    let refuse = |why: &str| {
        let message = format!("Invalid value: {:?}: {why}", patch.to_string());
        let mut error = ApiError::new(422, "Invalid", format!(" \"\" is invalid: patch: {message}"));
        error.details.causes.push(Cause { reason: "FieldValueInvalid".into(), message, field: "patch".into() });
        error
    };
    settle(check::object(resource, decoded, false), validation).map_err(|refusal| match refusal {
        check::Refusal::Content(why) => refuse(&why),
        other => other.into_error(resource),
    })
}

/// What unknown and duplicate fields come to.
fn settle(checked: Result<Decoded, check::Refusal>, validation: FieldValidation) -> Result<Decoded, check::Refusal> {
    let mut found = checked?;
    match validation {
        FieldValidation::Ignore => found.warnings.clear(),
        FieldValidation::Strict if !found.warnings.is_empty() => {
            let complaints = found.warnings.join(", ");
            return Err(check::Refusal::Content(format!("strict decoding error: {complaints}")));
        }
        FieldValidation::Warn | FieldValidation::Strict => {}
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
