//! A document of version 2 in protobuf (`openapi.v2.Document`), which is how kubectl reads it.
//!
//! Messages that are given twice are merged by whoever reads them, so that encoded parts in a row are one document.

use serde_json::{Map, Value};

/// How a member of a JSON object is written.
enum Kind {
    Text,
    Texts,
    Flag,
    Integer,
    Number,
    /// As YAML, of which JSON is a part.
    Any,
    Anys,
    One(fn(&Value) -> Vec<u8>),
    Many(fn(&Value) -> Vec<u8>),
}

use Kind::{Any, Anys, Flag, Integer, Many, Number, One, Text, Texts};

/// A message: member, field number, kind; and the number of the field that takes what begins with `x-`.
type Message = (&'static [(&'static str, u32, Kind)], Option<u32>);

const SCHEMA: Message = (
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Integer),
        ("minLength", 12, Integer),
        ("pattern", 13, Text),
        ("maxItems", 14, Integer),
        ("minItems", 15, Integer),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Integer),
        ("minProperties", 18, Integer),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, One(additional)),
        ("type", 22, One(|kind| text(1, kind))),
        ("items", 23, One(|items| field(1, &schema(items)))),
        ("allOf", 24, Many(schema)),
        ("properties", 25, One(|all| named(1, all, schema))),
    ],
    Some(31),
);

const OPERATION: Message = (
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Many(parameter)),
        ("responses", 9, One(|all| named(1, all, response))),
        ("schemes", 10, Texts),
        ("deprecated", 11, Flag),
    ],
    Some(13),
);

const PATH: Message = (
    &[
        ("get", 2, One(operation)),
        ("put", 3, One(operation)),
        ("post", 4, One(operation)),
        ("delete", 5, One(operation)),
        ("patch", 8, One(operation)),
        ("parameters", 9, Many(parameter)),
    ],
    Some(10),
);

const BODY_PARAMETER: Message = (
    &[("description", 1, Text), ("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, One(schema))],
    Some(6),
);

const QUERY_PARAMETER: Message = (
    &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("uniqueItems", 20, Flag),
    ],
    Some(23),
);

const PATH_PARAMETER: Message = (
    &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("uniqueItems", 19, Flag),
    ],
    Some(22),
);

const RESPONSE: Message = (&[("description", 1, Text), ("schema", 2, One(|shown| field(1, &schema(shown))))], Some(5));

const INFO: Message = (&[("title", 1, Text), ("version", 2, Text)], None);

/// What every document begins with.
pub(super) fn head(info: &Value) -> Vec<u8> {
    [field(1, b"2.0"), field(2, &message(&INFO, info))].concat()
}

pub(super) fn paths(paths: &Map<String, Value>) -> Vec<u8> {
    field(8, &members(2, paths, |path| message(&PATH, path)))
}

pub(super) fn definitions(definitions: &Map<String, Value>) -> Vec<u8> {
    field(9, &members(1, definitions, schema))
}

fn schema(value: &Value) -> Vec<u8> {
    message(&SCHEMA, value)
}

fn operation(value: &Value) -> Vec<u8> {
    message(&OPERATION, value)
}

fn additional(value: &Value) -> Vec<u8> {
    match value {
        Value::Bool(allowed) => [varint(2 << 3), varint(u64::from(*allowed))].concat(),
        schema => field(1, &self::schema(schema)),
    }
}

/// A parameter by its place, three messages deep.
fn parameter(value: &Value) -> Vec<u8> {
    let parameter = match value.get("in").and_then(Value::as_str) {
        Some("body") => field(1, &message(&BODY_PARAMETER, value)),
        Some("path") => field(2, &field(4, &message(&PATH_PARAMETER, value))),
        _ => field(2, &field(3, &message(&QUERY_PARAMETER, value))),
    };
    field(1, &parameter)
}

fn response(value: &Value) -> Vec<u8> {
    field(1, &message(&RESPONSE, value))
}

fn message((fields, extensions): &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, kind) in *fields {
        if let Some(member) = value.get(name) {
            out.extend(encode(*number, kind, member));
        }
    }
    let Some(number) = extensions else { return out };
    for (name, extension) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        out.extend(field(*number, &pair(name, &any(extension))));
    }
    out
}

fn encode(number: u32, kind: &Kind, value: &Value) -> Vec<u8> {
    let each = |encode: &dyn Fn(&Value) -> Vec<u8>| -> Vec<u8> {
        value.as_array().into_iter().flatten().flat_map(encode).collect()
    };
    match kind {
        Text => text(number, value),
        Texts => each(&|item| text(number, item)),
        Flag => match value {
            Value::Bool(true) => [varint(u64::from(number) << 3), varint(1)].concat(),
            _ => Vec::new(),
        },
        Integer => {
            value.as_u64().map_or_else(Vec::new, |count| [varint(u64::from(number) << 3), varint(count)].concat())
        }
        Number => value.as_f64().map_or_else(Vec::new, |found| {
            [varint((u64::from(number) << 3) | 1), found.to_le_bytes().to_vec()].concat()
        }),
        Any => field(number, &any(value)),
        Anys => each(&|item| field(number, &any(item))),
        One(inner) => field(number, &inner(value)),
        Many(inner) => each(&|item| field(number, &inner(item))),
    }
}

/// The members of an object as pairs of name and value.
fn named(number: u32, value: &Value, encode: fn(&Value) -> Vec<u8>) -> Vec<u8> {
    value.as_object().map_or_else(Vec::new, |map| members(number, map, encode))
}

fn members(number: u32, map: &Map<String, Value>, encode: fn(&Value) -> Vec<u8>) -> Vec<u8> {
    map.iter().flat_map(|(name, value)| field(number, &pair(name, &encode(value)))).collect()
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    [field(1, name.as_bytes()), field(2, value)].concat()
}

fn any(value: &Value) -> Vec<u8> {
    field(2, value.to_string().as_bytes())
}

fn text(number: u32, value: &Value) -> Vec<u8> {
    value.as_str().map_or_else(Vec::new, |text| field(number, text.as_bytes()))
}

/// A field that has a length.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = varint((u64::from(number) << 3) | 2);
    out.extend(varint(content.len() as u64));
    out.extend_from_slice(content);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return out;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_written_as_its_message() {
        let all = json!({"description": "d", "type": "object", "properties": {"a": {"type": "string"}}, "x-k": [1]});
        let wanted = [
            &b"\x22\x01d"[..],
            b"\xb2\x01\x08\x0a\x06object",
            b"\xca\x01\x12\x0a\x10\x0a\x01a\x12\x0b\xb2\x01\x08\x0a\x06string",
            b"\xfa\x01\x0c\x0a\x03x-k\x12\x05\x12\x03[1]",
        ];
        assert_eq!(schema(&all), wanted.concat());
        assert_eq!(varint(300), [0xac, 0x02]);
    }
}
