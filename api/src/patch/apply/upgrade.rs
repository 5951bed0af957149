//! The way from client-side apply: `kubectl apply` keeps what it applied last in an annotation. When it applies on the
//! server's side for the first time, what that annotation says, and still is so, is no conflict; from then on the
//! annotation is kept up to date, so that the way back is open.

use serde_json::{Value, json};

use super::conflict::Conflicts;
use super::fields::FieldSet;
use super::owners::Writing;
use crate::object;

/// The manager for which all this is done.
pub(super) const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes that the annotation may have: what all annotations may have together.
const MAX: usize = crate::meta::ANNOTATIONS_MAX;

/// The conflicts that client-side apply does not explain.
pub(super) fn left(conflicts: &Conflicts, live: &Value, writing: &Writing<'_>) -> Conflicts {
    let allowed = object::annotation(live, LAST_APPLIED)
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .filter(|applied| {
            let kind = |object: &Value| (object::api_version(object).to_owned(), object::kind(object).to_owned());
            kind(applied) == kind(live)
        })
        .map_or_else(FieldSet::default, |applied| writing.same(&applied, live));
    let left = conflicts.0.iter().map(|(manager, fields)| (manager.clone(), fields.difference(&allowed)));
    Conflicts(left.filter(|(_, fields)| !fields.is_empty()).collect())
}

/// Writes the annotation, if the object has it.
pub(super) fn sync_last_applied(new: &mut Value, config: &Value) {
    if object::annotation(new, LAST_APPLIED).is_none() {
        return;
    }
    let mut applied = config.clone();
    if object::meta(&applied, "annotations").is_none() {
        object::set_meta(&mut applied, "annotations", json!({}));
    }
    object::remove_annotation(&mut applied, LAST_APPLIED);
    let text = format!("{applied}\n");
    if text.len() <= MAX {
        object::set_annotation(new, LAST_APPLIED, &text);
    } else {
        object::remove_annotation(new, LAST_APPLIED);
    }
}
