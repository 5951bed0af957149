//! What server-side apply needs to know of a kind: which maps and lists are tracked item by item, and by which keys.
//!
//! Built-in kinds say it with their shapes and the table of merge facts, custom ones with the extensions of their
//! structural schema. Where nothing is known it is deduced from the value: a map by its keys, a list as a whole.

use std::sync::Arc;

use serde_json::Value;

use crate::custom;
use crate::resource::{Descriptor, SchemaSource};
use crate::schema::structural::{Kind, Structural, Topology};
use crate::schema::{self, Merge, Shape, Structure, Type, facts};

/// The schema of a kind, held while its objects are compared.
#[derive(Debug)]
pub struct Schema {
    shape: Arc<Shape>,
    custom: Option<Arc<custom::Schema>>,
}

impl Schema {
    pub fn of(resource: &Descriptor) -> Self {
        match &resource.schema {
            SchemaSource::BuiltIn(_) => Self { shape: schema::of(resource), custom: None },
            SchemaSource::Custom(custom) => Self { shape: schema::object_meta(), custom: Some(Arc::clone(custom)) },
        }
    }

    pub(super) fn root(&self) -> Node<'_> {
        match &self.custom {
            None => Node::Struct(&self.shape),
            Some(custom) => Node::CustomRoot { schema: custom.structural(), metadata: &self.shape },
        }
    }
}

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'a> {
    /// A struct of a built-in kind that is tracked by its fields.
    Struct(&'a Shape),
    Typed(&'a Type, Option<&'static Merge>),
    CustomRoot {
        schema: &'a Structural,
        metadata: &'a Shape,
    },
    Custom(&'a Structural),
    Deduced,
}

/// How a value is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As a whole.
    Leaf,
    /// By its keys.
    Map,
    /// By its items: a list map or a set.
    Items,
}

/// The names of a list map's keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'a> {
    BuiltIn(&'static [&'static str]),
    Custom(&'a [String]),
}

impl<'a> Keys<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a str> {
        let (built_in, custom): (&[&str], &[String]) = match self {
            Self::BuiltIn(keys) => (keys, &[]),
            Self::Custom(keys) => (&[], keys),
        };
        built_in.iter().copied().chain(custom.iter().map(String::as_str))
    }
}

impl<'a> Node<'a> {
    /// How this value is tracked. A value that does not fit its type is a leaf.
    pub(super) fn form(self, value: &Value) -> Form {
        match value {
            Value::Object(_) if self.by_key() => Form::Map,
            Value::Array(_) if self.by_item() => Form::Items,
            _ => Form::Leaf,
        }
    }

    fn by_key(self) -> bool {
        match self {
            Self::Struct(_) | Self::CustomRoot { .. } | Self::Deduced => true,
            Self::Typed(kind, merge) => match kind {
                Type::Object(shape) => !atomic(merge) && !facts::is_atomic(shape.definition()),
                Type::Map(_) | Type::Any => !atomic(merge),
                _ => false,
            },
            Self::Custom(schema) => schema.topology() != Topology::Atomic && schema.kind != Some(Kind::Array),
        }
    }

    fn by_item(self) -> bool {
        match self {
            Self::Typed(Type::List(_), Some(merge)) => {
                matches!(merge.structure, Structure::ListMap | Structure::ListSet)
            }
            Self::Custom(schema) => matches!(schema.topology(), Topology::Set | Topology::Map(_)),
            _ => false,
        }
    }

    /// A field's node, and whether the schema names it (a map's key is not named).
    pub(super) fn field(self, name: &str) -> (Self, bool) {
        let typed = |kind: &'a Type, merge| match kind {
            Type::Any => Self::Deduced,
            Type::Object(shape) if !atomic(merge) && !facts::is_atomic(shape.definition()) => Self::Struct(shape),
            kind => Self::Typed(kind, merge),
        };
        match self {
            Self::Struct(shape) => {
                shape.field(name).map_or((Self::Deduced, false), |field| (typed(&field.kind, field.merge), true))
            }
            Self::Typed(Type::Map(values), _) => (typed(values, None), false),
            Self::Typed(..) | Self::Deduced => (Self::Deduced, false),
            Self::CustomRoot { metadata, .. } if name == "metadata" => (Self::Struct(metadata), true),
            Self::CustomRoot { .. } if matches!(name, "apiVersion" | "kind") => (Self::Deduced, true),
            Self::CustomRoot { schema, .. } => Self::Custom(schema).field(name),
            Self::Custom(schema) => match schema.properties.get(name) {
                Some(field) => (Self::Custom(field), true),
                None => (schema.values().map_or(Self::Deduced, Self::Custom), false),
            },
        }
    }

    /// The node of a list's items.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Typed(Type::List(items), _) => match &**items {
                Type::Object(shape) => Self::Struct(shape),
                items => Self::Typed(items, None),
            },
            Self::Custom(schema) => schema.items().map_or(Self::Deduced, Self::Custom),
            _ => Self::Deduced,
        }
    }

    /// The keys of a list map; a set has none.
    pub(super) fn keys(self) -> Option<Keys<'a>> {
        match self {
            Self::Typed(_, Some(merge)) if merge.structure == Structure::ListMap => Some(Keys::BuiltIn(&merge.keys)),
            Self::Custom(schema) => match schema.topology() {
                Topology::Map(keys) => Some(Keys::Custom(keys)),
                _ => None,
            },
            _ => None,
        }
    }

    /// What an item of a list map that lacks this key means.
    pub(super) fn key_default(self, key: &str) -> Option<Value> {
        match self {
            // The only key of a built-in kind with a default: ports.
            Self::Typed(..) => (key == "protocol").then(|| "TCP".into()),
            Self::Custom(schema) => schema.items()?.property(key)?.default.clone(),
            _ => None,
        }
    }

    /// Whether this is a struct that Kubernetes' types always have, so that nobody owns its being there.
    pub(super) fn is_always_there(self) -> bool {
        matches!(self, Self::Struct(_) | Self::CustomRoot { .. })
    }
}

fn atomic(merge: Option<&Merge>) -> bool {
    merge.is_some_and(|merge| merge.structure == Structure::Atomic)
}
