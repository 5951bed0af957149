//! From the JSON of an `openAPIV3Schema` to a [`Structural`], with Kubernetes' rules for what such a schema may say.
//!
//! What must stay true: one pass over the tree, at most [`MAX_DEPTH`] levels deep; everything that is wrong is told, with
//! the path that Kubernetes gives (`….properties[spec].items`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::pattern::Patterns;
use super::{
    Additional, Format, Junctors, Kind, Limits, ListType, MAX_DEPTH, META_FIELDS, Pattern, Rule, Structural, check,
    complete,
};
use crate::field::{ErrorList, Path};

/// Parts of JSON schema that Kubernetes does not take.
const UNSUPPORTED: [&str; 6] = ["$ref", "additionalItems", "definitions", "dependencies", "id", "patternProperties"];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Parses a schema found at `path` (`spec.versions[0].schema.openAPIV3Schema`) and judges it: it must be structural, its
/// patterns must be regular expressions, its defaults valid and pruned. Rules in CEL are kept as they are.
pub fn parse(schema: &Value, path: &Path, errors: &mut ErrorList) -> Structural {
    let mut found = ErrorList::default();
    let parsed = node(schema, path, &Place { root: true, ..Place::default() }, &mut found);
    check::invariants(&parsed, check::Level::Root, path, &mut found);
    complete::check(&parsed, path, &mut found);
    // A default is judged by a schema that makes sense only.
    if found.is_empty() {
        check::defaults(&parsed, path, true, &mut found);
    }
    (&found).into_iter().cloned().for_each(|error| errors.push(error));
    parsed
}

/// Where a node is.
#[derive(Clone, Default)]
struct Place {
    depth: usize,
    root: bool,
    /// Under a junctor: value validation only.
    nested: bool,
    /// Within `apiVersion`, `kind` or `metadata` of an object.
    in_meta: bool,
    /// Why there may be no default here.
    no_default: Option<String>,
    /// Of the whole schema.
    patterns: Rc<RefCell<Patterns>>,
}

impl Place {
    fn deeper(&self) -> Self {
        Self { depth: self.depth + 1, root: false, ..self.clone() }
    }
}

fn node(schema: &Value, path: &Path, place: &Place, errors: &mut ErrorList) -> Structural {
    let Some(map) = schema.as_object() else { return Structural::default() };
    if place.depth > MAX_DEPTH {
        errors.forbidden(path, &format!("schemas may not nest deeper than {MAX_DEPTH} levels"));
        return Structural::default();
    }
    let read = Reader { map, path, place };
    read.refuse_unsupported(errors);
    if place.nested {
        read.refuse_structure(errors);
    }
    Structural {
        kind: read.kind(errors),
        nullable: read.flag("nullable"),
        default: read.default(errors),
        properties: read.properties(errors),
        additional: read.additional(errors),
        items: read.items(errors),
        preserve_unknown_fields: read.preserve_unknown_fields(errors),
        int_or_string: read.flag("x-kubernetes-int-or-string"),
        embedded_resource: read.embedded_resource(errors),
        list_type: read.list_type(errors),
        list_map_keys: strings(map.get("x-kubernetes-list-map-keys")),
        atomic_map: read.atomic_map(errors),
        rules: read.rules(errors),
        limits: read.limits(errors),
        junctors: read.junctors(errors),
    }
}

struct Reader<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    place: &'a Place,
}

impl Reader<'_> {
    fn flag(&self, field: &str) -> bool {
        self.map.get(field).and_then(Value::as_bool).unwrap_or_default()
    }

    fn text(&self, field: &str) -> &str {
        self.map.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn refuse_unsupported(&self, errors: &mut ErrorList) {
        for field in UNSUPPORTED {
            let set = match self.map.get(field) {
                None | Some(Value::Null) => false,
                Some(Value::Object(map)) => !map.is_empty() || field == "dependencies",
                Some(Value::String(text)) => !text.is_empty() || field == "$ref",
                Some(_) => true,
            };
            if set {
                errors.forbidden(&self.path.child(field), &format!("{field} is not supported"));
            }
        }
        if self.map.get("items").is_some_and(Value::is_array) {
            errors.forbidden(&self.path.child("items"), "items must be a schema object and not an array");
        }
        if self.flag("uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            errors.forbidden(&self.path.child("uniqueItems"), why);
        }
    }

    /// Under a junctor nothing may be said of the structure.
    fn refuse_structure(&self, errors: &mut ErrorList) {
        let mut forbid = |field: &str, set: bool, must: &str| {
            if set {
                errors.forbidden(&self.path.child(field), &format!("must be {must} to be structural"));
            }
        };
        // The two halves of an int-or-string are the exception; `check` knows where they may stand.
        forbid("default", self.map.get("default").is_some_and(|d| !d.is_null()), "undefined");
        forbid("additionalProperties", self.map.contains_key("additionalProperties"), "undefined");
        forbid("title", !self.text("title").is_empty(), "empty");
        forbid("description", !self.text("description").is_empty(), "empty");
        forbid("nullable", self.flag("nullable"), "false");
        forbid("externalDocs", self.map.get("externalDocs").is_some_and(Value::is_object), "undefined");
        for field in
            ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"]
        {
            forbid(field, self.flag(field), "false");
        }
        for (field, must) in [
            ("x-kubernetes-list-map-keys", "empty"),
            ("x-kubernetes-list-type", "undefined"),
            ("x-kubernetes-map-type", "undefined"),
            ("x-kubernetes-validations", "empty"),
        ] {
            let set = self.map.get(field).is_some_and(|v| v.as_array().is_none_or(|list| !list.is_empty()));
            forbid(field, set, must);
        }
    }

    fn kind(&self, errors: &mut ErrorList) -> Option<Kind> {
        let path = self.path.child("type");
        match self.text("type") {
            "" => None,
            "object" => Some(Kind::Object),
            "array" => Some(Kind::Array),
            "string" => Some(Kind::String),
            "integer" => Some(Kind::Integer),
            "number" => Some(Kind::Number),
            "boolean" => Some(Kind::Boolean),
            "null" => {
                errors.not_supported(&path, "null", &TYPES);
                errors.forbidden(&path, "type cannot be set to null, use nullable as an alternative");
                None
            }
            other => {
                errors.not_supported(&path, other, &TYPES);
                None
            }
        }
    }

    fn default(&self, errors: &mut ErrorList) -> Option<Value> {
        let default = self.map.get("default").filter(|d| !d.is_null())?;
        if let Some(reason) = &self.place.no_default {
            errors.forbidden(&self.path.child("default"), format!("must not be set {reason}").trim_end());
        }
        Some(default.clone())
    }

    fn properties(&self, errors: &mut ErrorList) -> BTreeMap<String, Structural> {
        let properties = self.map.get("properties").and_then(Value::as_object);
        let mut parsed = BTreeMap::new();
        let whole = self.place.root || self.flag("x-kubernetes-embedded-resource");
        for (name, schema) in properties.into_iter().flatten() {
            let mut place = self.place.deeper();
            if whole && META_FIELDS.contains(&name.as_str()) {
                place.in_meta = true;
                if self.place.root {
                    place.no_default = Some(format!("in top-level {name}"));
                }
            }
            let path = self.path.child("properties").key(name);
            parsed.insert(name.clone(), node(schema, &path, &place, errors));
        }
        parsed
    }

    fn additional(&self, errors: &mut ErrorList) -> Additional {
        let path = self.path.child("additionalProperties");
        let (parsed, exclusive) = match self.map.get("additionalProperties") {
            Some(Value::Bool(true)) => (Additional::Allowed, false),
            Some(Value::Bool(false)) => (Additional::Denied, true),
            Some(schema @ Value::Object(_)) => {
                let mut place = self.place.deeper();
                if place.in_meta {
                    place.no_default = Some("inside additionalProperties applying to object metadata".to_owned());
                }
                (Additional::Schema(Box::new(node(schema, &path, &place, errors))), true)
            }
            _ => (Additional::Unset, false),
        };
        let described = self.map.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty());
        if exclusive && described {
            errors.forbidden(&path, "additionalProperties and properties are mutual exclusive");
        }
        parsed
    }

    fn items(&self, errors: &mut ErrorList) -> Option<Box<Structural>> {
        let schema = self.map.get("items").filter(|items| items.is_object())?;
        Some(Box::new(node(schema, &self.path.child("items"), &self.place.deeper(), errors)))
    }

    fn preserve_unknown_fields(&self, errors: &mut ErrorList) -> bool {
        let field = "x-kubernetes-preserve-unknown-fields";
        if self.map.get(field) == Some(&Value::Bool(false)) {
            errors.invalid(&self.path.child(field), &Value::Bool(false), "must be true or undefined");
        }
        self.flag(field)
    }

    fn embedded_resource(&self, errors: &mut ErrorList) -> bool {
        let field = "x-kubernetes-embedded-resource";
        if self.flag(field) && self.place.in_meta {
            errors.forbidden(&self.path.child(field), "must not be used inside of resource meta");
        }
        self.flag(field)
    }

    fn list_type(&self, errors: &mut ErrorList) -> Option<ListType> {
        let field = "x-kubernetes-list-type";
        match self.map.get(field)?.as_str()? {
            "atomic" => Some(ListType::Atomic),
            "set" => Some(ListType::Set),
            "map" => Some(ListType::Map),
            other => {
                errors.not_supported(&self.path.child(field), other, &["atomic", "set", "map"]);
                None
            }
        }
    }

    fn atomic_map(&self, errors: &mut ErrorList) -> bool {
        let field = "x-kubernetes-map-type";
        let Some(value) = self.map.get(field).and_then(Value::as_str) else { return false };
        check::must_be(self.text("type"), "object", field, self.path, errors);
        if !matches!(value, "atomic" | "granular") {
            errors.not_supported(&self.path.child(field), value, &["atomic", "granular"]);
        }
        value == "atomic"
    }

    fn rules(&self, errors: &mut ErrorList) -> Vec<Rule> {
        let list = self.map.get("x-kubernetes-validations").and_then(Value::as_array);
        let path = self.path.child("x-kubernetes-validations");
        let rules: Vec<Rule> = list.into_iter().flatten().map(rule).collect();
        for (index, rule) in rules.iter().enumerate() {
            check::rule(rule, &path.index(index), errors);
        }
        rules
    }

    fn limits(&self, errors: &mut ErrorList) -> Limits {
        let number = |field: &str| self.map.get(field).and_then(Value::as_number).cloned();
        let count = |field: &str| self.map.get(field).and_then(Value::as_u64);
        Limits {
            format: Format::of(self.text("type"), self.text("format")),
            maximum: number("maximum"),
            exclusive_maximum: self.flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: self.flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: self.pattern(errors),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: strings(self.map.get("required")),
            enumeration: self.map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        }
    }

    fn pattern(&self, errors: &mut ErrorList) -> Option<Pattern> {
        let source = self.text("pattern");
        if source.is_empty() {
            return None;
        }
        match self.place.patterns.borrow_mut().compile(source) {
            Ok(regex) => Some(Pattern { source: source.to_owned(), regex }),
            Err(error) => {
                let why = format!("must be a valid regular expression, but isn't: {error}");
                errors.invalid(&self.path.child("pattern"), &Value::from(source), &why);
                None
            }
        }
    }

    fn junctors(&self, errors: &mut ErrorList) -> Option<Box<Junctors>> {
        let place = Place { nested: true, ..self.place.deeper() };
        let mut list = |field: &str| -> Vec<Structural> {
            let schemas = self.map.get(field).and_then(Value::as_array).into_iter().flatten().enumerate();
            schemas.map(|(i, schema)| node(schema, &self.path.child(field).index(i), &place, errors)).collect()
        };
        let (all_of, any_of, one_of) = (list("allOf"), list("anyOf"), list("oneOf"));
        let not = self.map.get("not").filter(|not| not.is_object());
        let not = not.map(|schema| node(schema, &self.path.child("not"), &place, errors));
        let none = all_of.is_empty() && any_of.is_empty() && one_of.is_empty() && not.is_none();
        (!none).then(|| Box::new(Junctors { all_of, any_of, one_of, not }))
    }
}

fn rule(value: &Value) -> Rule {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    Rule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional_old_self: value.get("optionalOldSelf").and_then(Value::as_bool),
    }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
