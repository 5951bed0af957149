//! Dropping what a schema does not know.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Additional, META_FIELDS, Structural};
use crate::schema::object_meta;

impl Structural {
    /// Drops the fields of a whole object that this schema (its root) does not know. `apiVersion`, `kind` and `metadata`
    /// are kept, here and in embedded resources. Returns the paths of what was dropped, sorted (`spec.x`,
    /// `spec.list[0].y`); the first of them, where that is a lot.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Unknown::default();
        prune(object, Some(self), true, false, &mut String::new(), &mut unknown);
        unknown.paths.sort();
        unknown.paths
    }

    /// Like [`Structural::prune`], for a value that is not an object of its own.
    pub(super) fn prune_value(&self, value: &mut Value) -> Vec<String> {
        let mut unknown = Unknown::default();
        prune(value, Some(self), self.embedded_resource, false, &mut String::new(), &mut unknown);
        unknown.paths
    }
}

/// Paths that are told, and bytes of them after which no more are: a large object may have as many fields below a key as
/// long as itself.
const MAX_PATHS: usize = 1000;
const MAX_BYTES: usize = 64 * 1024;

/// What was dropped: the first paths.
#[derive(Default)]
struct Unknown {
    paths: Vec<String>,
    bytes: usize,
}

impl Unknown {
    fn push(&mut self, path: impl FnOnce() -> String) {
        if self.paths.len() < MAX_PATHS && self.bytes < MAX_BYTES {
            let path = path();
            self.bytes += path.len();
            self.paths.push(path);
        }
    }
}

/// `None` knows nothing. `keep`: what the schema does not know stays.
fn prune(
    value: &mut Value,
    schema: Option<&Structural>,
    whole: bool,
    keep: bool,
    path: &mut String,
    unknown: &mut Unknown,
) {
    let keep = keep || schema.is_some_and(|s| s.preserve_unknown_fields);
    match value {
        Value::Object(map) => fields(map, schema, whole, keep, path, unknown),
        Value::Array(list) => {
            let items = schema.and_then(Structural::items);
            if keep && items.is_none() {
                return;
            }
            for (index, item) in list.iter_mut().enumerate() {
                // What nobody describes is not followed through lists in lists: the walk is as deep as the schema.
                if items.is_none() && item.is_array() {
                    continue;
                }
                let length = path.len();
                // Writing to a String cannot fail.
                let _ = write!(path, "[{index}]");
                prune(item, items, items.is_some_and(|i| i.embedded_resource), keep, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Metadata of an embedded resource; those of the whole object are looked at with its kind.
fn embedded_metadata(value: &mut Value, path: &str, unknown: &mut Unknown) {
    let known = object_meta();
    let Value::Object(map) = value else { return };
    map.retain(|key, _| {
        let is_known = known.field(key).is_some();
        if !is_known {
            unknown.push(|| format!("{path}.metadata.{key}"));
        }
        is_known
    });
}

fn fields(
    map: &mut Map<String, Value>,
    schema: Option<&Structural>,
    whole: bool,
    keep: bool,
    path: &mut String,
    unknown: &mut Unknown,
) {
    let length = path.len();
    map.retain(|key, value| {
        if whole && META_FIELDS.contains(&key.as_str()) {
            if key == "metadata" && !path.is_empty() {
                embedded_metadata(value, path, unknown);
            }
            return true;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        let known = match schema {
            None => keep,
            Some(schema) => match (schema.properties.get(key), &schema.additional) {
                (Some(property), _) => {
                    prune(value, Some(property), property.embedded_resource, false, path, unknown);
                    true
                }
                (None, Additional::Schema(values)) => {
                    prune(value, Some(values), values.embedded_resource, false, path, unknown);
                    true
                }
                (None, Additional::Allowed | Additional::Denied) if !keep => {
                    prune(value, None, false, false, path, unknown);
                    true
                }
                _ => keep,
            },
        };
        if !known {
            unknown.push(|| path.clone());
        }
        path.truncate(length);
        known
    });
}
