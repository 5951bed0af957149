//! Component schemas: `k8s-openapi`'s definitions with what Kubernetes says about merging, lists of the root kinds, and
//! the meta kinds that operations exchange.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status, WatchEvent};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::gvk;
use crate::kinds::exchanged;
use crate::resource::{Descriptor, SchemaSource, Subresource};
use crate::schema::build::{REFERENCE, definitions};
use crate::schema::facts::{self, Structure};
use crate::schema::structural::publish;

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

type Source = fn(&mut SchemaGenerator) -> Schema;

/// Meta kinds of every document.
const META_SOURCES: [Source; 5] = [
    SchemaGenerator::subschema_for::<ObjectMeta>,
    SchemaGenerator::subschema_for::<DeleteOptions>,
    SchemaGenerator::subschema_for::<ListMeta>,
    SchemaGenerator::subschema_for::<Status>,
    SchemaGenerator::subschema_for::<WatchEvent<RawExtension>>,
];

/// The definition that a subresource exchanges; `None` for one without a body of its own (`log`, `exec`).
pub(super) fn definition(resource: &Descriptor, subresource: &Subresource) -> Option<(Value, String)> {
    let (group, version, kind) = exchanged::named(resource, subresource);
    let own = gvk(group, version, kind);
    if kind == resource.kind {
        return Some((own, resource.definition.to_string()));
    }
    let found = exchanged::bodies().iter().find(|d| d.group == group && d.version == version && d.kind == kind)?;
    Some((own, found.definition.to_string()))
}

/// What a built-in kind's definition is made from.
fn source(kind: &Descriptor) -> Option<Source> {
    match kind.schema {
        SchemaSource::BuiltIn(source) => Some(source),
        SchemaSource::Custom(_) => None,
    }
}

/// All component schemas of a document.
pub(super) fn all(kinds: &[&Descriptor]) -> Map<String, Value> {
    let roots = kinds.iter().filter_map(|kind| source(kind));
    let custom = kinds.iter().filter_map(|d| match &d.schema {
        SchemaSource::BuiltIn(_) => None,
        SchemaSource::Custom(schema) => Some((d.definition.to_string(), schema.published(publish::Version::V3))),
    });
    let needed: Vec<String> = kinds
        .iter()
        .flat_map(|d| d.subresources.iter().filter_map(|s| definition(d, s)))
        .map(|(_, definition)| definition)
        .collect();
    let exchanged = exchanged::bodies().iter().filter(|e| needed.iter().any(|n| *n == e.definition));
    let sources = roots.chain(exchanged.clone().filter_map(source)).chain(META_SOURCES);
    let mut schemas: Map<String, Value> = definitions(sources)
        .into_iter()
        .map(|(name, schema)| {
            let schema = component(&name, schema);
            (name, schema)
        })
        .chain(custom)
        .collect();
    for kind in kinds {
        mark(&mut schemas, &kind.definition, gvk(&kind.group, &kind.version, &kind.kind));
        schemas.insert(format!("{}List", kind.definition), list(kind));
    }
    for kind in exchanged {
        mark(&mut schemas, &kind.definition, gvk(&kind.group, &kind.version, &kind.kind));
    }
    mark(&mut schemas, &format!("{META}Status"), gvk("", "v1", "Status"));
    for meta in ["DeleteOptions", "WatchEvent"] {
        let mut versions: Vec<Value> = kinds.iter().map(|d| gvk(&d.group, &d.version, meta)).collect();
        versions.dedup();
        for version in versions {
            mark(&mut schemas, &format!("{META}{meta}"), version);
        }
    }
    schemas
}

/// Adds a group, version and kind to a definition.
fn mark(schemas: &mut Map<String, Value>, definition: &str, gvk: Value) {
    let Some(Value::Object(schema)) = schemas.get_mut(definition) else { return };
    let marks = schema.entry("x-kubernetes-group-version-kind").or_insert_with(|| json!([]));
    if let Value::Array(marks) = marks
        && !marks.contains(&gvk)
    {
        marks.push(gvk);
    }
}

/// One definition as Kubernetes publishes it.
fn component(name: &str, mut schema: Value) -> Value {
    let Some(map) = schema.as_object_mut() else { return schema };
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => {
            map.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
        }
        // Any value: a number as well as an object.
        "JSON" => drop(map.remove("type")),
        "IntOrString" => {
            map.insert("format".into(), "int-or-string".into());
            map.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        }
        _ => {}
    }
    if facts::is_atomic(name) {
        map.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    optional_metadata(map);
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for (field, property) in properties.iter_mut() {
            references(property);
            annotate(name, field, property);
        }
    }
    schema
}

/// The crate's types always have metadata; in Kubernetes it may be left out.
fn optional_metadata(map: &mut Map<String, Value>) {
    let Some(Value::Array(required)) = map.get_mut("required") else { return };
    required.retain(|name| name != "metadata");
    if required.is_empty() {
        map.remove("required");
    }
}

/// A reference with siblings becomes `allOf`, as OpenAPI 3.0 wants.
fn references(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if map.len() > 1
        && let Some(reference) = map.remove("$ref")
    {
        map.insert("allOf".into(), json!([{"$ref": reference}]));
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(inner) {
            references(inner);
        }
    }
}

/// What the table of facts says about a field.
fn annotate(definition: &str, field: &str, property: &mut Value) {
    let Some(map) = property.as_object_mut() else { return };
    let facts = facts::merge(definition, field);
    let is_list = map.get("type").is_some_and(|kind| kind == "array");
    let structure = facts.map_or(Structure::ByType, |f| f.structure);
    match (is_list, structure) {
        (true, Structure::ListMap) => set(map, "x-kubernetes-list-type", "map".into()),
        (true, Structure::ListSet) => set(map, "x-kubernetes-list-type", "set".into()),
        (true, _) => set(map, "x-kubernetes-list-type", "atomic".into()),
        (false, Structure::Atomic) => set(map, "x-kubernetes-map-type", "atomic".into()),
        (false, _) => {}
    }
    let Some(facts) = facts else { return };
    if structure == Structure::ListMap {
        set(map, "x-kubernetes-list-map-keys", facts.keys.clone().into());
    }
    if !facts.patch_strategy().is_empty() {
        set(map, "x-kubernetes-patch-strategy", facts.patch_strategy().into());
    }
    if let Some(key) = facts.patch_merge_key {
        set(map, "x-kubernetes-patch-merge-key", key.into());
    }
}

fn set(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

/// The schema of a kind's list.
fn list(kind: &Descriptor) -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "description": format!("{} is a list of {} objects.", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("The version of this representation of the list."),
            "kind": text("The list's kind."),
            "items": {
                "description": format!("Items is a list of {} objects.", kind.kind),
                "type": "array",
                "items": {"$ref": format!("{REFERENCE}{}", kind.definition)},
            },
            "metadata": {
                "description": "Standard list metadata.",
                "allOf": [{"$ref": format!("{REFERENCE}{META}ListMeta")}],
            },
        },
        "x-kubernetes-group-version-kind": [gvk(&kind.group, &kind.version, &kind.list_kind)],
    })
}
