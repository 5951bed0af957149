//! Judging objects by their schema, with Kubernetes' messages.
//!
//! On an update a node that was invalid before and is unchanged passes, where the old value of the node is known: fields
//! by name, items of list maps by their keys. What must stay true: work is bounded by [`MAX_STEPS`], whatever the schema
//! and the object.

use serde_json::{Map, Number, Value};

use super::{Additional, Format, Kind, Limits, META_FIELDS, OldItems, Structural, lists};
use crate::field::{ErrorKind, ErrorList, FieldError, Path};

/// Nodes of schemas that one validation visits: a schema of many alternatives on a large object is refused, not endless.
pub const MAX_STEPS: usize = 1_000_000;
/// Errors of one node and those below it that are kept.
const MAX_ERRORS: usize = 100;

impl Structural {
    /// Judges a whole new object.
    pub fn validate(&self, object: &Value, errors: &mut ErrorList) {
        self.validate_at(object, None, &Path::default(), errors);
        lists::check(self, object, &Path::default(), errors);
    }

    /// Judges a whole object that replaces `old`.
    pub fn validate_update(&self, object: &Value, old: &Value, errors: &mut ErrorList) {
        self.validate_at(object, Some(old), &Path::default(), errors);
        let mut before = ErrorList::default();
        lists::check(self, old, &Path::default(), &mut before);
        if before.is_empty() {
            lists::check(self, object, &Path::default(), errors);
        }
    }

    pub(super) fn validate_at(&self, value: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
        let mut walk = Walk { steps: 0 };
        let found = walk.node(self, value, old, path, path.is_root());
        if walk.steps > MAX_STEPS {
            errors.forbidden(path, "the object takes too many steps to validate");
        }
        found.errors.into_iter().for_each(|error| errors.push(error));
    }
}

/// What was found of a node: nothing wrong, or errors; and how much was right, by which alternatives are compared.
#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
    right: usize,
}

impl Found {
    fn merge(&mut self, other: Self) {
        let room = MAX_ERRORS.saturating_sub(self.errors.len());
        self.errors.extend(other.errors.into_iter().take(room));
        self.right += other.right;
    }

    /// Where there are enough, one more says nothing.
    fn add(&mut self, kind: ErrorKind, path: &Path, message: impl FnOnce() -> String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError { kind, path: path.clone(), message: message() });
        }
    }

    /// `Invalid value: …: PATH in body WHAT`.
    fn invalid(&mut self, path: &Path, value: &Value, what: &str) {
        self.add(ErrorKind::Invalid, path, || format!("Invalid value: {value}: {} in body {what}", name(path)));
    }

    /// Counts a judgement, or tells why not.
    fn check(&mut self, holds: bool, path: &Path, value: &Value, what: impl FnOnce() -> String) {
        if holds {
            self.right += 1;
        } else {
            self.invalid(path, value, &what());
        }
    }
}

fn name(path: &Path) -> String {
    if path.is_root() { String::new() } else { path.to_string() }
}

struct Walk {
    steps: usize,
}

impl Walk {
    fn node(&mut self, schema: &Structural, value: &Value, old: Option<&Value>, path: &Path, root: bool) -> Found {
        self.steps += 1;
        let mut found = Found::default();
        if self.steps > MAX_STEPS {
            return found;
        }
        if !is_of_type(schema, value) {
            found.errors.push(wrong_type(schema, value, path));
        } else if !value.is_null() {
            found.right += 1;
            scalar(schema, value, path, &mut found);
            match value {
                Value::Object(map) => self.fields(schema, map, old, path, root, &mut found),
                Value::Array(list) => self.items(schema, list, old, path, &mut found),
                _ => {}
            }
            self.junctors(schema, value, path, &mut found);
        }
        enumeration(&schema.limits, value, path, &mut found);
        if !found.errors.is_empty() && old == Some(value) {
            found.errors.clear();
        }
        found
    }

    fn fields(
        &mut self,
        schema: &Structural,
        map: &Map<String, Value>,
        old: Option<&Value>,
        path: &Path,
        root: bool,
        found: &mut Found,
    ) {
        if schema.embedded_resource && !root {
            embedded(map, path, found);
        }
        count(map.len(), schema.limits.min_properties, schema.limits.max_properties, "properties", path, found);
        for (key, value) in map {
            let at = path.child(key);
            let below = match (schema.properties.get(key), &schema.additional) {
                (Some(property), _) => property,
                (None, Additional::Schema(values)) => values,
                (None, Additional::Denied) => {
                    let what = format!("{}.{key} in body is a forbidden property", name(path));
                    found.add(ErrorKind::Invalid, path, || format!("Invalid value: \"\": {what}"));
                    continue;
                }
                _ => continue,
            };
            // A change of apiVersion or kind cannot be seen: old and new are in the same version.
            let hidden = root && matches!(key.as_str(), "apiVersion" | "kind");
            let old = if hidden { None } else { old.and_then(|old| old.get(key)) };
            found.merge(self.node(below, value, old, &at, false));
        }
        for required in &schema.limits.required {
            if map.contains_key(required) {
                found.right += 1;
            } else {
                found.add(ErrorKind::Required, &path.child(required), || "Required value".to_owned());
            }
        }
    }

    fn items(&mut self, schema: &Structural, list: &[Value], old: Option<&Value>, path: &Path, found: &mut Found) {
        count(list.len(), schema.limits.min_items, schema.limits.max_items, "items", path, found);
        let Some(items) = schema.items() else { return };
        let old = OldItems::of(schema, old);
        for (index, item) in list.iter().enumerate() {
            if self.steps > MAX_STEPS {
                return;
            }
            found.merge(self.node(items, item, old.find(schema, item), &path.index(index), false));
        }
    }

    fn junctors(&mut self, schema: &Structural, value: &Value, path: &Path, found: &mut Found) {
        let Some(junctors) = &schema.junctors else { return };
        let quoted = format!("{:?}", name(path));
        let mut each = |list: &[Structural]| -> Vec<Found> {
            list.iter().map(|s| self.node(s, value, None, path, false)).collect()
        };
        if !junctors.any_of.is_empty() {
            let results = each(&junctors.any_of);
            if !results.iter().any(|r| r.errors.is_empty()) {
                composite(path, format!("{quoted} must validate at least one schema (anyOf)"), found);
                found.merge(best(results));
            }
        }
        if !junctors.one_of.is_empty() {
            let results = each(&junctors.one_of);
            let valid = results.iter().filter(|r| r.errors.is_empty()).count();
            if valid != 1 {
                let how = if valid == 0 {
                    "Found none valid".to_owned()
                } else {
                    format!("Found {valid} valid alternatives")
                };
                composite(path, format!("{quoted} must validate one and only one schema (oneOf). {how}"), found);
                if valid == 0 {
                    found.merge(best(results));
                }
            }
        }
        if !junctors.all_of.is_empty() {
            let results = each(&junctors.all_of);
            let valid = results.iter().filter(|r| r.errors.is_empty()).count();
            if valid != results.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                for result in results {
                    found.merge(result);
                }
                composite(path, format!("{quoted} must validate all the schemas (allOf){none}"), found);
            }
        }
        if let Some(not) = &junctors.not
            && self.node(not, value, None, path, false).errors.is_empty()
        {
            composite(path, format!("{quoted} must not validate the schema (not)"), found);
        }
    }
}

/// The alternative of which most was right.
fn best(results: Vec<Found>) -> Found {
    let mut results = results.into_iter();
    let first = results.next().unwrap_or_default();
    results.fold(first, |best, next| if next.right > best.right { next } else { best })
}

/// An error of a combination of schemas.
fn composite(path: &Path, what: String, found: &mut Found) {
    found.add(ErrorKind::Invalid, path, || format!("Invalid value: \"\": {what}"));
}

fn is_of_type(schema: &Structural, value: &Value) -> bool {
    match value {
        Value::Null => schema.nullable || (schema.kind.is_none() && !schema.int_or_string),
        _ if schema.int_or_string && schema.kind.is_none() => value.is_string() || is_integer(value),
        _ => match schema.kind {
            None => true,
            Some(Kind::Object) => value.is_object(),
            Some(Kind::Array) => value.is_array(),
            Some(Kind::String) => value.is_string(),
            Some(Kind::Boolean) => value.is_boolean(),
            Some(Kind::Number) => value.is_number(),
            Some(Kind::Integer) => is_integer(value),
        },
    }
}

/// A number without a fraction is an integer, however it is written.
fn is_integer(value: &Value) -> bool {
    value.as_number().is_some_and(|n| !n.is_f64() || n.as_f64().is_some_and(|f| f.fract() == 0.0 && f.is_finite()))
}

fn wrong_type(schema: &Structural, value: &Value, path: &Path) -> FieldError {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = schema.kind.map_or("integer,string", Kind::name);
    let message = format!("Invalid value: {is:?}: {} in body must be of type {wanted}: {is:?}", name(path));
    FieldError { kind: ErrorKind::TypeInvalid, path: path.clone(), message }
}

fn count(actual: usize, min: Option<u64>, max: Option<u64>, what: &str, path: &Path, found: &mut Found) {
    let number = u64::try_from(actual).unwrap_or(u64::MAX);
    if let Some(max) = max.filter(|max| number > *max) {
        found.add(ErrorKind::TooMany, path, || format!("Too many: {actual}: must have at most {max} items"));
    }
    if let Some(min) = min {
        found.check(number >= min, path, &number.into(), || format!("should have at least {min} {what}"));
    }
}

fn enumeration(limits: &Limits, value: &Value, path: &Path, found: &mut Found) {
    if limits.enumeration.is_empty() {
        return;
    }
    if limits.enumeration.iter().any(|allowed| same(allowed, value)) {
        found.right += 1;
        return;
    }
    found.add(ErrorKind::NotSupported, path, || {
        let quoted = |v: &Value| format!("{:?}", v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        let supported: Vec<String> = limits.enumeration.iter().map(quoted).collect();
        format!("Unsupported value: {value}: supported values: {}", supported.join(", "))
    });
}

/// Equality in which 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b).is_some_and(std::cmp::Ordering::is_eq),
        _ => a == b,
    }
}

fn compare(a: &Number, b: &Number) -> Option<std::cmp::Ordering> {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn scalar(schema: &Structural, value: &Value, path: &Path, found: &mut Found) {
    match value {
        Value::String(text) => string(&schema.limits, text, value, path, found),
        Value::Number(number) => numeric(schema, number, value, path, found),
        _ => {}
    }
}

fn string(limits: &Limits, text: &str, value: &Value, path: &Path, found: &mut Found) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(max) = limits.max_length.filter(|max| length > *max) {
        found.add(ErrorKind::TooLong, path, || format!("Too long: may not be more than {max} bytes"));
    }
    if let Some(min) = limits.min_length {
        found.check(length >= min, path, value, || format!("should be at least {min} chars long"));
    }
    if let Some(pattern) = &limits.pattern {
        found.check(pattern.regex.is_match(text), path, value, || format!("should match '{}'", pattern.source));
    }
    if let Some(format) = limits.format {
        let what = || format!("must be of type {}: {value}", format.name());
        found.check(format.accepts(text), path, value, what);
    }
}

fn numeric(schema: &Structural, number: &Number, value: &Value, path: &Path, found: &mut Found) {
    let limits = &schema.limits;
    in_range(schema.kind, limits.format, number, value, path, found);
    let whole = number.as_i64().is_some();
    if let Some(max) = &limits.maximum {
        let order = compare(number, max);
        let holds = order.is_some_and(|o| o.is_lt() || (o.is_eq() && !limits.exclusive_maximum));
        let how = if limits.exclusive_maximum { "less than" } else { "less than or equal to" };
        found.check(holds, path, value, || format!("should be {how} {}", bound(max, whole)));
    }
    if let Some(min) = &limits.minimum {
        let order = compare(number, min);
        let holds = order.is_some_and(|o| o.is_gt() || (o.is_eq() && !limits.exclusive_minimum));
        let how = if limits.exclusive_minimum { "greater than" } else { "greater than or equal to" };
        found.check(holds, path, value, || format!("should be {how} {}", bound(min, whole)));
    }
    if let Some(multiple) = &limits.multiple_of {
        let holds = is_multiple(number, multiple);
        found.check(holds, path, value, || format!("should be a multiple of {}", bound(multiple, whole)));
    }
}

fn is_multiple(number: &Number, multiple: &Number) -> bool {
    match (number.as_i64(), multiple.as_i64(), number.as_f64(), multiple.as_f64()) {
        (Some(n), Some(m), ..) => m > 0 && n.checked_rem(m) == Some(0),
        (_, _, Some(n), Some(m)) => {
            let ratio = n / m;
            m > 0.0 && (ratio - ratio.round()).abs() < 1e-9
        }
        _ => false,
    }
}

fn in_range(kind: Option<Kind>, format: Option<Format>, n: &Number, value: &Value, path: &Path, found: &mut Found) {
    let integer = n.as_i64();
    let holds = match (kind, format) {
        (Some(Kind::Integer), Some(Format::Int32)) => integer.is_some_and(|i| i32::try_from(i).is_ok()),
        (Some(Kind::Integer), _) => integer.is_some() || n.as_f64().is_some_and(|f| f.abs() < 9.3e18),
        (_, Some(Format::Float)) => n.as_f64().is_none_or(|f| f.abs() <= f64::from(f32::MAX)),
        _ => true,
    };
    if !holds {
        let kind = kind.map_or("number", Kind::name);
        let what = match format {
            Some(format) => format!("Checked value must be of type {kind} with format {} in {path}", format.name()),
            None => format!("Checked value must be of type {kind} (default format) in {path}"),
        };
        found.add(ErrorKind::Invalid, path, || format!("Invalid value: {value}: {what}"));
    }
}

/// A bound as Go prints it: a floating-point number unless the value is an integer.
fn bound(number: &Number, whole: bool) -> String {
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) if whole => integer.to_string(),
        (_, Some(float)) => crate::cel::text::double(float),
        _ => number.to_string(),
    }
}

/// An object within an object says what it is.
fn embedded(map: &Map<String, Value>, path: &Path, found: &mut Found) {
    for field in META_FIELDS {
        let at = path.child(field);
        match (field, map.get(field)) {
            ("metadata", None | Some(Value::Object(_))) => {}
            ("metadata", Some(other)) => {
                let what = format!("Invalid value: {other}: must be an object");
                found.add(ErrorKind::Invalid, &at, || what);
            }
            (_, Some(Value::String(text))) if !text.is_empty() => {}
            _ => found.add(ErrorKind::Required, &at, || "Required value: must not be empty".to_owned()),
        }
    }
}
