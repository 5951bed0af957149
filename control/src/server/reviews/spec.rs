//! Whether an access review asks something, as Kubernetes judges it.

use serde_json::Value;
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

/// Error: 422. `namespace` is that of the request, empty for a review of the whole cluster.
pub(super) fn check(resource: &Descriptor, review: &Value, namespace: &str) -> Result<(), ApiError> {
    let mut errors = ErrorList::default();
    let path = Path::new("spec");
    let spec = review.get("spec").unwrap_or(&Value::Null);
    let part = |field: &str| spec.get(field).filter(|value| !value.is_null());
    let (of_resource, other) = (part("resourceAttributes"), part("nonResourceAttributes"));
    match (of_resource, other) {
        (Some(_), Some(other)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.invalid(&path.child("nonResourceAttributes"), other, why);
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(&path.child("resourceAttributes"), &Value::Null, why);
        }
        _ => {}
    }
    for field in ["fieldSelector", "labelSelector"] {
        let attributes = of_resource.unwrap_or(&Value::Null);
        super::selectors::check(attributes, field, &path.child("resourceAttributes"), &mut errors);
    }
    let mine = resource.plural.starts_with("self");
    let groups = part("groups").and_then(Value::as_array).is_some_and(|groups| !groups.is_empty());
    if !mine && !groups && object::text_at(spec, "user").is_empty() {
        errors.invalid(&path.child("user"), &"".into(), "at least one of user or group must be specified");
    }
    check_metadata(review, &mut errors);
    if resource.namespaced() {
        let asked = of_resource.map(|attributes| object::text_at(attributes, "namespace"));
        if let Some(asked) = asked.filter(|asked| asked != namespace) {
            let why = "must match metadata.namespace";
            errors.invalid(&path.child("resourceAttributes").child("namespace"), &asked.into(), why);
        }
        if let Some(other) = other {
            let why = "disallowed on this kind of request";
            errors.invalid(&path.child("nonResourceAttributes"), other, why);
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(resource, "", &errors)) }
}

/// A question has no name.
fn check_metadata(review: &Value, errors: &mut ErrorList) {
    let is_set = |(field, value): &(&String, &Value)| {
        let empty = value.is_null() || *value == "" || value.as_object().is_some_and(serde_json::Map::is_empty);
        !empty && !matches!(field.as_str(), "managedFields" | "namespace")
    };
    let metadata = review.get("metadata").and_then(Value::as_object);
    if let Some(metadata) = metadata.filter(|metadata| metadata.iter().any(|field| is_set(&field))) {
        errors.invalid(&Path::new("metadata"), &Value::Object(metadata.clone()), "must be empty");
    }
}
