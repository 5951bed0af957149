//! OpenAPI v2 (Swagger 2.0) from v3: the same paths and definitions in the older words.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::schema::build::REFERENCE;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// Joins v3 documents into one of v2. Of a definition that several have, the first counts.
pub(super) fn convert(documents: impl Iterator<Item = Value>, info: &Value) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for mut document in documents {
        for (path, mut item) in take(&mut document, "/paths") {
            path_item(&mut item);
            paths.insert(path, item);
        }
        for (name, mut schema) in take(&mut document, "/components/schemas") {
            definition(&name, &mut schema);
            definitions.entry(name).or_insert(schema);
        }
    }
    json!({
        "swagger": "2.0", "info": info, "paths": paths, "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// Puts a definition that version 2 words in its own way in the place of the converted one.
pub(super) fn define(document: &mut Value, name: &str, mut definition: Value, gvk: Value) {
    if let Value::Object(map) = &mut definition {
        map.insert("x-kubernetes-group-version-kind".into(), json!([gvk]));
    }
    if let Some(Value::Object(all)) = document.get_mut("definitions") {
        all.insert(name.to_owned(), definition);
    }
}

/// Has every reference lead somewhere, whatever the documents of other servers say: one that leads nowhere becomes any object.
pub(super) fn resolve(document: &mut Value) {
    let known: BTreeSet<String> =
        document.get("definitions").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect();
    for part in ["paths", "definitions"] {
        if let Some(part) = document.get_mut(part) {
            resolve_in(part, &known);
        }
    }
}

fn resolve_in(value: &mut Value, known: &BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| resolve_in(item, known)),
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let name = reference.strip_prefix(REFERENCE).or_else(|| reference.strip_prefix("#/definitions/"));
                match name.filter(|name| known.contains(*name)) {
                    Some(name) => drop(map.insert("$ref".into(), format!("#/definitions/{name}").into())),
                    None => *map = Map::from_iter([("type".to_owned(), "object".into())]),
                }
            }
            map.values_mut().for_each(|value| resolve_in(value, known));
        }
        _ => {}
    }
}

fn take(document: &mut Value, pointer: &str) -> Map<String, Value> {
    match document.pointer_mut(pointer).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// `oneOf` is not known to v2: a type and format say as much.
fn definition(name: &str, schema: &mut Value) {
    self::schema(schema);
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("oneOf");
    if name.ends_with(".Quantity") || name.ends_with(".IntOrString") {
        map.remove("x-kubernetes-int-or-string");
        map.insert("type".into(), "string".into());
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(self::schema);
    }
}

/// References point to `definitions`; one wrapped in `allOf` stands by itself.
fn schema(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Value::Array(all)) = map.remove("allOf") {
        let wrapped = all.into_iter().next().and_then(|first| first.get("$ref").cloned());
        map.extend(wrapped.map(|reference| ("$ref".to_owned(), reference)));
    }
    if let Some(reference) = map.get_mut("$ref") {
        let name = reference.as_str().and_then(|text| text.strip_prefix(REFERENCE)).map(str::to_owned);
        *reference = name.map_or(Value::Null, |name| format!("#/definitions/{name}").into());
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(inner) {
            self::schema(inner);
        }
    }
}

fn path_item(item: &mut Value) {
    let Some(map) = item.as_object_mut() else { return };
    parameters(map);
    for method in METHODS {
        if let Some(Value::Object(operation)) = map.get_mut(method) {
            self::operation(operation);
        }
    }
}

/// A parameter's schema is spread into the parameter.
fn parameters(map: &mut Map<String, Value>) {
    let Some(Value::Array(parameters)) = map.get_mut("parameters") else { return };
    for parameter in parameters.iter_mut().filter_map(Value::as_object_mut) {
        if let Some(Value::Object(schema)) = parameter.remove("schema") {
            parameter.extend(schema);
        }
    }
}

fn operation(operation: &mut Map<String, Value>) {
    parameters(operation);
    let mut consumes = json!(["*/*"]);
    if let Some(mut body) = operation.remove("requestBody") {
        let content = take(&mut body, "/content");
        consumes = content.keys().map(String::as_str).collect();
        let mut accepted = content.into_iter().next().and_then(|(_, c)| c.get("schema").cloned()).unwrap_or_default();
        schema(&mut accepted);
        let required = body.get("required").cloned().unwrap_or(Value::Bool(false));
        let body = json!({"name": "body", "in": "body", "required": required, "schema": accepted});
        if let Some(Value::Array(parameters)) = operation.get_mut("parameters") {
            parameters.insert(0, body);
        }
    }
    let mut produces = Value::Null;
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    for response in responses.into_iter().flat_map(Map::values_mut) {
        let content = take(response, "/content");
        if let Value::Object(response) = response {
            response.remove("content");
            if let Some(mut answered) = content.values().next().and_then(|c| c.get("schema").cloned()) {
                schema(&mut answered);
                response.insert("schema".into(), answered);
                produces = content.keys().map(String::as_str).collect();
            }
        }
    }
    operation.insert("consumes".into(), consumes);
    operation.insert("produces".into(), produces);
    operation.insert("schemes".into(), json!(["https"]));
}
