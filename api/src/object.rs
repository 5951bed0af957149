//! Reading and changing the common parts of an object's JSON tree: type, metadata, owner references, finalizers.

use serde_json::Value;

/// `metadata.name`, or `""`.
pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

/// `metadata.namespace`, or `""`.
pub fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

/// A string field of `metadata`, or `""`.
pub fn meta_str<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}
