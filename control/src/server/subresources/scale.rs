//! Scale: `autoscaling/v1` Scale of anything with replicas, by the paths in its descriptor.

use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::resource::{Descriptor, ScalePaths};
use wherry_api::selector::LabelSelector;
use wherry_api::status::ApiError;

/// The Scale of an object.
pub(crate) fn show(paths: &ScalePaths, whole: &Value) -> Result<Value, ApiError> {
    let number =
        |path: &str| object::at(whole, path.trim_start_matches('.')).and_then(Value::as_i64).unwrap_or_default();
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {}, "spec": {}, "status": {"replicas": number(&paths.status_replicas)},
    });
    object::copy_meta(&mut scale, whole, &["name", "namespace", "uid", "resourceVersion", "creationTimestamp"]);
    let replicas = number(&paths.spec_replicas);
    if replicas != 0 {
        object::set_at(&mut scale, "spec.replicas", replicas);
    }
    if let Some(path) = &paths.selector
        && let Some(selector) = object::at(whole, path.trim_start_matches('.'))
    {
        object::set_at(&mut scale, "status.selector", selector_text(selector)?);
    }
    Ok(scale)
}

/// A selector in its string form; a map of texts is one of labels, as a ReplicationController's.
fn selector_text(selector: &Value) -> Result<String, ApiError> {
    match selector {
        Value::String(text) => Ok(text.clone()),
        Value::Object(labels) if labels.values().all(Value::is_string) => {
            Ok(LabelSelector::from_object(&json!({ "matchLabels": labels }))?.to_string())
        }
        other => Ok(LabelSelector::from_object(other)?.to_string()),
    }
}

/// The object with the replicas of a changed Scale.
pub(crate) fn write_back(
    resource: &Descriptor,
    paths: &ScalePaths,
    old: &Value,
    changed: &Value,
) -> Result<Value, ApiError> {
    if !matches!((object::kind(changed), object::api_version(changed)), ("Scale" | "", "autoscaling/v1" | "")) {
        return Err(ApiError::bad_request(format!(
            "cannot convert {} {} to autoscaling/v1 Scale",
            object::api_version(changed),
            object::kind(changed)
        )));
    }
    let path = Path::new("spec").child("replicas");
    let replicas = match object::at(changed, "spec.replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(|| {
            ApiError::bad_request(format!("spec.replicas of the Scale must be a number, not {value}"))
        })?,
    };
    if replicas < 0 {
        let mut errors = ErrorList::default();
        errors.invalid(&path, &json!(replicas), "must be greater than or equal to 0");
        return Err(ApiError::invalid(resource, object::name(old), &errors));
    }
    let mut new = super::with_preconditions(old, changed);
    object::set_at(&mut new, paths.spec_replicas.trim_start_matches('.'), replicas);
    Ok(new)
}
