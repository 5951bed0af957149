//! Values of expressions. What comes from an object is borrowed from its JSON and looked at when it is used.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value as Json};

use super::authorizer::Check;
use super::net::Cidr;
use super::semver::Semver;
use super::types::{Decl, ListKind, Object, Type};
use super::{duration, text};
use crate::quantity::Quantity;

/// A string, of an object or of its own.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A list, of an object or made by an expression.
#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json], Type, ListKind),
    Made(Arc<[Val<'a>]>),
}

/// A map or object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// The type says how its parts are read, and which fields are to be seen.
    Json(&'a JsonMap<String, Json>, Type),
    Made(Arc<BTreeMap<Key, Val<'a>>>),
}

/// A key of a map that an expression made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

/// A value.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Val<'a>>>),
    Type(Arc<str>),
    Quantity(Quantity),
    Url(Arc<url::Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Semver(Arc<Semver>),
    /// A named format of strings.
    Format(&'static str),
    Authorizer(Arc<Check>),
}

impl From<bool> for Val<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Val<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<String> for Val<'_> {
    fn from(value: String) -> Self {
        Self::String(Text::Shared(value.into()))
    }
}

impl<'a> From<Vec<Val<'a>>> for Val<'a> {
    fn from(items: Vec<Val<'a>>) -> Self {
        Self::List(List::Made(items.into()))
    }
}

/// Bytes that an element of a list that an expression makes takes, and an entry of a map beside its key's text.
pub const ELEMENT: usize = size_of::<Val<'_>>();
pub const ENTRY: usize = ELEMENT + size_of::<Key>();
/// Bytes of what becomes JSON: more than an object may have.
const MAX_JSON: usize = 16 << 20;

/// A count as a value.
pub fn count<'a>(value: usize) -> Val<'a> {
    Val::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

impl<'a> Val<'a> {
    pub fn str(value: &'a str) -> Self {
        Self::String(Text::Borrowed(value))
    }

    pub fn optional(value: Option<Self>) -> Self {
        Self::Optional(value.map(Arc::new))
    }

    /// A value of an object, read by its type.
    pub fn of(json: &'a Json, ty: &Type) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) if matches!(ty, Type::Double) => Self::Double(n.as_f64().unwrap_or_default()),
            Json::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Self::Int(i),
                // A whole number of a typed field is an integer, however it is written.
                (None, Some(f)) if matches!(ty, Type::Int) => Self::Int(float_to_int(f)),
                (None, f) => Self::Double(f.unwrap_or_default()),
            },
            Json::String(s) => Self::of_text(s, ty),
            Json::Array(list) => {
                let (item, kind) = match ty {
                    Type::List(list) => (list.item.ty.clone(), list.kind.clone()),
                    _ => (Type::Dyn, ListKind::Atomic),
                };
                Self::List(List::Json(list, item, kind))
            }
            Json::Object(map) => Self::Map(Map::Json(map, ty.clone())),
        }
    }

    fn of_text(s: &'a str, ty: &Type) -> Self {
        let typed = match ty {
            Type::Bytes => STANDARD.decode(s).ok().map(|bytes| Self::Bytes(bytes.into())),
            Type::Timestamp => timestamp(s).map(Self::Timestamp),
            Type::Duration => duration::parse_lenient(s).map(Self::Duration),
            _ => None,
        };
        typed.unwrap_or(Self::str(s))
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(Map::Json(_, Type::Object(object))) => object_name(object),
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(check) => check.type_name(),
        }
    }

    /// Elements, characters or bytes; 1 for what has no size.
    pub fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            _ => 1,
        };
        u64::try_from(size).unwrap_or(u64::MAX)
    }

    /// Whether two values are the same; numbers of different types by what they count.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => **a == **b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::List(a), Self::List(b)) => a.same(b),
            (Self::Map(a), Self::Map(b)) => a.same(b),
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.same(b),
                _ => false,
            },
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a.cmp(b).is_eq(),
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.cmp(b).is_eq(),
            (Self::Format(a), Self::Format(b)) => a == b,
            _ => numbers(self, other).is_some_and(Ordering::is_eq),
        }
    }

    /// The order of two values of one type, or of two numbers.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some((**a).cmp(&**b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ => numbers(self, other),
        }
    }

    /// Bytes that the value takes which a function has just made, without what it shares.
    pub fn made(&self) -> usize {
        match self {
            Self::String(Text::Shared(text)) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(List::Made(list)) => list.len().saturating_mul(ELEMENT),
            Self::Map(Map::Made(map)) => map.len().saturating_mul(ENTRY),
            Self::Optional(Some(_)) => ELEMENT,
            Self::Url(url) => url.as_str().len(),
            _ => 0,
        }
    }

    /// The value as JSON; `None` for what JSON cannot say, or what is larger than any object: parts that a value shares are
    /// written each time.
    pub fn to_json(&self) -> Option<Json> {
        self.json(&mut MAX_JSON.clone())
    }

    fn json(&self, left: &mut usize) -> Option<Json> {
        let text = if let Self::String(text) = self { text.len() } else { 0 };
        *left = left.checked_sub(ELEMENT.saturating_add(text))?;
        Some(match self {
            Self::Null => Json::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(i) => (*i).into(),
            Self::Uint(u) => (*u).into(),
            Self::Double(d) => serde_json::Number::from_f64(*d).map(Json::Number)?,
            Self::String(s) => Json::from(&**s),
            Self::Bytes(b) => STANDARD.encode(b).into(),
            Self::Timestamp(t) => t.to_string().into(),
            Self::Duration(d) => duration::format(*d).into(),
            Self::List(List::Json(list, ..)) => Json::Array(list.to_vec()),
            Self::List(list) => list.iter().map(|item| item.json(left)).collect::<Option<_>>()?,
            Self::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
            Self::Map(Map::Made(map)) => {
                let pairs = map.iter().map(|(key, value)| Some((key.text(), value.json(left)?)));
                Json::Object(pairs.collect::<Option<_>>()?)
            }
            Self::Optional(value) => value.as_ref().map_or(Some(Json::Null), |v| v.json(left))?,
            Self::Quantity(q) => q.to_string().into(),
            Self::Ip(ip) => ip.to_string().into(),
            Self::Cidr(cidr) => cidr.to_string().into(),
            Self::Url(url) => url.to_string().into(),
            Self::Type(_) | Self::Semver(_) | Self::Format(_) | Self::Authorizer(_) => return None,
        })
    }
}

fn object_name(object: &Object) -> &str {
    match object {
        Object::Fields(_) => "object",
        Object::Shape(shape) => shape.definition(),
    }
}

/// A time of RFC 3339.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    if text.len() == 10 {
        let date: jiff::civil::Date = text.parse().ok()?;
        return date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp());
    }
    text.parse().ok()
}

#[expect(clippy::cast_possible_truncation, reason = "what does not fit becomes the nearest integer")]
fn float_to_int(value: f64) -> i64 {
    value as i64
}

#[expect(clippy::cast_precision_loss, reason = "the comparison of an integer with a fraction is about magnitudes")]
fn numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Int(a), Val::Uint(b)) => Some(u64::try_from(*a).map_or(Ordering::Less, |a| a.cmp(b))),
        (Val::Int(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
        (Val::Uint(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
        (Val::Uint(_), Val::Int(_)) | (Val::Double(_), Val::Int(_) | Val::Uint(_)) => {
            numbers(b, a).map(Ordering::reverse)
        }
        _ => None,
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(list, ..) => list.len(),
            Self::Made(list) => list.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Val<'a>> {
        match self {
            Self::Json(list, item, _) => list.get(index).map(|json| Val::of(json, item)),
            Self::Made(list) => list.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub fn kind(&self) -> &ListKind {
        match self {
            Self::Json(_, _, kind) => kind,
            Self::Made(_) => &ListKind::Atomic,
        }
    }

    /// Sets and list maps are the same in any order.
    fn same(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        if *self.kind() == ListKind::Atomic || *other.kind() == ListKind::Atomic {
            return self.iter().zip(other.iter()).all(|(a, b)| a.same(&b));
        }
        self.iter().all(|a| other.iter().any(|b| a.same(&b)))
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Made(map) => map.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A value by its key.
    pub fn get(&self, key: &Val<'_>) -> Option<Val<'a>> {
        match self {
            Self::Json(map, ty) => match (key, ty) {
                (Val::String(key), Type::Object(object)) => {
                    let field = object.field(key)?;
                    map.get(&field.name).map(|json| Val::of(json, &field.decl.ty))
                }
                (Val::String(key), Type::Map(of)) => map.get(&**key).map(|json| Val::of(json, &of.value.ty)),
                (Val::String(key), _) => map.get(&**key).map(|json| Val::of(json, &Type::Dyn)),
                _ => None,
            },
            Self::Made(map) => {
                let key = Key::of(key)?;
                map.get(&key).or_else(|| map.get(&key.other_sign()?)).cloned()
            }
        }
    }

    pub fn keys(&self) -> Vec<Val<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|key| Val::str(key)).collect(),
            Self::Made(map) => map.keys().map(Key::val).collect(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        if let (Self::Json(a, Type::Dyn), Self::Json(b, Type::Dyn)) = (self, other)
            && std::ptr::eq(*a, *b)
        {
            return true;
        }
        self.len() == other.len() && self.raw().all(|(key, a)| other.raw_get(&key).is_some_and(|b| a.same(&b)))
    }

    /// All entries, by the keys of the object.
    pub fn raw(&self) -> Box<dyn Iterator<Item = (Key, Val<'a>)> + '_> {
        match self {
            Self::Json(map, ty) => Box::new(
                map.iter().map(move |(key, json)| (Key::String(key.as_str().into()), Val::of(json, &below(ty)))),
            ),
            Self::Made(map) => Box::new(map.iter().map(|(key, value)| (key.clone(), value.clone()))),
        }
    }

    fn raw_get(&self, key: &Key) -> Option<Val<'a>> {
        match (self, key) {
            (Self::Json(map, ty), Key::String(key)) => map.get(&**key).map(|json| Val::of(json, &below(ty))),
            (Self::Json(..), _) => None,
            (Self::Made(map), key) => map.get(key).cloned(),
        }
    }
}

fn below(ty: &Type) -> Type {
    match ty {
        Type::Map(of) => of.value.ty.clone(),
        _ => Type::Dyn,
    }
}

impl Key {
    pub fn of(value: &Val<'_>) -> Option<Self> {
        Some(match value {
            Val::Bool(b) => Self::Bool(*b),
            Val::Int(i) => Self::Int(*i),
            Val::Uint(u) => Self::Uint(*u),
            Val::String(s) => Self::String((&**s).into()),
            Val::Double(d) if d.fract() == 0.0 && d.abs() < 9e15 => Self::Int(float_to_int(*d)),
            _ => return None,
        })
    }

    /// Bytes of its text.
    pub fn length(&self) -> usize {
        if let Self::String(text) = self { text.len() } else { 0 }
    }

    fn other_sign(&self) -> Option<Self> {
        match self {
            Self::Int(i) => u64::try_from(*i).ok().map(Self::Uint),
            Self::Uint(u) => i64::try_from(*u).ok().map(Self::Int),
            _ => None,
        }
    }

    pub fn val<'a>(&self) -> Val<'a> {
        match self {
            Self::Bool(b) => Val::Bool(*b),
            Self::Int(i) => Val::Int(*i),
            Self::Uint(u) => Val::Uint(*u),
            Self::String(s) => Val::String(Text::Shared(Arc::clone(s))),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Int(i) => i.to_string(),
            Self::Uint(u) => u.to_string(),
            Self::String(s) => s.to_string(),
        }
    }
}

/// A declared variable's value.
pub fn typed<'a>(json: &'a Json, decl: &Decl) -> Val<'a> {
    Val::of(json, &decl.ty)
}

/// A number as a string.
pub fn number_text(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Int(i) => i.to_string(),
        Val::Uint(u) => u.to_string(),
        Val::Double(d) => text::double(*d),
        _ => return None,
    })
}
