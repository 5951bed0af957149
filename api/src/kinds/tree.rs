//! Short ways to read and fill a JSON tree. Absent, null and of another type all read as empty: decoding has already
//! refused wrong types, and what is missing is what defaulting and validation are about.

use serde_json::{Map, Value};

/// The string at a JSON pointer, or `""`.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub(crate) fn int(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// Whether the value at a JSON pointer is `true`.
pub(crate) fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer) == Some(&Value::Bool(true))
}

/// The list at a JSON pointer, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The entries of the map at a JSON pointer.
pub(crate) fn map<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// The value at a JSON pointer, unless it is null.
pub(crate) fn some<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    value.pointer(pointer).filter(|v| !v.is_null())
}

/// The elements of the list under `key`, to change.
pub(crate) fn list_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The object under `key`, made if it is not there. `None` if `value` is not an object.
pub(crate) fn object<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let entry = value.as_object_mut()?.entry(key).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.is_object().then_some(entry)
}

/// Sets `key`, in an object.
pub(crate) fn set(value: &mut Value, key: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        map.insert(key.to_owned(), to.into());
    }
}

/// Sets `key` unless something is there; an empty string counts as nothing.
pub(crate) fn fill(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        let absent = map.get(key).is_none_or(|v| v.is_null() || v.as_str() == Some(""));
        if absent {
            map.insert(key.to_owned(), default.into());
        }
    }
}

/// Removes `key`, from an object.
pub(crate) fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut().and_then(|map| map.remove(key))
}

/// Removes `key` where it says `false`, as Kubernetes' encoding does: for field selectors, absent and false are one.
pub(crate) fn drop_false(value: &mut Value, key: &str) {
    if value.get(key) == Some(&Value::Bool(false)) {
        remove(value, key);
    }
}

/// Makes `key` in `new` what it is in `old`, absence included.
pub(crate) fn carry(new: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => set(new, key, value.clone()),
        None => drop(remove(new, key)),
    }
}

/// What is usual for a kind with a status subresource: the main path keeps the old status, and a status update the old spec. (What
/// it keeps of the metadata, the kind's descriptor says.)
pub(crate) fn split_status(new: &mut Value, old: &Value, part: crate::strategy::Part) {
    match part {
        crate::strategy::Part::Main => carry(new, old, "status"),
        crate::strategy::Part::Status => carry(new, old, "spec"),
        crate::strategy::Part::Named(_) => {}
    }
}
