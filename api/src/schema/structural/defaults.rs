//! Filling absent fields with a schema's defaults.
//!
//! What is filled in is measured while it is: a schema may have a default of megabytes for each item of a list, and a small
//! body would become more than there is memory.

use std::io;

use serde_json::{Map, Value};

use super::Structural;

/// Bytes of defaults, as JSON, that one object may get: what an object may be large.
pub const MAX_DEFAULTS: usize = 3 * 1024 * 1024;

/// The defaults of an object would be more than [`MAX_DEFAULTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the defaults of its definition would make the object too large: limit is {MAX_DEFAULTS}")]
pub struct Overgrown;

/// What may still be filled in.
struct Room(usize);

impl Room {
    /// A copy of a default.
    fn take(&mut self, default: &Value) -> Result<Value, Overgrown> {
        self.0 = self.0.checked_sub(size(default)).ok_or(Overgrown)?;
        Ok(default.clone())
    }
}

/// Bytes of a value as JSON.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither counting nor a tree's keys can fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

impl Structural {
    /// Whether it has a default anywhere.
    pub fn has_defaults(&self) -> bool {
        let inner = self.properties.values().chain(self.items()).chain(self.values());
        self.default.is_some() || inner.into_iter().any(Self::has_defaults)
    }

    /// Fills what is absent, or null where null is not allowed, with defaults; a null that is not allowed and has no
    /// default is dropped. A second call changes nothing. After an error the object has a part of its defaults.
    pub fn apply_defaults(&self, object: &mut Value) -> Result<(), Overgrown> {
        self.fill(object, &mut Room(MAX_DEFAULTS))
    }

    fn fill(&self, object: &mut Value, room: &mut Room) -> Result<(), Overgrown> {
        match object {
            Value::Object(map) => self.fill_fields(map, room),
            Value::Array(list) => {
                let Some(items) = self.items() else { return Ok(()) };
                for item in list {
                    if items.refuses(item)
                        && let Some(default) = &items.default
                    {
                        *item = room.take(default)?;
                    }
                    items.fill(item, room)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fill_fields(&self, map: &mut Map<String, Value>, room: &mut Room) -> Result<(), Overgrown> {
        map.retain(|key, value| self.property(key).is_none_or(|p| !p.refuses(value) || p.default.is_some()));
        for (name, property) in &self.properties {
            let Some(default) = &property.default else { continue };
            if map.get(name).is_none_or(|value| property.refuses(value)) {
                // The name, its quotes and what separates it.
                room.0 = room.0.checked_sub(name.len() + 4).ok_or(Overgrown)?;
                map.insert(name.clone(), room.take(default)?);
            }
        }
        for (key, value) in map.iter_mut() {
            let Some(property) = self.property(key) else { continue };
            if property.refuses(value)
                && let Some(default) = &property.default
            {
                *value = room.take(default)?;
            }
            property.fill(value, room)?;
        }
        Ok(())
    }

    /// Whether the value is a null that the schema does not allow.
    fn refuses(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse;
    use super::*;
    use crate::field::{ErrorList, Path};

    /// Objects with a list whose items have a default of `bytes`.
    fn schema(bytes: usize) -> Structural {
        let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": "x".repeat(bytes)}}});
        let written = json!({"type": "object", "properties": {"list": {"type": "array", "items": item}}});
        let mut errors = ErrorList::default();
        let parsed = parse(&written, &Path::default(), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        parsed
    }

    #[test]
    fn defaults_that_grow_without_measure_stop_while_they_are_made() {
        let schema = schema(1000);
        let of = |items: usize| json!({"list": vec![json!({}); items]});
        let mut object = of(1000);
        assert_eq!(schema.apply_defaults(&mut object), Ok(()));
        assert!(size(&object) > 1_000_000);
        let mut object = of(1_000_000);
        assert_eq!(schema.apply_defaults(&mut object), Err(Overgrown));
        assert!(size(&object) < 2 * MAX_DEFAULTS + 3_000_000, "what was made until then is bounded: {}", size(&object));
    }

    #[test]
    fn what_is_measured_is_what_an_object_grows_by() {
        for items in [1, 7, 100] {
            let (schema, mut object) = (schema(50), json!({"list": vec![json!({"b": 1}); items]}));
            let (before, mut room) = (size(&object), Room(MAX_DEFAULTS));
            schema.fill(&mut object, &mut room).unwrap();
            let (grown, measured) = (size(&object) - before, MAX_DEFAULTS - room.0);
            assert_eq!(grown, measured, "{items}");
        }
    }

    #[test]
    fn defaults_within_defaults_are_measured_too() {
        let leaf = json!({"type": "string", "default": "x".repeat(100_000)});
        let fields: Map<String, Value> = (0..100).map(|n| (format!("f{n}"), leaf.clone())).collect();
        let written =
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {}, "properties": fields}}});
        let schema = parse(&written, &Path::default(), &mut ErrorList::default());
        let mut object = json!({});
        assert_eq!(schema.apply_defaults(&mut object), Err(Overgrown));
        assert!(size(&object) <= MAX_DEFAULTS + 100);
    }
}
