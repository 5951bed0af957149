//! Kubernetes' protobuf form of an object to a tree, because that is what Go clients send for built-in kinds: `kubectl
//! create namespace`, `kubectl create deployment`, every typed clientset.
//!
//! The field numbers are one table of facts, `protobuf.tsv`. What is not in it is skipped, as protobuf has it. Go's
//! encoder writes the zero of every field that is not a pointer; those are dropped, as its JSON encoder does. Bodies are
//! hostile: every length is checked against what is there, and no message of the table contains itself, so the depth is
//! bounded by the table.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::tree::MAX_VALUES;

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";
const TABLE: &str = include_str!("protobuf.tsv");

/// Why a body is not a tree.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Prefix,
    #[error("proto: unexpected end of the message")]
    Short,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    #[error("proto: wrong wireType for field {0}")]
    WrongType(String),
    #[error("proto: field {0} contains invalid UTF-8")]
    Utf8(String),
    #[error("proto: field {0} is not well formed")]
    Form(String),
    #[error("no kind {kind:?} is known for version {version:?} in protobuf: send JSON")]
    Kind { kind: String, version: String },
    #[error("unsupported encoding {0:?} of a protobuf message")]
    Encoding(String),
    #[error("Request entity too large: {0} has more than {MAX_VALUES} items")]
    Crowded(&'static str),
}

type Message = BTreeMap<u64, Field>;

#[derive(Clone, Copy, Debug)]
struct Field {
    name: &'static str,
    /// A scalar's name or that of a message.
    kind: &'static str,
    form: Form,
    /// Zero and absent differ.
    pointer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    One,
    List,
    Map,
    /// A map of lists of texts.
    MapOfLists,
    /// The fields of the message are the parent's.
    Inline,
}

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Message> = HashMap::new();
    let mut open = "";
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("= ") {
            open = name;
            all.entry(open).or_default();
            continue;
        }
        let mut columns = line.split('\t');
        let (number, name, kind) = (columns.next(), columns.next(), columns.next());
        let form = columns.next().unwrap_or_default();
        if let (Some(Ok(number)), Some(name), Some(kind)) = (number.map(str::parse), name, kind) {
            let pointer = form.contains('?');
            let form = match form {
                "*" => Form::List,
                "{" => Form::Map,
                "{*" => Form::MapOfLists,
                "<" | "<?" => Form::Inline,
                _ => Form::One,
            };
            all.entry(open).or_default().insert(number, Field { name, kind, form, pointer });
        }
    }
    all
});

/// Decodes a body: the prefix, the envelope (`runtime.Unknown`), the object.
pub(super) fn tree(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    let (mut kind, mut version, mut raw) = (String::new(), String::new(), &[][..]);
    let mut wire = Wire(envelope);
    while let Some((number, token)) = wire.next()? {
        match (number, token) {
            (1, Token::Bytes(meta)) => (version, kind) = type_meta(meta)?,
            (2, Token::Bytes(bytes)) => raw = bytes,
            (3, Token::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(ProtobufError::Encoding(text(encoding, "contentEncoding")?));
            }
            _ => {}
        }
    }
    let Some(shape) = root(&version, &kind) else {
        return Err(ProtobufError::Kind { kind, version });
    };
    let mut object = Map::new();
    message(shape, raw, &mut object)?;
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), ProtobufError> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut wire = Wire(bytes);
    while let Some((number, token)) = wire.next()? {
        match (number, token) {
            (1, Token::Bytes(bytes)) => version = text(bytes, "apiVersion")?,
            (2, Token::Bytes(bytes)) => kind = text(bytes, "kind")?,
            _ => {}
        }
    }
    Ok((version, kind))
}

/// The message of a kind: `apps/v1` Deployment is `apps.v1.Deployment`, `v1` Pod is `core.v1.Pod`.
fn root(version: &str, kind: &str) -> Option<&'static Message> {
    if kind == "DeleteOptions" {
        return MESSAGES.get("meta.v1.DeleteOptions");
    }
    let (group, version) = version.split_once('/').unwrap_or(("core", version));
    let group = group.split('.').next().unwrap_or_default();
    MESSAGES.get(format!("{group}.{version}.{kind}").as_str())
}

/// Reads the fields of a message into a map.
fn message(shape: &Message, bytes: &[u8], into: &mut Map<String, Value>) -> Result<(), ProtobufError> {
    let mut wire = Wire(bytes);
    while let Some((number, token)) = wire.next()? {
        if let Some(field) = shape.get(&number) {
            read(field, token, into)?;
        }
    }
    Ok(())
}

fn read(field: &Field, token: Token<'_>, into: &mut Map<String, Value>) -> Result<(), ProtobufError> {
    match field.form {
        Form::One => {
            let value = value(field, token)?;
            if field.pointer || !is_zero(&value) {
                into.insert(field.name.into(), value);
            } else {
                into.remove(field.name);
            }
        }
        Form::List => {
            let slot = into.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = slot {
                if items.len() >= MAX_VALUES {
                    return Err(ProtobufError::Crowded(field.name));
                }
                match token {
                    Token::Bytes(packed) if matches!(field.kind, "int" | "bool") => {
                        let mut wire = Wire(packed);
                        while !wire.0.is_empty() && items.len() < MAX_VALUES {
                            items.push(value(field, Token::Varint(wire.varint()?))?);
                        }
                    }
                    token => items.push(value(field, token)?),
                }
            }
        }
        Form::Map | Form::MapOfLists => {
            let (key, value) = entry(field, bytes_of(field, token)?)?;
            if let Value::Object(map) = into.entry(field.name).or_insert_with(|| Value::Object(Map::new())) {
                map.insert(key, value);
            }
        }
        Form::Inline => {
            if let Some(shape) = MESSAGES.get(field.kind) {
                message(shape, bytes_of(field, token)?, into)?;
            }
        }
    }
    Ok(())
}

/// An entry of a map; what it lacks is zero.
fn entry(field: &Field, bytes: &[u8]) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), None);
    let mut wire = Wire(bytes);
    while let Some((number, token)) = wire.next()? {
        match number {
            1 => key = text(bytes_of(field, token)?, field.name)?,
            2 => found = Some(token),
            _ => {}
        }
    }
    let token = match (found, field.kind) {
        (Some(token), _) => token,
        (None, "int" | "bool") => Token::Varint(0),
        (None, _) => Token::Bytes(&[]),
    };
    let value = if field.form == Form::MapOfLists { texts(field, token)? } else { value(field, token)? };
    Ok((key, value))
}

/// A list of texts that is a message of its own (`ExtraValue`).
fn texts(field: &Field, token: Token<'_>) -> Result<Value, ProtobufError> {
    let mut wire = Wire(bytes_of(field, token)?);
    let mut items = Vec::new();
    while let Some((number, token)) = wire.next()? {
        if number == 1 {
            items.push(Value::from(text(bytes_of(field, token)?, field.name)?));
        }
    }
    Ok(Value::Array(items))
}

/// One value in its JSON form; a time that is not set is null.
fn value(field: &Field, token: Token<'_>) -> Result<Value, ProtobufError> {
    Ok(match field.kind {
        "int" => signed(varint_of(field, token)?).into(),
        "bool" => (varint_of(field, token)? != 0).into(),
        "string" => text(bytes_of(field, token)?, field.name)?.into(),
        "bytes" => STANDARD.encode(bytes_of(field, token)?).into(),
        "raw" | "fields" => Parts::of(field, token)?.json(field)?,
        "quantity" => Parts::of(field, token)?.text(1, field)?.into(),
        "time" => Parts::of(field, token)?.time(field, false)?,
        "microtime" => Parts::of(field, token)?.time(field, true)?,
        "intorstring" => {
            let parts = Parts::of(field, token)?;
            if parts.number(1) == 0 { parts.number(2).into() } else { parts.text(3, field)?.into() }
        }
        name => {
            let mut object = Map::new();
            let bytes = bytes_of(field, token)?;
            if let Some(shape) = MESSAGES.get(name) {
                message(shape, bytes, &mut object)?;
            }
            Value::Object(object)
        }
    })
}

/// Whether this is what Go's JSON encoder leaves out of a field that is not a pointer.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The fields of a small message that JSON writes as one value.
struct Parts<'a>(BTreeMap<u64, Token<'a>>);

impl<'a> Parts<'a> {
    fn of(field: &Field, token: Token<'a>) -> Result<Self, ProtobufError> {
        let mut wire = Wire(bytes_of(field, token)?);
        let mut parts = BTreeMap::new();
        while let Some((number, token)) = wire.next()? {
            parts.insert(number, token);
        }
        Ok(Self(parts))
    }

    fn number(&self, number: u64) -> i64 {
        match self.0.get(&number) {
            Some(Token::Varint(value)) => signed(*value),
            _ => 0,
        }
    }

    fn bytes(&self, number: u64) -> &'a [u8] {
        match self.0.get(&number) {
            Some(Token::Bytes(bytes)) => bytes,
            _ => &[],
        }
    }

    fn text(&self, number: u64, field: &Field) -> Result<String, ProtobufError> {
        text(self.bytes(number), field.name)
    }

    fn json(&self, field: &Field) -> Result<Value, ProtobufError> {
        match self.bytes(1) {
            [] => Ok(Value::Null),
            bytes => serde_json::from_slice(bytes).map_err(|_| ProtobufError::Form(field.name.into())),
        }
    }

    fn time(&self, field: &Field, micro: bool) -> Result<Value, ProtobufError> {
        if self.0.is_empty() {
            return Ok(Value::Null);
        }
        let nanos = if micro { i32::try_from(self.number(2)).unwrap_or_default() } else { 0 };
        let time = Timestamp::new(self.number(1), nanos).map_err(|_| ProtobufError::Form(field.name.into()))?;
        Ok(if micro { format!("{time:.6}") } else { format!("{time:.0}") }.into())
    }
}

fn text(bytes: &[u8], field: &str) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Utf8(field.to_owned()))
}

fn bytes_of<'a>(field: &Field, token: Token<'a>) -> Result<&'a [u8], ProtobufError> {
    match token {
        Token::Bytes(bytes) => Ok(bytes),
        _ => Err(ProtobufError::WrongType(field.name.into())),
    }
}

fn varint_of(field: &Field, token: Token<'_>) -> Result<u64, ProtobufError> {
    match token {
        Token::Varint(value) => Ok(value),
        _ => Err(ProtobufError::WrongType(field.name.into())),
    }
}

/// Integers are written as their 64-bit two's complement.
fn signed(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

/// What stands after a field's number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A number of fixed size; no field of the table has one.
    Fixed,
}

/// The rest of a message.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    /// The next field's number and value; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Token<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let token = match tag & 7 {
            0 => Token::Varint(self.varint()?),
            1 => self.take(8).map(|_| Token::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Overflow)?;
                Token::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Token::Fixed)?,
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok(Some((tag >> 3, token)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(ProtobufError::Short)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Overflow)
    }
}

#[cfg(test)]
mod tests;
