//! OpenAPI v2 (Swagger 2.0) from v3: the same paths and definitions in the older words, in pieces that are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::document::{Document, Part};
use super::gvk;
use crate::resource::{Descriptor, SchemaSource};
use crate::schema::build::REFERENCE;
use crate::schema::structural::publish;

mod protobuf;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    Json,
    Protobuf,
}

/// What some kinds add to a document: members of `paths` and of `definitions`, as they are written.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    paths: Arc<Part>,
    definitions: Arc<Part>,
    /// What it defines.
    names: Arc<BTreeSet<String>>,
}

impl Piece {
    /// Of the documents of all built-in group versions. Of a definition that several have, the first counts.
    pub(super) fn builtin(form: Form, documents: impl Iterator<Item = Value>) -> Self {
        let (mut paths, mut definitions) = (Map::new(), Map::new());
        for mut document in documents {
            paths.extend(convert_paths(&mut document));
            for (name, mut schema) in take(&mut document, "/components/schemas") {
                definition(&name, &mut schema);
                definitions.entry(name).or_insert(schema);
            }
        }
        Self::new(form, &paths, &definitions)
    }

    /// Of documents of other servers, beside these pieces. Whatever they say, every reference leads somewhere: one that leads
    /// nowhere becomes any object.
    pub(super) fn foreign(form: Form, documents: impl Iterator<Item = Value>, beside: &[Self]) -> Self {
        let mut known: BTreeSet<String> = beside.iter().flat_map(|piece| piece.names.iter().cloned()).collect();
        let (mut paths, mut definitions) = (Map::new(), Map::new());
        for mut document in documents {
            paths.extend(convert_paths(&mut document));
            for (name, mut schema) in take(&mut document, "/components/schemas") {
                if known.insert(name.clone()) {
                    definition(&name, &mut schema);
                    definitions.insert(name, schema);
                }
            }
        }
        paths.values_mut().chain(definitions.values_mut()).for_each(|value| resolve(value, &known));
        Self::new(form, &paths, &definitions)
    }

    /// Of the document of a group version of custom kinds: they define themselves and their lists; what else they refer to,
    /// built-in kinds have defined.
    pub(super) fn custom(form: Form, mut document: Value, kinds: &[&Descriptor]) -> Self {
        let paths = convert_paths(&mut document);
        let mut all = take(&mut document, "/components/schemas");
        let mut definitions = Map::new();
        for kind in kinds {
            for name in [kind.definition.to_string(), format!("{}List", kind.definition)] {
                let Some(mut schema) = all.remove(&name) else { continue };
                definition(&name, &mut schema);
                definitions.insert(name, schema);
            }
            if let SchemaSource::Custom(schema) = &kind.schema {
                let mut own = schema.published(publish::Version::V2);
                if let Value::Object(map) = &mut own {
                    let gvk = gvk(&kind.group, &kind.version, &kind.kind);
                    map.insert("x-kubernetes-group-version-kind".into(), json!([gvk]));
                }
                definitions.insert(kind.definition.to_string(), own);
            }
        }
        Self::new(form, &paths, &definitions)
    }

    fn new(form: Form, paths: &Map<String, Value>, definitions: &Map<String, Value>) -> Self {
        let names = Arc::new(definitions.keys().cloned().collect());
        let (paths, definitions) = match form {
            Form::Json => (part(members(paths)), part(members(definitions))),
            Form::Protobuf => (part(protobuf::paths(paths)), part(protobuf::definitions(definitions))),
        };
        Self { paths, definitions, names }
    }
}

fn members(map: &Map<String, Value>) -> String {
    let members: Vec<String> = map.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    members.join(",")
}

fn part(bytes: impl AsRef<[u8]>) -> Arc<Part> {
    Arc::new(Part::new(bytes.as_ref()))
}

/// A document of these pieces.
pub(super) fn whole(form: Form, info: &Value, pieces: &[Piece]) -> Document {
    let parts = match form {
        Form::Json => json_parts(info, pieces),
        Form::Protobuf => {
            let all = pieces.iter().flat_map(|piece| [&piece.paths, &piece.definitions]).cloned();
            std::iter::once(part(protobuf::head(info))).chain(all).collect()
        }
    };
    Document::of(parts.iter().map(AsRef::as_ref))
}

fn json_parts(info: &Value, pieces: &[Piece]) -> Vec<Arc<Part>> {
    let token = json!({"BearerToken": {
        "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
    }});
    let mut parts = vec![part(format!(r#"{{"swagger":"2.0","info":{info},"paths":{{"#))];
    parts.extend(joined(pieces.iter().map(|piece| &piece.paths)));
    parts.push(part(r#"},"definitions":{"#));
    parts.extend(joined(pieces.iter().map(|piece| &piece.definitions)));
    parts.push(part(format!(r#"}},"securityDefinitions":{token},"security":[{{"BearerToken":[]}}]}}"#)));
    parts
}

/// With commas between those that say something.
fn joined<'a>(parts: impl Iterator<Item = &'a Arc<Part>>) -> Vec<Arc<Part>> {
    let comma = part(",");
    let all = parts.filter(|part| !part.is_empty()).flat_map(|part| [Arc::clone(&comma), Arc::clone(part)]);
    all.skip(1).collect()
}

/// The paths of a document of version 3 in the words of version 2.
fn convert_paths(document: &mut Value) -> Map<String, Value> {
    let mut paths = take(document, "/paths");
    paths.values_mut().for_each(path_item);
    paths
}

/// A reference in a document of another server, which may be of either version, becomes one of this document.
fn resolve(value: &mut Value, known: &BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| resolve(item, known)),
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                let name = reference.strip_prefix(REFERENCE).or_else(|| reference.strip_prefix("#/definitions/"));
                match name.filter(|name| known.contains(*name)) {
                    Some(name) => drop(map.insert("$ref".into(), format!("#/definitions/{name}").into())),
                    None => *map = Map::from_iter([("type".to_owned(), "object".into())]),
                }
            }
            map.values_mut().for_each(|value| resolve(value, known));
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
