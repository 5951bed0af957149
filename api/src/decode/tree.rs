//! Bodies to trees, for JSON, YAML and CBOR alike: one visitor that remembers where it is, so that duplicate keys are reported by
//! their path. The parsers bound their depth at 128 levels and count lines and columns. Bounded here: the values of a
//! tree, each of which takes many times its text's room, and what YAML's aliases expand to.

use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Complaints, Decoded};
use crate::cbor::{CborError, Reader};

/// What a YAML text may expand to: this many times its own length (an escape is shorter than its character, twice at most),
/// and this much for aliases on top.
const EXPANSION: usize = 2;
const ALIASES: usize = 1 << 20;
/// Values of a tree, lists and maps among them: several times what the largest bodies have that mean something.
pub(super) const MAX_VALUES: usize = 1 << 18;

const EXCESSIVE: &str = "document contains excessive aliasing";

/// Repeated keys that are told with their lines: each is looked for anew.
const REPEATED_TOLD: usize = 10;

/// Why a text is not a tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("json parse error: {0}")]
    Json(serde_json::Error),
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(serde_yaml::Error),
    #[error(transparent)]
    Cbor(CborError),
    #[error("cbor: {0}")]
    Duplicate(String),
    #[error("Request entity too large: the body has more than {MAX_VALUES} values")]
    Crowded,
}

pub(super) fn json(text: &str) -> Result<Decoded, TreeError> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let mut place = Place::default();
    let object = Seed(&mut place).deserialize(&mut parser);
    let object = object.map_err(|error| place.refusal(TreeError::Json(error)))?;
    parser.end().map_err(TreeError::Json)?;
    Ok(Decoded { object, warnings: place.duplicates.list })
}

/// Unlike a text's, a duplicate key is never good here, as in Kubernetes.
pub(super) fn cbor(bytes: &[u8]) -> Result<Decoded, TreeError> {
    let (mut reader, mut place) = (Reader::new(bytes), Place::default());
    let object = Seed(&mut place).deserialize(&mut reader).map_err(|error| place.refusal(TreeError::Cbor(error)))?;
    reader.end().map_err(TreeError::Cbor)?;
    match place.duplicates.list.into_iter().next() {
        Some(duplicate) => Err(TreeError::Duplicate(duplicate)),
        None => Ok(Decoded { object, warnings: Vec::new() }),
    }
}

pub(super) fn yaml(text: &str) -> Result<Decoded, TreeError> {
    let mut place = Place::in_yaml(text);
    let object = Seed(&mut place).deserialize(serde_yaml::Deserializer::from_str(text));
    let object = object.map_err(|error| place.refusal(TreeError::Yaml(error)))?;
    Ok(Decoded { object, warnings: place.duplicates.list })
}

/// The first keys of a YAML text that a map has already, as Go's parser tells them: `line 3: key "a" already set in map`. The
/// text has been read before.
pub(super) fn repeated_keys(text: &str) -> Vec<String> {
    let at = |nth: usize| {
        let mut place = Place { refused: Some(nth), ..Place::in_yaml(text) };
        let error = Seed(&mut place).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
        let key = place.repeated?;
        Some(format!("line {}: key {key:?} already set in map", error.location()?.line()))
    };
    (0..REPEATED_TOLD).map_while(at).collect()
}

pub(super) fn documents(text: &str) -> Result<Vec<Decoded>, TreeError> {
    let mut all = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut place = Place::in_yaml(text);
        let object = Seed(&mut place).deserialize(document);
        let object = object.map_err(|error| place.refusal(TreeError::Yaml(error)))?;
        if !object.is_null() {
            all.push(Decoded { object, warnings: place.duplicates.list });
        }
    }
    Ok(all)
}

/// Where the visitor is, and what it found twice.
#[derive(Default)]
struct Place {
    path: String,
    duplicates: Complaints,
    /// `<<` merges maps.
    yaml: bool,
    /// Values and bytes of text that may still come; no bound in JSON, where each is in the text.
    left: Option<usize>,
    /// Which repeated key (the first is 0) ends the reading, so that the parser tells its line.
    refused: Option<usize>,
    /// The key that ended it.
    repeated: Option<String>,
    values: usize,
    /// Of YAML: bytes of the text. More values than that come of aliases.
    length: usize,
}

impl Place {
    fn in_yaml(text: &str) -> Self {
        let left = text.len().saturating_mul(EXPANSION).saturating_add(ALIASES);
        Self { yaml: true, left: Some(left), length: text.len(), ..Self::default() }
    }

    /// Why the parser stopped here, if it says `error`.
    fn refusal(&self, error: TreeError) -> TreeError {
        let aliased = self.yaml && self.values > self.length;
        if self.values > MAX_VALUES && !aliased { TreeError::Crowded } else { error }
    }

    /// Errors at the repeated key that is looked for.
    fn check_repeated<E: serde::de::Error>(&mut self, key: &str) -> Result<(), E> {
        match self.refused {
            None => Ok(()),
            Some(0) => {
                self.repeated = Some(key.to_owned());
                Err(E::custom("a repeated key"))
            }
            Some(more) => {
                self.refused = Some(more - 1);
                Ok(())
            }
        }
    }

    /// Counts a value with this many bytes of text.
    fn count<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(E::custom(EXCESSIVE));
        }
        self.text(bytes)
    }

    /// Counts text that is no value.
    fn text<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        match &mut self.left {
            None => Ok(()),
            Some(left) => {
                let rest = left.checked_sub(bytes + 1);
                *left = rest.ok_or_else(|| E::custom(EXCESSIVE))?;
                Ok(())
            }
        }
    }
}

struct Seed<'p>(&'p mut Place);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.0.count(0)?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.0.count(value.len())?;
        Ok(value.into())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.0.count(value.len())?;
        Ok(value.into())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.0.count(0)?;
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.count(0)?;
        let length = self.0.path.len();
        let mut items = Vec::new();
        loop {
            // Writing to a String cannot fail.
            let _ = write!(self.0.path, "[{}]", items.len());
            let item = access.next_element_seed(Seed(self.0))?;
            self.0.path.truncate(length);
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.0.count(0)?;
        let length = self.0.path.len();
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = access.next_key_seed(Key { place: self.0, map: &map })? {
            self.0.text(key.len())?;
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            let value = access.next_value_seed(Seed(self.0))?;
            if self.0.yaml && key == "<<" {
                merged.push(value);
            } else if map.insert(key, value).is_some() {
                let path = &self.0.path;
                self.0.duplicates.add(|| format!("duplicate field {path:?}"));
            }
            self.0.path.truncate(length);
        }
        for value in merged {
            merge(&mut map, value).map_err(A::Error::custom)?;
        }
        Ok(Value::Object(map))
    }
}

/// YAML's `<<`: keys of a map, or of each map of a list, that are not there yet.
fn merge(map: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) => items.into_iter().try_for_each(|item| merge(map, item)),
        _ => Err("map merge requires map or sequence of maps as the value"),
    }
}

/// A key of a map; YAML's scalars are read as text.
struct Key<'p> {
    place: &'p mut Place,
    /// What the map has so far.
    map: &'p Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string as a key")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<String, E> {
        if self.map.contains_key(&value) {
            self.place.check_repeated(&value)?;
        }
        Ok(value)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<String, E> {
        self.visit_string(value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<String, E> {
        self.visit_string(value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<String, E> {
        self.visit_string(value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<String, E> {
        self.visit_string(value.to_string())
    }
}
