//! Which old item a new item of a list replaces: only lists with keys tell.
//!
//! What must stay true: finding those of all items of a list costs what both lists are long, not their product.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::{ListType, Structural};

/// The items of a list map by their keys; empty for every other list.
#[derive(Debug)]
pub struct OldItems<'a>(HashMap<String, Option<&'a Value>>);

impl<'a> OldItems<'a> {
    pub fn of(schema: &Structural, old: Option<&'a Value>) -> Self {
        let mut items = HashMap::new();
        for item in old.and_then(Value::as_array).into_iter().flatten() {
            let Some(keys) = keys(schema, item) else { continue };
            // A list with two such items has no answer.
            items.entry(keys).and_modify(|known| *known = None).or_insert(Some(item));
        }
        Self(items)
    }

    /// The item that has the keys of `item`.
    pub fn find(&self, schema: &Structural, item: &Value) -> Option<&'a Value> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&keys(schema, item)?).copied().flatten()
    }
}

/// The keys of an item of a list map as one text; a line each, as JSON on one line has no line break.
fn keys(schema: &Structural, item: &Value) -> Option<String> {
    if schema.list_type != Some(ListType::Map) || schema.list_map_keys.is_empty() || !item.is_object() {
        return None;
    }
    let mut text = String::new();
    for name in &schema.list_map_keys {
        let default = || schema.items().and_then(|i| i.properties.get(name)).and_then(|p| p.default.as_ref());
        if let Some(value) = item.get(name).or_else(default) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{value}");
        }
        text.push('\n');
    }
    Some(text)
}
