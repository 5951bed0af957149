//! The structure of one definition, small enough to keep for the life of the process.
//!
//! Shapes refer to each other directly (some in cycles), are made once per definition and never change.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::facts::Merge;

/// The structure of one definition: what fields it has, their types, and how its lists merge.
/// Shared by decoding (unknown fields), strategic merge, later server-side apply, and OpenAPI.
pub struct Shape {
    definition: Arc<str>,
    /// Sorted by name; set once, right after all shapes of a group of definitions exist.
    fields: OnceLock<Box<[Field]>>,
}

/// One field of a shape.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: Arc<str>,
    pub kind: Type,
    /// How it merges, where the type alone does not say.
    pub merge: Option<&'static Merge>,
}

/// The type of a field, list item or map value.
#[derive(Clone, Debug)]
pub enum Type {
    String,
    /// Base64 of bytes.
    Bytes,
    Int32,
    Int64,
    Number,
    Boolean,
    IntOrString,
    Quantity,
    /// RFC 3339, in whole seconds.
    Time,
    /// RFC 3339, in microseconds.
    MicroTime,
    Object(Arc<Shape>),
    Map(Box<Type>),
    List(Box<Type>),
    /// Kept as it is.
    Any,
}

impl Shape {
    pub(super) fn empty(definition: Arc<str>) -> Self {
        Self { definition, fields: OnceLock::new() }
    }

    /// Gives a new shape its fields; a second call changes nothing.
    pub(super) fn fill(&self, mut fields: Vec<Field>) {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let _ = self.fields.set(fields.into());
    }

    /// The OpenAPI name, `io.k8s.api.apps.v1.Deployment`.
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// The name in Go, without its package: `Deployment`.
    pub fn short_name(&self) -> &str {
        self.definition.rsplit('.').next().unwrap_or(&self.definition)
    }

    /// The name in Go: `v1.Deployment`.
    pub fn go_name(&self) -> &str {
        let mut dots = self.definition.rmatch_indices('.');
        let second = dots.nth(1).map_or(0, |(at, _)| at + 1);
        self.definition.get(second..).unwrap_or(&self.definition)
    }

    /// All fields, in the order of their names.
    pub fn fields(&self) -> &[Field] {
        self.fields.get().map_or(&[], |fields| fields)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        let fields = self.fields();
        fields.binary_search_by(|field| (*field.name).cmp(name)).ok().and_then(|index| fields.get(index))
    }
}

impl fmt::Debug for Shape {
    /// The name only: shapes form cycles.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shape").field(&self.definition).finish()
    }
}

impl fmt::Display for Type {
    /// As Go names the type in an error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("[]uint8"),
            Self::Int32 => f.write_str("int32"),
            Self::Int64 => f.write_str("int64"),
            Self::Number => f.write_str("float64"),
            Self::Boolean => f.write_str("bool"),
            Self::IntOrString => f.write_str("intstr.IntOrString"),
            Self::Quantity => f.write_str("resource.Quantity"),
            Self::Time => f.write_str("v1.Time"),
            Self::MicroTime => f.write_str("v1.MicroTime"),
            Self::Object(shape) => f.write_str(shape.go_name()),
            Self::Map(values) => write!(f, "map[string]{values}"),
            Self::List(items) => write!(f, "[]{items}"),
            Self::Any => f.write_str("runtime.RawExtension"),
        }
    }
}
