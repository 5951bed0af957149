//! Server-printed tables: `meta.k8s.io/v1` Table.

use jiff::Timestamp;
use serde_json::Value;

use crate::resource::Descriptor;

/// `includeObject` of table options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    #[default]
    Metadata,
    Object,
    None,
}

/// The Table's `columnDefinitions`.
pub fn columns(_resource: &Descriptor) -> Value {
    todo!()
}

/// One row of the Table for one object.
pub fn row(_resource: &Descriptor, _object: &Value, _include: IncludeObject, _now: Timestamp) -> Value {
    todo!()
}
