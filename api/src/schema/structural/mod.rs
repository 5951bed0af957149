//! Structural schemas of custom resources: what a CustomResourceDefinition's `openAPIV3Schema` means, parsed once.
//!
//! [`parse()`] reads a `JSONSchemaProps` tree, judges it by Kubernetes' rules and keeps what is needed to treat objects. On
//! that, [`Structural`] offers, in the order in which a request uses them:
//!
//! 1. [`Structural::prune`]: drops fields that the schema does not know, and says which;
//! 2. [`Structural::apply_defaults`]: fills absent fields; idempotent;
//! 3. [`Structural::validate`] and [`Structural::validate_update`] (an unchanged part that was invalid before passes).
//!
//! [`publish`] makes what OpenAPI v2 and v3 show of a schema. Rules in CEL are read here as text and compiled by
//! [`crate::cel::rules`]. How lists and maps merge is read with [`Structural::property`], [`Structural::items`],
//! [`Structural::values`] and [`Structural::topology`].
//!
//! Bounds: a schema nests at most [`MAX_DEPTH`] levels (so no walk here recurses deeper than that, or than the object,
//! whose nesting the decoder bounds); an object gets at most [`MAX_DEFAULTS`] bytes of defaults; a validation makes at most [`validate::MAX_STEPS`] steps; a regular expression
//! compiles to at most [`pattern::MAX_SIZE`] bytes, all of a schema to [`pattern::MAX_TOGETHER`], and runs in linear time.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Number, Value};

mod check;
mod complete;
mod correlate;
mod defaults;
mod format;
mod lists;
mod parse;
pub mod pattern;
mod prune;
pub mod publish;
pub mod validate;

pub use correlate::OldItems;
pub use defaults::{MAX_DEFAULTS, Overgrown};
pub use format::Format;
pub use parse::parse;

/// Levels of nesting in a schema.
pub const MAX_DEPTH: usize = 64;

/// `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// How server-side apply treats a node, by the schema's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology<'a> {
    /// A struct or map by key; a scalar.
    ByType,
    /// Replaced as a whole (an untyped node included).
    Atomic,
    Set,
    /// A list whose items are known by these properties.
    Map(&'a [String]),
}

/// `additionalProperties`.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    #[default]
    Unset,
    /// `true`: any key, its value unspecified.
    Allowed,
    /// `false`.
    Denied,
    Schema(Box<Structural>),
}

/// An entry of `x-kubernetes-validations`, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: String,
    pub field_path: String,
    /// `oldSelf` is an optional, and the rule also judges what has no old value.
    pub optional_old_self: Option<bool>,
}

/// One node of a schema. Under `allOf`, `anyOf`, `oneOf` and `not` the same type holds value validation only.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are the schema's own, each independent")]
pub struct Structural {
    pub kind: Option<Kind>,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Structural>,
    pub additional: Additional,
    pub items: Option<Box<Structural>>,
    pub preserve_unknown_fields: bool,
    pub int_or_string: bool,
    pub embedded_resource: bool,
    pub list_type: Option<ListType>,
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    pub rules: Vec<Rule>,
    pub limits: Limits,
    /// Absent in most nodes.
    pub junctors: Option<Box<Junctors>>,
}

/// Validation of a single value.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub format: Option<Format>,
    pub maximum: Option<Number>,
    pub exclusive_maximum: bool,
    pub minimum: Option<Number>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<Number>,
    /// In code points, as JSON Schema counts them.
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub enumeration: Vec<Value>,
}

/// A regular expression with its source, which messages quote.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub source: String,
    pub regex: Regex,
}

/// Logical combinations of value validations.
#[derive(Clone, Debug, Default)]
pub struct Junctors {
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Structural>,
}

impl Structural {
    /// The schema of a field, by `properties` or else by `additionalProperties`.
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or_else(|| self.values())
    }

    /// The schema of a list's items.
    pub fn items(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// The schema of a map's values.
    pub fn values(&self) -> Option<&Self> {
        match &self.additional {
            Additional::Schema(schema) => Some(schema),
            Additional::Unset | Additional::Allowed | Additional::Denied => None,
        }
    }

    /// How changes of this node are tracked and merged.
    pub fn topology(&self) -> Topology<'_> {
        match (self.kind, self.list_type) {
            (Some(Kind::Array), Some(ListType::Map)) => Topology::Map(&self.list_map_keys),
            (Some(Kind::Array), Some(ListType::Set)) => Topology::Set,
            (Some(Kind::Array), _) => Topology::Atomic,
            (Some(Kind::Object), _) if self.atomic_map => Topology::Atomic,
            _ => Topology::ByType,
        }
    }

    /// Whether a field of an object is described, or kept although it is not.
    pub fn knows(&self, name: &str) -> bool {
        self.preserve_unknown_fields
            || self.properties.contains_key(name)
            || matches!(self.additional, Additional::Allowed | Additional::Schema(_))
    }
}

/// Fields of an object that are never described by its schema, or only in part.
pub(crate) const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

#[cfg(test)]
mod tests;
