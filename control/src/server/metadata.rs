//! The part of `metadata` that the server writes, the same for every kind.

use jiff::Timestamp;
use serde_json::Value;
use wherry_api::resource::{Descriptor, WRITABLE_METADATA};
use wherry_api::status::ApiError;
use wherry_api::strategy::Part;
use wherry_api::{meta, object};

use super::request::RequestInfo;
use crate::uuid;

/// What an update cannot change: it is carried over.
const KEPT: [&str; 7] = [
    "name",
    "namespace",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
];

/// Brings the namespace of an object and of its request together. Error: 400 if they differ.
pub(crate) fn settle_namespace(resource: &Descriptor, object: &mut Value, info: &RequestInfo) -> Result<(), ApiError> {
    if !resource.namespaced() {
        return Ok(());
    }
    let own = object::namespace(object);
    if own.is_empty() {
        object::set_meta(object, "namespace", info.namespace.as_str());
    } else if own != info.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({own} != {})",
            info.namespace
        )));
    }
    Ok(())
}

/// Error: 400 if an object's name is not the one in the URL.
pub(crate) fn check_name(object: &Value, name: &str) -> Result<(), ApiError> {
    match object::name(object) {
        own if own == name => Ok(()),
        "" => Err(ApiError::bad_request("the name of the object must be provided")),
        own => Err(ApiError::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        ))),
    }
}

/// Why a write of `asked` is refused where there is another one: what Kubernetes says of a `UID` or a `ResourceVersion`.
pub(crate) fn unmet(what: &str, asked: &str, is: &str) -> String {
    format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}")
}

/// Metadata that is empty is as good as absent: Kubernetes writes neither.
fn drop_empty(object: &mut Value) {
    for field in WRITABLE_METADATA {
        let empty = match object::meta(object, field) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => false,
        };
        if empty {
            object::remove_meta(object, field);
        }
    }
}

/// Writes what only the server writes on a create. The name may still be missing, if it is to be generated.
pub(crate) fn prepare_create(resource: &Descriptor, object: &mut Value, now: Timestamp) {
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        object::remove_meta(object, field);
    }
    drop_empty(object);
    object::set_meta(object, "uid", uuid::random());
    object::set_meta(object, "creationTimestamp", object::format_time(now));
    if resource.generation {
        object::set_generation(object, 1);
    } else {
        object::remove_meta(object, "generation");
    }
    if resource.has_status()
        && !resource.strategy.created_with_status()
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
}

/// Carries over from `old` what an update may not change, and keeps main part and status apart.
pub(crate) fn prepare_update(resource: &Descriptor, new: &mut Value, old: &Value, part: Part) {
    object::copy_meta(new, old, &KEPT);
    object::remove_meta(new, "selfLink");
    drop_empty(new);
    match part {
        Part::Main if resource.has_status() => copy_field(new, old, "status"),
        // What else such a path may not change is the strategy's to know.
        Part::Main | Part::Named(_) => {}
        Part::Status => keep_all_but_status(resource, new, old),
    }
}

/// An update of the status changes the status and, as in Kubernetes, what of the metadata the kind does not keep from it.
pub(crate) fn keep_all_but_status(resource: &Descriptor, new: &mut Value, old: &Value) {
    object::copy_meta(new, old, resource.status_keeps);
    let fields: Vec<String> =
        [&*new, old].into_iter().filter_map(Value::as_object).flat_map(|m| m.keys()).cloned().collect();
    for field in fields.iter().filter(|f| !matches!(f.as_str(), "status" | "metadata" | "apiVersion" | "kind")) {
        copy_field(new, old, field);
    }
}

fn copy_field(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// Counts a change of anything but metadata and status in `metadata.generation`, unless the kind's strategy has.
pub(crate) fn count_generation(resource: &Descriptor, new: &mut Value, old: &Value) {
    if !resource.generation || object::generation(new) > object::generation(old) {
        return;
    }
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return };
    let counted = |key: &&String| match key.as_str() {
        "metadata" | "apiVersion" | "kind" => false,
        // Without a path of its own the status is written like everything else.
        "status" => !resource.has_status(),
        _ => true,
    };
    let changed = a.keys().chain(b.keys()).filter(counted).any(|key| !meta::same(a.get(key), b.get(key)));
    if changed {
        object::set_generation(new, object::generation(old).saturating_add(1));
    }
}
