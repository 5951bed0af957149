//! Items of sets and of list maps are unique.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{ListType, Structural};
use crate::field::{ErrorKind, ErrorList, FieldError, Path};

/// Reports the first repetition of each item of a set, and of each key of a list map, everywhere in a value.
pub(super) fn check(schema: &Structural, value: &Value, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(property) = schema.properties.get(key) {
                    check(property, value, &path.child(key), errors);
                } else if let Some(values) = schema.values() {
                    check(values, value, &path.key(key), errors);
                }
            }
        }
        Value::Array(list) => {
            match schema.list_type {
                Some(ListType::Set) => repeated(list.iter().cloned(), path, errors),
                Some(ListType::Map) => list_map(schema, list, path, errors),
                Some(ListType::Atomic) | None => {}
            }
            if let Some(items) = schema.items() {
                list.iter().enumerate().for_each(|(i, item)| check(items, item, &path.index(i), errors));
            }
        }
        _ => {}
    }
}

fn list_map(schema: &Structural, list: &[Value], path: &Path, errors: &mut ErrorList) {
    for (index, item) in list.iter().enumerate() {
        if !item.is_object() && !item.is_null() {
            errors.invalid(&path.index(index), item, "must be an object for an array of list-type map");
            return;
        }
    }
    let keys = list.iter().map(|item| {
        let keys = schema.list_map_keys.iter();
        Value::Object(keys.filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect::<Map<_, _>>())
    });
    repeated(keys, path, errors);
}

fn repeated(values: impl Iterator<Item = Value>, path: &Path, errors: &mut ErrorList) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError {
                kind: ErrorKind::Duplicate,
                path: path.index(index),
                message: format!("Duplicate value: {value}"),
            });
        }
    }
}
