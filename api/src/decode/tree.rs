//! Text to tree, for JSON and YAML alike: one visitor that remembers where it is, so that duplicate keys are reported by
//! their path. Both parsers bound their depth at 128 levels and count lines and columns.

use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Decoded;

/// Why a text is not a tree.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("json parse error: {0}")]
    Json(serde_json::Error),
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(serde_yaml::Error),
}

pub(super) fn json(text: &str) -> Result<Decoded, TreeError> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let mut place = Place::default();
    let object = Seed(&mut place).deserialize(&mut parser).map_err(TreeError::Json)?;
    parser.end().map_err(TreeError::Json)?;
    Ok(Decoded { object, warnings: place.duplicates })
}

pub(super) fn yaml(text: &str) -> Result<Decoded, TreeError> {
    let mut place = Place { yaml: true, ..Place::default() };
    let object = Seed(&mut place).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(TreeError::Yaml)?;
    Ok(Decoded { object, warnings: place.duplicates })
}

pub(super) fn documents(text: &str) -> Result<Vec<Decoded>, TreeError> {
    let mut all = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut place = Place { yaml: true, ..Place::default() };
        let object = Seed(&mut place).deserialize(document).map_err(TreeError::Yaml)?;
        if !object.is_null() {
            all.push(Decoded { object, warnings: place.duplicates });
        }
    }
    Ok(all)
}

/// Where the visitor is, and what it found twice.
#[derive(Default)]
struct Place {
    path: String,
    duplicates: Vec<String>,
    /// `<<` merges maps.
    yaml: bool,
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

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
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
        let length = self.0.path.len();
        let mut map = Map::new();
        let mut merged = Vec::new();
        while let Some(Key(key)) = access.next_key()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            let value = access.next_value_seed(Seed(self.0))?;
            if self.0.yaml && key == "<<" {
                merged.push(value);
            } else if map.insert(key, value).is_some() {
                self.0.duplicates.push(format!("duplicate field {:?}", self.0.path));
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

/// A key; YAML's scalars are read as text.
struct Key(String);

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string as a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<Key, E> {
        Ok(Key(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Key, E> {
        Ok(Key(value))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }
}
