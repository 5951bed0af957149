//! A tree against a kind's shape, in place: what is unknown is removed and reported, what does not fit is refused in the
//! words of Go's JSON decoder, which clients and their tests know.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Complaints, Decoded};
use crate::field::{ErrorList, Path};
use crate::object::{format_micro_time, format_time, is_time, parse_micro_time, parse_time};
use crate::quantity::Quantity;
use crate::resource::{Descriptor, SchemaSource};
use crate::schema::{self, Shape, Type};
use crate::status::ApiError;

/// Why a tree is not an object of a kind.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another group or version than the path's.
    Version { given: String },
    /// Another kind than the path's.
    Kind { given: String },
    /// No object at all.
    Shapeless(&'static str),
    /// A field does not fit.
    Content(String),
    /// More objects in lists than any object has that means something.
    Crowded { path: String, items: usize },
}

/// Objects in the lists of one object, all together. Lists of scalars are bounded by the values of a body.
const MAX_ITEMS: usize = 10_000;

impl Refusal {
    pub(super) fn into_error(self, resource: &Descriptor) -> ApiError {
        let (kind, version) = (&resource.kind, &resource.version);
        ApiError::bad_request(match self {
            Self::Version { given } => format!(
                "the API version in the data ({given}) does not match the expected API version ({})",
                resource.api_version()
            ),
            Self::Kind { given } => format!(
                "{given} in version {version:?} cannot be handled as a {kind}: the kind in the data ({given}) does not match the expected kind ({kind})"
            ),
            Self::Shapeless(what) => format!(
                "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: cannot unmarshal {what} into an object"
            ),
            Self::Content(why) => format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"),
            Self::Crowded { path, items } => {
                let mut errors = ErrorList::default();
                errors.too_many(&Path::new(&path), items, MAX_ITEMS);
                return ApiError::invalid(resource, "", &errors);
            }
        })
    }
}

/// Checks type and fields. `octal`: a text of octal digits is good for an integer, as YAML 1.1 has it (`0644`).
pub(super) fn object(resource: &Descriptor, mut decoded: Decoded, octal: bool) -> Result<Decoded, Refusal> {
    let Value::Object(map) = &mut decoded.object else {
        return Err(Refusal::Shapeless(word(&decoded.object)));
    };
    check_type(resource, map)?;
    let mut checker = Checker { unknown: Complaints::default(), octal, items: 0, crowded: None };
    let checked = match &resource.schema {
        SchemaSource::BuiltIn(_) => checker.fields(map, &schema::of(resource), &Place::Root),
        SchemaSource::Custom(_) => checker.custom_metadata(map),
    };
    if let Some((path, items)) = checker.crowded {
        return Err(Refusal::Crowded { path, items });
    }
    checked.map_err(Refusal::Content)?;
    if let SchemaSource::Custom(schema) = &resource.schema {
        for path in schema.prune(&mut decoded.object) {
            checker.unknown.add(|| format!("unknown field {path:?}"));
        }
    }
    let Value::Object(map) = &mut decoded.object else {
        return Err(Refusal::Shapeless(word(&decoded.object)));
    };
    map.insert("apiVersion".into(), resource.api_version().into());
    map.insert("kind".into(), resource.kind.as_ref().into());
    let mut warnings = checker.unknown.list;
    warnings.append(&mut decoded.warnings);
    Ok(Decoded { object: decoded.object, warnings })
}

fn check_type(resource: &Descriptor, map: &Map<String, Value>) -> Result<(), Refusal> {
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !version.is_empty() && version != resource.api_version() && !resource.also_in.contains(&version) {
        return Err(Refusal::Version { given: version.to_owned() });
    }
    if !kind.is_empty() && kind != resource.kind {
        return Err(Refusal::Kind { given: kind.to_owned() });
    }
    Ok(())
}

/// Where the checker is; becomes text only for a complaint.
enum Place<'a> {
    Root,
    Field { parent: &'a Place<'a>, name: &'a str, owner: &'a Shape },
    Index { parent: &'a Place<'a>, index: usize },
    Key { parent: &'a Place<'a>, key: &'a str },
}

impl fmt::Display for Place<'_> {
    /// As strict decoding names a place: `spec.containers[0].image`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index { parent, index } => write!(f, "{parent}[{index}]"),
            Self::Field { parent, name: part, .. } | Self::Key { parent, key: part } => {
                let dot = if matches!(parent, Place::Root) { "" } else { "." };
                write!(f, "{parent}{dot}{part}")
            }
        }
    }
}

impl Place<'_> {
    /// Struct and path as Go's decoder names a place: `Container.spec.containers.image`.
    fn go(&self) -> String {
        let mut names = Vec::new();
        let mut owner = None;
        let mut place = self;
        loop {
            match place {
                Self::Root => break,
                Self::Index { parent, .. } | Self::Key { parent, .. } => place = parent,
                Self::Field { parent, name, owner: shape } => {
                    owner = owner.or(Some(shape.short_name()));
                    names.push(*name);
                    place = parent;
                }
            }
        }
        names.push(owner.unwrap_or_default());
        names.reverse();
        names.join(".")
    }
}

/// JSON's word for a value's type, as Go's decoder says it.
fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

struct Checker {
    unknown: Complaints,
    octal: bool,
    /// Objects in lists so far.
    items: usize,
    /// The list that was too much, and with how many items.
    crowded: Option<(String, usize)>,
}

impl Checker {
    /// Of a custom resource only the metadata have a shape that is known here.
    fn custom_metadata(&mut self, map: &mut Map<String, Value>) -> Result<(), String> {
        let shape = schema::object_meta();
        let place = Place::Field { parent: &Place::Root, name: "metadata", owner: &shape };
        match map.get_mut("metadata") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Object(meta)) => self.fields(meta, &shape, &place),
            Some(other) => Err(mismatch(word(other), &Type::Object(Arc::clone(&shape)), &place)),
        }
    }

    fn fields(&mut self, map: &mut Map<String, Value>, shape: &Shape, place: &Place<'_>) -> Result<(), String> {
        map.retain(|name, value| {
            if shape.field(name).is_none() {
                let here = Place::Key { parent: place, key: name };
                self.unknown.add(|| format!("unknown field \"{here}\""));
                return false;
            }
            !value.is_null()
        });
        for (name, value) in map.iter_mut() {
            if let Some(field) = shape.field(name) {
                self.value(value, &field.kind, &Place::Field { parent: place, name, owner: shape })?;
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &mut Value, kind: &Type, place: &Place<'_>) -> Result<(), String> {
        if value.is_null() {
            *value = zero(kind);
            return Ok(());
        }
        match (kind, &mut *value) {
            (Type::Object(shape), Value::Object(map)) => self.fields(map, shape, place),
            (Type::Map(values), Value::Object(map)) => {
                map.iter_mut().try_for_each(|(key, item)| self.value(item, values, &Place::Key { parent: place, key }))
            }
            (Type::List(items), Value::Array(list)) => {
                self.count(list, items, place)?;
                list.iter_mut()
                    .enumerate()
                    .try_for_each(|(index, item)| self.value(item, items, &Place::Index { parent: place, index }))
            }
            (Type::Quantity, _) => quantity(value),
            (Type::IntOrString, _) => int_or_string(value),
            (Type::Time, _) => time(value, false),
            (Type::MicroTime, _) => time(value, true),
            (Type::Bytes, Value::String(text)) => bytes(text),
            (Type::Int32 | Type::Int64, _) => self.integer(value, kind, place),
            (Type::Any, _)
            | (Type::String, Value::String(_))
            | (Type::Boolean, Value::Bool(_))
            | (Type::Number, Value::Number(_)) => Ok(()),
            _ => Err(mismatch(word(value), kind, place)),
        }
    }

    /// Counts the objects of a list.
    fn count(&mut self, list: &[Value], items: &Type, place: &Place<'_>) -> Result<(), String> {
        if matches!(items, Type::Object(_) | Type::Map(_)) {
            self.items += list.len();
            if self.items > MAX_ITEMS {
                self.crowded = Some((place.to_string(), list.len()));
                return Err(String::new());
            }
        }
        Ok(())
    }

    fn integer(&self, value: &mut Value, kind: &Type, place: &Place<'_>) -> Result<(), String> {
        let fits = |n: i64| matches!(kind, Type::Int64) || i32::try_from(n).is_ok();
        match &*value {
            Value::Number(number) => match number.as_i64() {
                Some(n) if fits(n) => Ok(()),
                _ => Err(mismatch(&format!("number {number}"), kind, place)),
            },
            Value::String(text) if self.octal => match octal(text) {
                Some(n) if fits(n) => {
                    *value = n.into();
                    Ok(())
                }
                _ => Err(mismatch("string", kind, place)),
            },
            other => Err(mismatch(word(other), kind, place)),
        }
    }
}

fn mismatch(given: &str, kind: &Type, place: &Place<'_>) -> String {
    format!("json: cannot unmarshal {given} into Go struct field {} of type {kind}", place.go())
}

/// `0644` or `0o644`.
fn octal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('0')?;
    let digits = digits.strip_prefix('o').unwrap_or(digits);
    i64::from_str_radix(digits, 8).ok()
}

/// What null means inside a list or map: the type's zero.
fn zero(kind: &Type) -> Value {
    match kind {
        Type::String | Type::Bytes => "".into(),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::Boolean => false.into(),
        Type::Quantity => "0".into(),
        Type::Object(_) | Type::Map(_) => Value::Object(Map::new()),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Time | Type::MicroTime | Type::Any => Value::Null,
    }
}

/// A quantity becomes its canonical form, as Kubernetes stores it.
fn quantity(value: &mut Value) -> Result<(), String> {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    let quantity: Quantity = text.parse()?;
    *value = quantity.to_string().into();
    Ok(())
}

fn int_or_string(value: &Value) -> Result<(), String> {
    let refuse = |given: &str| Err(format!("json: cannot unmarshal {given} into Go value of type int32"));
    match value {
        Value::String(_) => Ok(()),
        Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        Value::Number(n) => refuse(&format!("number {n}")),
        other => refuse(word(other)),
    }
}

/// A time becomes UTC with whole seconds, or `micro`seconds, as Kubernetes stores it.
fn time(value: &mut Value, micro: bool) -> Result<(), String> {
    let Value::String(text) = &*value else {
        return Err(format!("json: cannot unmarshal {} into Go value of type string", word(value)));
    };
    let read = if micro { parse_micro_time(text).map(format_micro_time) } else { parse_time(text).map(format_time) };
    *value = read.ok_or_else(|| not_a_time(text, micro))?.into();
    Ok(())
}

fn not_a_time(text: &str, micro: bool) -> String {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let why = if !is_time(text) {
        format!("cannot parse {text:?} as \"2006\"")
    } else if micro && parse_time(text).is_some() {
        format!("cannot parse {:?} as \".000000\"", text.get(19..).unwrap_or_default())
    } else {
        "out of range (from 0000-01-01T00:00:00Z to 9999-12-30T22:00:00Z)".to_owned()
    };
    format!("parsing time {text:?} as {layout:?}: {why}")
}

fn bytes(text: &str) -> Result<(), String> {
    // Go's decoder skips line breaks.
    let joined: String;
    let text = if text.contains(['\n', '\r']) {
        joined = text.replace(['\n', '\r'], "");
        &joined
    } else {
        text
    };
    match STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!("illegal base64 data at input byte {}", text.len() / 4 * 4)),
    }
}
