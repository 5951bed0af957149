//! The types of expressions: what the checker knows of a value before it is there.
//!
//! A [`Decl`] is a type and the most that a value of it can hold; the estimate of a rule's cost is made of the latter.
//! `dyn` is what nothing is known of; it fits everywhere and is looked at when it is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::schema::{Shape, Type as ShapeType};

/// Bytes that a request may have: no string or list is longer.
pub const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// A type.
#[derive(Clone, Debug)]
pub enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<ListType>),
    /// A map from strings, unless `keys` says otherwise.
    Map(Arc<MapType>),
    Object(Object),
    Optional(Arc<Decl>),
    /// A type as a value.
    Type,
    /// A type of Kubernetes' libraries, by its name (`kubernetes.Quantity`).
    Opaque(&'static str),
    /// Stands for any type in a function's signature; equal names are one type.
    Param(char),
}

/// How a list is compared and joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// By these properties, as they are written in objects.
    Map(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct ListType {
    pub item: Decl,
    pub kind: ListKind,
}

#[derive(Clone, Debug)]
pub struct MapType {
    pub key: Type,
    pub value: Decl,
}

/// An object with known fields.
#[derive(Clone, Debug)]
pub enum Object {
    /// Of a custom resource.
    Fields(Arc<Fields>),
    /// Of a built-in kind; shapes refer to each other.
    Shape(Arc<Shape>),
}

/// The fields of an object by the names that expressions use (see [`super::escape`]).
#[derive(Debug)]
pub struct Fields {
    pub name: String,
    pub fields: BTreeMap<String, Field>,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// As it is written in objects.
    pub name: String,
    pub decl: Decl,
}

/// A type, and the most elements or bytes that a value of it has.
#[derive(Clone, Debug)]
pub struct Decl {
    pub ty: Type,
    /// Bytes of a text, elements of a list or map; 1 of what has no size.
    pub max: u64,
}

impl From<Type> for Decl {
    /// Of unknown size, where the type has one.
    fn from(ty: Type) -> Self {
        let max = match ty {
            Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Null | Type::Duration | Type::Timestamp => 1,
            _ => MAX_REQUEST,
        };
        Self { ty, max }
    }
}

impl Decl {
    pub fn sized(ty: Type, max: u64) -> Self {
        Self { ty, max }
    }
}

impl Type {
    pub fn list(item: impl Into<Decl>) -> Self {
        Self::List(Arc::new(ListType { item: item.into(), kind: ListKind::Atomic }))
    }

    pub fn map(key: Self, value: impl Into<Decl>) -> Self {
        Self::Map(Arc::new(MapType { key, value: value.into() }))
    }

    pub fn optional(value: impl Into<Decl>) -> Self {
        Self::Optional(Arc::new(value.into()))
    }

    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    /// Whether a value of this type can stand where `other` is wanted.
    pub fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Null, _)
            | (_, Self::Dyn | Self::Param(_))
            | (Self::Map(_), Self::Object(_))
            | (Self::Object(_), Self::Map(_)) => true,
            (Self::List(a), Self::List(b)) => a.item.ty.fits(&b.item.ty),
            (Self::Map(a), Self::Map(b)) => a.key.fits(&b.key) && a.value.ty.fits(&b.value.ty),
            (Self::Object(a), Self::Object(b)) => a.name() == b.name(),
            (Self::Optional(a), Self::Optional(b)) => a.ty.fits(&b.ty),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// What both types are: one of them, or `dyn`.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Null | Self::Dyn, other) if !matches!(self, Self::Dyn) => other.clone(),
            (this, Self::Null) => this.clone(),
            (this, other) if this.fits(other) && other.fits(this) && !other.is_dyn() => this.clone(),
            _ => Self::Dyn,
        }
    }
}

impl Object {
    pub fn name(&self) -> &str {
        match self {
            Self::Fields(fields) => &fields.name,
            Self::Shape(shape) => shape.definition(),
        }
    }

    /// A field by the name that expressions use; with its name in objects.
    pub fn field(&self, name: &str) -> Option<Field> {
        match self {
            Self::Fields(fields) => fields.fields.get(name).cloned(),
            Self::Shape(shape) => {
                let written = super::escape::unescape(name)?;
                let field = shape.field(&written)?;
                Some(Field { name: written, decl: of_shape(&field.kind) })
            }
        }
    }
}

/// The type of a built-in kind's field.
fn of_shape(kind: &ShapeType) -> Decl {
    match kind {
        ShapeType::String | ShapeType::Quantity => Type::String.into(),
        ShapeType::Bytes => Type::Bytes.into(),
        ShapeType::Time | ShapeType::MicroTime => Type::Timestamp.into(),
        ShapeType::Int32 | ShapeType::Int64 => Type::Int.into(),
        ShapeType::Number => Type::Double.into(),
        ShapeType::Boolean => Type::Bool.into(),
        ShapeType::IntOrString | ShapeType::Any => Type::Dyn.into(),
        ShapeType::Object(shape) => Type::Object(Object::Shape(Arc::clone(shape))).into(),
        ShapeType::Map(values) => Type::map(Type::String, of_shape(values)).into(),
        ShapeType::List(items) => Type::list(of_shape(items)).into(),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(list) => write!(f, "list({})", list.item.ty),
            Self::Map(map) => write!(f, "map({}, {})", map.key, map.value.ty),
            Self::Object(object) => f.write_str(object.name()),
            Self::Optional(value) => write!(f, "optional_type({})", value.ty),
            Self::Type => f.write_str("type"),
            Self::Opaque(name) => f.write_str(name),
            Self::Param(name) => write!(f, "{name}"),
        }
    }
}
