//! What expressions see of a schema: the declared type and greatest size of each node.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::types::{Field, Fields, ListKind, ListType, MAX_REQUEST, Object};
use super::{Decl, Type, escape};
use crate::schema::structural::{Format, Kind, ListType as SchemaListType, Structural};

/// `.spec.x` or `.map['key']`, if the schema has it; as a path of an object.
pub(super) fn field_path(text: &str, schema: &Structural) -> Option<String> {
    let mut schema = schema;
    let (mut rest, mut out) = (text, String::new());
    while !rest.is_empty() {
        let (name, tail) = if let Some(tail) = rest.strip_prefix("['") {
            let (name, tail) = tail.split_once("']")?;
            (name.replace("\\'", "'"), tail)
        } else {
            let tail = rest.strip_prefix('.')?;
            let (name, tail) = tail.split_at(tail.find(['.', '[']).unwrap_or(tail.len()));
            (name.to_owned(), tail)
        };
        if let Some(property) = schema.properties.get(&name) {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
            schema = property;
        } else {
            schema = schema.values()?;
            out.extend(["[", &name, "]"]);
        }
        rest = tail;
    }
    Some(out)
}

pub(super) fn property_decl(decl: &Decl, name: &str, property: &Structural) -> Option<Decl> {
    match (&decl.ty, escape::escape(name)) {
        (Type::Object(object), Some(escaped)) => object.field(&escaped).map(|field| field.decl),
        _ => decl_of(property, property.embedded_resource),
    }
}

/// The type of a node; `None`: expressions cannot see it. `whole`: it is an object with metadata.
pub(super) fn decl_of(schema: &Structural, whole: bool) -> Option<Decl> {
    if schema.int_or_string {
        return Some(Decl::sized(Type::Dyn, schema.limits.max_length.unwrap_or(MAX_REQUEST)));
    }
    let limits = &schema.limits;
    Some(match schema.kind? {
        Kind::Boolean => Type::Bool.into(),
        Kind::Integer => Type::Int.into(),
        Kind::Number => Type::Double.into(),
        Kind::String => {
            let of_enum = limits.enumeration.iter().filter_map(|v| v.as_str()).map(str::len).max();
            let most = of_enum.and_then(|n| u64::try_from(n).ok());
            let most = most.or(limits.max_length.map(|n| n.saturating_mul(4))).unwrap_or(MAX_REQUEST - 2);
            Decl::sized(string_type(limits.format), most)
        }
        Kind::Array => {
            let item = decl_of(schema.items()?, schema.items()?.embedded_resource)?;
            let most = limits.max_items.unwrap_or(MAX_REQUEST / (least(schema.items()?) + 1));
            let kind = match schema.list_type {
                Some(SchemaListType::Set) => ListKind::Set,
                Some(SchemaListType::Map) => ListKind::Map(schema.list_map_keys.clone()),
                _ => ListKind::Atomic,
            };
            Decl::sized(Type::List(Arc::new(ListType { item, kind })), most)
        }
        Kind::Object => object_decl(schema, whole)?,
    })
}

/// The type of a custom resource of this schema, whose metadata have this type.
pub fn of_resource(schema: &Structural, metadata: Decl) -> Decl {
    let Some(decl) = decl_of(schema, true) else { return Type::Dyn.into() };
    let Type::Object(Object::Fields(known)) = &decl.ty else { return decl };
    let mut fields = known.fields.clone();
    fields.insert("metadata".to_owned(), Field { name: "metadata".to_owned(), decl: metadata });
    Decl::sized(Type::Object(Object::Fields(Arc::new(Fields { name: known.name.clone(), fields }))), decl.max)
}

fn string_type(format: Option<Format>) -> Type {
    match format {
        Some(Format::Byte) => Type::Bytes,
        Some(Format::Duration) => Type::Duration,
        Some(Format::Date | Format::DateTime) => Type::Timestamp,
        _ => Type::String,
    }
}

fn object_decl(schema: &Structural, whole: bool) -> Option<Decl> {
    if let Some(values) = schema.values() {
        let value = decl_of(values, values.embedded_resource)?;
        let most = schema.limits.max_properties.unwrap_or(MAX_REQUEST / (least(values) + 6));
        return Some(Decl::sized(Type::map(Type::String, value), most));
    }
    let mut fields: BTreeMap<String, Field> = BTreeMap::new();
    for (name, property) in &schema.properties {
        if let (Some(escaped), Some(decl)) = (escape::escape(name), decl_of(property, property.embedded_resource)) {
            fields.insert(escaped, Field { name: name.clone(), decl });
        }
    }
    if whole {
        let text = || Decl::sized(Type::String, 253);
        let field = |name: &str, decl: Decl| Field { name: name.to_owned(), decl };
        for name in ["apiVersion", "kind"] {
            fields.insert(name.to_owned(), field(name, text()));
        }
        let of_metadata =
            ["name", "generateName"].map(|name| (name.to_owned(), field(name, text()))).into_iter().collect();
        let metadata = Fields { name: "ObjectMeta".to_owned(), fields: of_metadata };
        let metadata = Type::Object(Object::Fields(Arc::new(metadata)));
        fields.insert("metadata".to_owned(), field("metadata", metadata.into()));
    }
    let most = u64::try_from(fields.len()).unwrap_or(u64::MAX);
    Some(Decl::sized(Type::Object(Object::Fields(Arc::new(Fields { name: "object".to_owned(), fields }))), most))
}

/// The fewest bytes that a value takes in a request.
fn least(schema: &Structural) -> u64 {
    match schema.kind {
        Some(Kind::Integer | Kind::Number) => 1,
        Some(Kind::Boolean) => 4,
        Some(Kind::Object) => {
            let required = schema.limits.required.iter().filter_map(|name| Some((name, schema.properties.get(name)?)));
            required.map(|(name, p)| u64::try_from(name.len()).unwrap_or(0) + least(p) + 4).sum::<u64>() + 2
        }
        _ => 2 + schema.limits.min_length.unwrap_or_default(),
    }
}
