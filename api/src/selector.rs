//! Label and field selectors, in their string forms and as `metav1.LabelSelector`.

use serde_json::Value;

use crate::resource::Descriptor;
use crate::status::ApiError;

/// A parsed label selector. The default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),!h`. Error: 400 with the place.
    pub fn parse(_text: &str) -> Result<Self, ApiError> {
        todo!()
    }
    /// From `matchLabels` / `matchExpressions`.
    pub fn from_object(_selector: &Value) -> Result<Self, ApiError> {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Whether labels match; `get` looks a label up.
    pub fn matches<'a>(&self, _get: impl Fn(&str) -> Option<&'a str>) -> bool {
        todo!()
    }
}

/// A parsed field selector (`metadata.name=x,status.phase!=Running`). The default one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {}

impl FieldSelector {
    /// Parses it; a field that the kind does not index is 400 with Kubernetes' `field label not supported: x`.
    pub fn parse(_resource: &Descriptor, _text: &str) -> Result<Self, ApiError> {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Whether fields match; `get` looks a field up by its dotted path, an absent one is `""`.
    pub fn matches<'a>(&self, _get: impl Fn(&str) -> &'a str) -> bool {
        todo!()
    }
    /// The value that `path` must equal, if the selector demands one (`spec.nodeName=n1`).
    pub fn required(&self, _path: &str) -> Option<&str> {
        todo!()
    }
}
