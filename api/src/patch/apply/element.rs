//! One step of a path: a field, a list's item by its keys or value, or an index.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema::Node;

/// A field of a struct or map.
pub(super) fn field(name: &str) -> Box<str> {
    ["f:", name].concat().into()
}

/// The one spelling of an element as FieldsV1 writes it; `None` if it is none.
pub(super) fn canonical(text: &str) -> Option<Box<str>> {
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "f" => Some(text.into()),
        "i" => Some(format!("i:{}", rest.parse::<i64>().ok()?).into()),
        "v" => Some(format!("v:{}", serde_json::from_str::<Value>(rest).ok()?).into()),
        "k" => Some(keyed(&serde_json::from_str(rest).ok()?)),
        _ => None,
    }
}

/// An item of a list map. The keys are sorted, as everywhere in a tree.
fn keyed(keys: &Map<String, Value>) -> Box<str> {
    let mut text = String::from("k:{");
    for (index, (key, value)) in keys.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{}:{value}", Value::String(key.clone()));
    }
    text.push('}');
    text.into()
}

#[cfg(test)]
thread_local! {
    /// How many items have been looked at, for tests of how work grows.
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How an item of a list is known in it. The error is Kubernetes' complaint about an item that cannot be known.
pub(super) fn of_item(item: &Value, list: Node<'_>) -> Result<Box<str>, String> {
    #[cfg(test)]
    LOOKED_AT.with(|count| count.set(count.get() + 1));
    let Some(keys) = list.keys() else { return of_member(item) };
    let Value::Object(map) = item else {
        return Err("associative list with keys may not have non-map elements".to_owned());
    };
    let key = |name: &str| {
        let value = map.get(name).filter(|value| !value.is_null()).cloned();
        Some((name.to_owned(), value.or_else(|| list.key_default(name))?))
    };
    let found: Map<String, Value> = keys.iter().filter_map(key).collect();
    if found.is_empty() {
        return Err(format!(
            "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have default \
             values for any key fields)"
        ));
    }
    if let Some((name, _)) = found.iter().find(|(_, value)| value.is_object() || value.is_array()) {
        return Err(format!("associative list with keys has an element whose key field {name:?} is no scalar"));
    }
    Ok(keyed(&found))
}

fn of_member(item: &Value) -> Result<Box<str>, String> {
    match item {
        Value::Array(_) => Err("list of lists are not supported".to_owned()),
        Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
        scalar => Ok(format!("v:{scalar}").into()),
    }
}

/// Appends an element as messages write it: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
pub(super) fn show(element: &str, path: &mut String) {
    let (kind, rest) = element.split_once(':').unwrap_or(("", element));
    // Writing to a String cannot fail.
    let _ = match kind {
        "f" => write!(path, ".{rest}"),
        "i" => write!(path, "[{rest}]"),
        "v" => write!(path, "[={rest}]"),
        _ => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            write!(path, "[{}]", pairs.join(","))
        }
    };
}
