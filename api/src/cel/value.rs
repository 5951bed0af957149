//! Values of expressions. What comes from an object is borrowed from its JSON and looked at when it is used.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::authorizer::Check;
use super::net::Cidr;
use super::semver::Semver;
use super::types::{Decl, ListKind, Object, Type};
use super::url::Url;
use super::{duration, text};
use crate::quantity::Quantity;

mod collections;

pub use self::collections::{Key, List, Map};

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
    Url(Arc<Url>),
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
            Self::Url(url) => url.size(),
            _ => 0,
        }
    }

    /// Bytes of what a text of an object stands for: whoever looks at it gets them anew. A list that was made is shared.
    pub fn decoded(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Optional(Some(value)) => value.decoded(),
            _ => 0,
        }
    }

    /// The same of a value that has just been made, with the items of a list.
    pub fn decoded_anew(&self) -> usize {
        match self {
            Self::List(List::Made(list)) => list.iter().map(Self::decoded).sum(),
            other => other.decoded(),
        }
    }

    pub fn is_nan(&self) -> bool {
        matches!(self, Self::Double(d) if d.is_nan())
    }

    /// A number as the nearest fraction; 0 of what is no number.
    #[expect(clippy::cast_precision_loss, reason = "the comparison of an integer with a fraction is about magnitudes")]
    pub fn as_double(&self) -> f64 {
        match self {
            Self::Int(i) => *i as f64,
            Self::Uint(u) => *u as f64,
            Self::Double(d) => *d,
            _ => 0.0,
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

fn numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Int(a), Val::Uint(b)) => Some(u64::try_from(*a).map_or(Ordering::Less, |a| a.cmp(b))),
        (Val::Uint(_), Val::Int(_)) => numbers(b, a).map(Ordering::reverse),
        (Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_))
        | (Val::Int(_) | Val::Uint(_), Val::Double(_)) => a.as_double().partial_cmp(&b.as_double()),
        _ => None,
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
