//! What OpenAPI documents show of a custom resource's schema.
//!
//! These work on the schema as it was written, because descriptions and titles are for readers and [`Structural`] does
//! not keep them.
//!
//! [`Structural`]: super::Structural

use serde_json::{Map, Value, json};

use super::MAX_DEPTH;

/// Fields of a schema that hold one schema, a map of schemas, or a list of schemas.
const ONE: [&str; 3] = ["items", "additionalProperties", "not"];
const MANY: [&str; 1] = ["properties"];
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Where the definitions of a document are, and whether it is of version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2,
    V3,
}

impl Version {
    fn reference(self, definition: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{definition}")}),
        }
    }
}

/// The definition of a kind: its schema (absent: anything) with `apiVersion`, `kind` and `metadata`. The caller adds
/// `x-kubernetes-group-version-kind`.
pub fn definition(schema: Option<&Value>, version: Version) -> Value {
    let keeps = |schema: &&Value| schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    // Readers of version 2 take an object that is described in part for one that has nothing else.
    let described = schema.filter(|schema| version == Version::V3 || !keeps(schema));
    let Some(mut shown) = described.cloned() else { return json!({"type": "object"}) };
    clean(&mut shown, version, 0);
    describe_meta(&mut shown, version);
    if let Value::Object(map) = &mut shown {
        map.insert("type".into(), "object".into());
    }
    shown
}

/// Adds what every object has.
fn describe_meta(schema: &mut Value, version: Version) {
    let Value::Object(map) = schema else { return };
    let properties = map.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(properties) = properties else { return };
    properties.insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
    properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
    let mut metadata = version.reference("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    if version == Version::V3 {
        metadata = json!({"allOf": [metadata], "default": {}});
    }
    if let Value::Object(metadata) = &mut metadata {
        metadata.insert("description".into(), "Standard object's metadata.".into());
    }
    properties.insert("metadata".into(), metadata);
}

const API_VERSION: &str =
    "APIVersion defines the group and version of this object's schema; servers may refuse others.";
const KIND: &str = "Kind is the kind of resource that this object represents, in CamelCase. Cannot be updated.";

fn clean(schema: &mut Value, version: Version, depth: usize) {
    if depth > MAX_DEPTH {
        *schema = json!({});
    }
    let Value::Object(map) = schema else { return };
    let embedded = map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    if version == Version::V2 {
        lossy(map);
    }
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            (key, value @ Value::Object(_)) if ONE.contains(&key) => clean(value, version, depth + 1),
            (key, Value::Object(schemas)) if MANY.contains(&key) => {
                for value in schemas.values_mut() {
                    clean(value, version, depth + 1);
                }
            }
            (key, Value::Array(schemas)) if LISTS.contains(&key) => {
                for value in schemas {
                    clean(value, version, depth + 1);
                }
            }
            _ => {}
        }
    }
    let keeps = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if embedded && !(version == Version::V2 && keeps) {
        describe_meta(schema, version);
    }
}

/// What version 2 cannot say is left out, so that its readers take what the server takes.
fn lossy(map: &mut Map<String, Value>) {
    for field in ["allOf", "anyOf", "oneOf", "not", "default"] {
        map.remove(field);
    }
    let flag = |map: &Map<String, Value>, field: &str| map.get(field) == Some(&Value::Bool(true));
    let (nullable, keeps) = (flag(map, "nullable"), flag(map, "x-kubernetes-preserve-unknown-fields"));
    if nullable {
        map.remove("type");
        map.remove("nullable");
    }
    if nullable || keeps {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str);
    if (kind == Some("array") && !map.contains_key("items")) || (kind == Some("object") && keeps) {
        map.remove("type");
    }
    let is_nullable = |schema: &Value| schema.get("nullable") == Some(&Value::Bool(true));
    let optional: Vec<String> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, schema)| is_nullable(schema))
        .map(|(name, _)| name.clone())
        .collect();
    let none_required = map.get("additionalProperties").is_some_and(is_nullable);
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|name| !none_required && !optional.iter().any(|o| name == o));
        if required.is_empty() {
            map.remove("required");
        }
    }
}
