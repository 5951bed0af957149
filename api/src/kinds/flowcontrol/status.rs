//! Conditions of both kinds: each type once.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, text};

pub(super) fn validate(object: &Value, errors: &mut ErrorList) {
    let conditions = list(object, "/status/conditions");
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = Path::new("status").child("conditions").index(index).child("type");
        let kind = text(condition, "/type");
        if !seen.insert(kind) {
            errors.duplicate(&path, &json!(kind));
        }
        if kind.is_empty() {
            errors.required(&path, "must not be empty");
        }
    }
}
