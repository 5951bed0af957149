//! The one encoding of an object that is stored, cached and sent.

use serde_json::{Map, Value};

/// Compact JSON with `"resourceVersion":""` in `metadata` (whatever was there), and the offset between its quotes, where
/// the store writes the revision.
pub fn encode(object: &Value) -> (Vec<u8>, usize) {
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    let metadata = map.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    let mut splice = 0;
    out.push(b'{');
    let before = map.iter().filter(|(key, _)| key.as_str() < "metadata");
    let after = map.iter().filter(|(key, _)| key.as_str() > "metadata");
    for (key, value) in before {
        write_entry(&mut out, key, value);
    }
    write_key(&mut out, "metadata");
    write_metadata(&mut out, metadata, &mut splice);
    for (key, value) in after {
        write_entry(&mut out, key, value);
    }
    out.push(b'}');
    (out, splice)
}

fn write_metadata(out: &mut Vec<u8>, metadata: &Map<String, Value>, splice: &mut usize) {
    const FIELD: &str = "resourceVersion";
    out.push(b'{');
    for (key, value) in metadata.iter().filter(|(key, _)| key.as_str() < FIELD) {
        write_entry(out, key, value);
    }
    write_key(out, FIELD);
    out.push(b'"');
    *splice = out.len();
    out.push(b'"');
    for (key, value) in metadata.iter().filter(|(key, _)| key.as_str() > FIELD) {
        write_entry(out, key, value);
    }
    out.push(b'}');
}

fn write_entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    write_key(out, key);
    // A Vec takes every write and a tree's keys are strings: this cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn write_key(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    let _ = serde_json::to_writer(&mut *out, key);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn encoding_leaves_room_for_the_revision_between_the_quotes() {
        let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"a": "{"},
            "metadata": {"name": "x", "resourceVersion": "7", "uid": "u"}});
        let (mut bytes, splice) = encode(&object);
        bytes.splice(splice..splice, *b"42");
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            r#"{"apiVersion":"v1","data":{"a":"{"},"kind":"ConfigMap","metadata":{"name":"x","resourceVersion":"42","uid":"u"}}"#
        );
    }

    #[test]
    fn an_object_without_metadata_is_encoded_with_it() {
        let (bytes, splice) = encode(&json!({"z": 1}));
        assert_eq!(bytes, br#"{"metadata":{"resourceVersion":""},"z":1}"#);
        assert_eq!(bytes.get(splice), Some(&b'"'));
    }
}
