//! From `k8s-openapi`'s schemas to shapes, on first use of a kind, kept from then on.
//!
//! Bound: one shape per definition of the built-in kinds that are used, a few hundred at most; names are shared.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::facts;
use super::shape::{Field, Shape, Type};
use crate::resource::{Descriptor, SchemaSource};

/// Where a reference points; a definition's name follows.
pub(super) const REFERENCE: &str = "#/components/schemas/";

/// A generator whose references are those of OpenAPI v3.
pub(super) fn generator() -> SchemaGenerator {
    SchemaSettings::openapi3().into_generator()
}

/// Definitions by name, as the generator made them.
pub(super) fn definitions(sources: impl IntoIterator<Item = fn(&mut SchemaGenerator) -> Schema>) -> Map<String, Value> {
    let mut generator = generator();
    for source in sources {
        source(&mut generator);
    }
    generator.take_definitions(false)
}

#[derive(Default)]
struct Cache {
    shapes: HashMap<Arc<str>, Arc<Shape>>,
    names: HashSet<Arc<str>>,
}

static CACHE: LazyLock<RwLock<Cache>> = LazyLock::new(RwLock::default);

/// The shape of a built-in kind. A custom one has none: it is empty.
pub fn of(resource: &Descriptor) -> Arc<Shape> {
    let SchemaSource::BuiltIn(source) = resource.schema else {
        return Arc::new(Shape::empty(resource.definition.as_ref().into()));
    };
    if let Some(shape) = shape(&resource.definition) {
        return shape;
    }
    let definitions = definitions([source]);
    let mut cache = CACHE.write().unwrap_or_else(PoisonError::into_inner);
    cache.add(&definitions);
    cache.shape(&resource.definition)
}

/// The shape of every object's metadata.
pub fn object_meta() -> Arc<Shape> {
    let name = ObjectMeta::schema_name();
    shape(&name).unwrap_or_else(|| {
        let definitions = definitions([SchemaGenerator::subschema_for::<ObjectMeta> as fn(&mut _) -> _]);
        let mut cache = CACHE.write().unwrap_or_else(PoisonError::into_inner);
        cache.add(&definitions);
        cache.shape(&name)
    })
}

/// The shape of a definition that a kind used so far needs, by its name.
pub fn shape(definition: &str) -> Option<Arc<Shape>> {
    CACHE.read().unwrap_or_else(PoisonError::into_inner).shapes.get(definition).cloned()
}

impl Cache {
    fn add(&mut self, definitions: &Map<String, Value>) {
        let new: Vec<(&String, &Value)> =
            definitions.iter().filter(|(name, _)| !self.shapes.contains_key(name.as_str())).collect();
        let shapes: Vec<Arc<Shape>> = new.iter().map(|(name, _)| self.shape(name)).collect();
        for (shape, (name, definition)) in shapes.iter().zip(new) {
            let properties = definition.get("properties").and_then(Value::as_object);
            let fields = properties.into_iter().flatten();
            shape.fill(fields.map(|(field, schema)| self.field(name, field, schema)).collect());
        }
    }

    fn field(&mut self, definition: &str, name: &str, schema: &Value) -> Field {
        Field { name: self.name(name), kind: self.kind(schema), merge: facts::merge(definition, name) }
    }

    /// The shape of a definition, made empty if it is new.
    fn shape(&mut self, definition: &str) -> Arc<Shape> {
        if let Some(shape) = self.shapes.get(definition) {
            return Arc::clone(shape);
        }
        let name = self.name(definition);
        let shape = Arc::new(Shape::empty(Arc::clone(&name)));
        self.shapes.insert(name, Arc::clone(&shape));
        shape
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    fn kind(&mut self, schema: &Value) -> Type {
        let text = |field: &str| schema.get(field).and_then(Value::as_str).unwrap_or_default();
        if let Some(name) = text("$ref").strip_prefix(REFERENCE) {
            return self.referred(name);
        }
        match (text("type"), text("format")) {
            ("string", "byte") => Type::Bytes,
            ("string", "date-time") => Type::Time,
            ("string", _) => Type::String,
            ("integer", "int32") => Type::Int32,
            ("integer", _) => Type::Int64,
            ("number", _) => Type::Number,
            ("boolean", _) => Type::Boolean,
            ("array", _) => Type::List(Box::new(schema.get("items").map_or(Type::Any, |items| self.kind(items)))),
            ("object", _) => match schema.get("additionalProperties") {
                Some(values) if values.is_object() => Type::Map(Box::new(self.kind(values))),
                _ => Type::Any,
            },
            _ => Type::Any,
        }
    }

    /// Types that are one definition each, and those that say nothing of their contents.
    fn referred(&mut self, name: &str) -> Type {
        match name.rsplit('.').next().unwrap_or_default() {
            "Quantity" => Type::Quantity,
            "IntOrString" => Type::IntOrString,
            "Time" => Type::Time,
            "MicroTime" => Type::MicroTime,
            "FieldsV1"
            | "RawExtension"
            | "JSON"
            | "JSONSchemaPropsOrArray"
            | "JSONSchemaPropsOrBool"
            | "JSONSchemaPropsOrStringArray"
            | "Patch" => Type::Any,
            _ => Type::Object(self.shape(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    use super::*;

    fn child(shape: &Shape, field: &str) -> Arc<Shape> {
        match &shape.field(field).unwrap().kind {
            Type::Object(shape) => Arc::clone(shape),
            Type::List(items) => match &**items {
                Type::Object(shape) => Arc::clone(shape),
                other => panic!("{field} is a list of {other}"),
            },
            other => panic!("{field} is {other}"),
        }
    }

    #[test]
    fn a_deployments_shape_reaches_its_containers() {
        let shape = of(&Descriptor::of::<Deployment>());
        assert_eq!((shape.short_name(), shape.go_name()), ("Deployment", "v1.Deployment"));
        let container = ["spec", "template", "spec", "containers"].iter().fold(shape, |s, f| child(&s, f));
        assert_eq!(container.definition(), "io.k8s.api.core.v1.Container");
        assert_eq!(container.field("ports").unwrap().merge.unwrap().patch_merge_key, Some("containerPort"));
        assert_eq!(container.field("args").unwrap().kind.to_string(), "[]string");
        assert!(matches!(child(&container, "resources").field("limits").unwrap().kind, Type::Map(_)));
        assert!(container.field("nothing").is_none());
    }

    #[test]
    fn a_definition_has_one_shape_even_where_it_contains_itself() {
        let shape = of(&Descriptor::of::<CustomResourceDefinition>());
        let schema = child(&child(&child(&shape, "spec"), "versions"), "schema");
        let props = child(&schema, "openAPIV3Schema");
        assert!(Arc::ptr_eq(&props, &child(&props, "not")));
    }
}
