//! Filling absent fields with a schema's defaults.

use serde_json::{Map, Value};

use super::Structural;

impl Structural {
    /// Fills what is absent, or null where null is not allowed, with defaults; a null that is not allowed and has no
    /// default is dropped. A second call changes nothing.
    pub fn apply_defaults(&self, object: &mut Value) {
        match object {
            Value::Object(map) => self.default_fields(map),
            Value::Array(list) => {
                let Some(items) = self.items() else { return };
                for item in list {
                    if items.refuses(item)
                        && let Some(default) = &items.default
                    {
                        *item = default.clone();
                    }
                    items.apply_defaults(item);
                }
            }
            _ => {}
        }
    }

    fn default_fields(&self, map: &mut Map<String, Value>) {
        map.retain(|key, value| self.property(key).is_none_or(|p| !p.refuses(value) || p.default.is_some()));
        for (name, property) in &self.properties {
            let Some(default) = &property.default else { continue };
            if map.get(name).is_none_or(|value| property.refuses(value)) {
                map.insert(name.clone(), default.clone());
            }
        }
        for (key, value) in map.iter_mut() {
            let Some(property) = self.property(key) else { continue };
            if property.refuses(value)
                && let Some(default) = &property.default
            {
                *value = default.clone();
            }
            property.apply_defaults(value);
        }
    }

    /// Whether the value is a null that the schema does not allow. An untyped node allows it.
    fn refuses(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable && (self.kind.is_some() || self.int_or_string)
    }
}
