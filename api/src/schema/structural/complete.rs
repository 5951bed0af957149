//! What a junctor says of a field must be a field of the structure outside of it.

use super::{Junctors, Structural};
use crate::field::{ErrorList, Path};

/// Judges a node and those below it.
pub(super) fn check(schema: &Structural, path: &Path, errors: &mut ErrorList) {
    if let Some(junctors) = &schema.junctors {
        within(junctors, schema, path, path, errors);
    }
    for (name, property) in &schema.properties {
        check(property, &path.child("properties").key(name), errors);
    }
    if let Some(values) = schema.values() {
        check(values, &path.child("additionalProperties"), errors);
    }
    if let Some(items) = schema.items() {
        check(items, &path.child("items"), errors);
    }
}

/// `outside` is the structure (at `skeleton`) that the junctors at `path` speak of.
fn within(junctors: &Junctors, outside: &Structural, skeleton: &Path, path: &Path, errors: &mut ErrorList) {
    for (field, list) in [("anyOf", &junctors.any_of), ("allOf", &junctors.all_of), ("oneOf", &junctors.one_of)] {
        for (index, schema) in list.iter().enumerate() {
            covered(schema, outside, skeleton, &path.child(field).index(index), errors);
        }
    }
    if let Some(not) = &junctors.not {
        covered(not, outside, skeleton, &path.child("not"), errors);
    }
}

fn covered(schema: &Structural, outside: &Structural, skeleton: &Path, path: &Path, errors: &mut ErrorList) {
    for (name, property) in &schema.properties {
        let (at, place) = (path.child("properties").key(name), skeleton.child("properties").key(name));
        match outside.properties.get(name) {
            Some(field) => covered(property, field, &place, &at, errors),
            None => errors.required(&place, &format!("because it is defined in {at}")),
        }
    }
    if let Some(items) = schema.items() {
        let (at, place) = (path.child("items"), skeleton.child("items"));
        match outside.items() {
            Some(outside) => covered(items, outside, &place, &at, errors),
            None => errors.required(&place, &format!("because it is defined in {at}")),
        }
    }
    if let Some(junctors) = &schema.junctors {
        within(junctors, outside, skeleton, path, errors);
    }
}
