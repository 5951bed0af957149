//! Which old item a new item of a list replaces: only lists with keys tell.

use serde_json::Value;

use super::{ListType, Structural};

/// The item of `old` that has the keys of `item`, in a list map; `None` for every other list.
pub fn old_item<'a>(schema: &Structural, old: &'a [Value], item: &Value) -> Option<&'a Value> {
    if schema.list_type != Some(ListType::Map) || schema.list_map_keys.is_empty() || !item.is_object() {
        return None;
    }
    // A list with two such items has no answer.
    let mut found = old.iter().filter(|candidate| same_keys(schema, candidate, item));
    let first = found.next();
    if found.next().is_some() { None } else { first }
}

fn same_keys(schema: &Structural, a: &Value, b: &Value) -> bool {
    let key = |item: &Value, name: &String| match item.get(name) {
        Some(value) => Some(value.clone()),
        None => schema.items().and_then(|i| i.properties.get(name)).and_then(|p| p.default.clone()),
    };
    a.is_object() && schema.list_map_keys.iter().all(|name| key(a, name) == key(b, name))
}
