//! Binding: gives a pod its node, once. Admission judges the Binding; the change of the pod is the server's own.

use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::status::ApiError;

use crate::admission::Operation;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::WriteOptions;
use crate::server::verbs::update::modify_admitted;
use crate::server::{answer, metadata};

/// `/binding` of a pod.
pub(crate) async fn bind(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let (binding, options) = super::asked(call, body).await?;
    metadata::check_name(&binding, &call.info.name)?;
    let answered = run(call, &binding, &options).await?;
    answer::value(call.accepted, StatusCode::CREATED, &answered)
}

/// A Binding that is created beside the pod that it names.
pub(crate) async fn create(call: &mut Call, mut binding: Value, options: &WriteOptions) -> Result<Value, ServerError> {
    let name = object::name(&binding).to_owned();
    super::settle(call, &mut binding, &name, options.dry_run).await?;
    metadata::check_name(&binding, &name)?;
    call.info.name = name;
    run(call, &binding, options).await
}

/// Binds the pod that the call names, after admission.
async fn run(call: &mut Call, binding: &Value, options: &WriteOptions) -> Result<Value, ServerError> {
    let (node, name) = (target(binding)?, call.info.name.clone());
    call.admit(&call.admission(Operation::Create, &name, options.dry_run), Some(binding), None).await?;
    let pods = call.server.registry().by_plural("", "v1", "pods").cloned();
    call.resource = pods.ok_or_else(ApiError::no_such_path)?;
    modify_admitted(call, options, |pod| Ok(bound(pod, binding, &node, &name)?)).await?;
    Ok(super::done())
}

/// The node that a binding names. Error: 422.
fn target(binding: &Value) -> Result<String, ApiError> {
    let mut errors = ErrorList::default();
    let path = Path::new("target");
    let kind = object::text_at(binding, "target.kind");
    if !matches!(kind.as_str(), "" | "Node") {
        errors.not_supported(&path.child("kind"), &kind, &["Node", "<empty>"]);
    }
    let node = object::text_at(binding, "target.name");
    if node.is_empty() {
        errors.required(&path.child("name"), "");
    }
    if errors.is_empty() {
        return Ok(node);
    }
    Err(ApiError::invalid_of("", "Binding", object::name(binding), &errors))
}

/// The pod on its node. Error: 409 if it has one or is being deleted.
fn bound(pod: &Value, binding: &Value, node: &str, name: &str) -> Result<Value, ApiError> {
    let conflict = |why: String| {
        let mut error =
            ApiError::new(409, "Conflict", format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}"));
        name.clone_into(&mut error.details.name);
        "pods/binding".clone_into(&mut error.details.kind);
        error
    };
    let asked = object::uid(binding);
    if !asked.is_empty() && asked != object::uid(pod) {
        return Err(conflict(metadata::unmet("UID", asked, object::uid(pod))));
    }
    if object::is_deleting(pod) {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let assigned = object::text_at(pod, "spec.nodeName");
    if !assigned.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node {assigned:?}")));
    }
    if object::at(pod, "spec.schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty()) {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut pod = pod.clone();
    object::set_at(&mut pod, "spec.nodeName", node);
    for (key, value) in object::annotations(binding) {
        object::set_annotation(&mut pod, key, value);
    }
    for (key, value) in object::labels(binding) {
        object::set_label(&mut pod, key, value);
    }
    scheduled(&mut pod);
    Ok(pod)
}

/// Sets the condition `PodScheduled`.
fn scheduled(pod: &mut Value) {
    let mut conditions = object::at(pod, "status.conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|c| c.get("type") != Some(&json!("PodScheduled")));
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": object::format_time(Timestamp::now()),
    }));
    object::set_at(pod, "status.conditions", conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"metadata": {"annotations": {"a": "b"}}});
        let pod = bound(&json!({"metadata": {"name": "p"}}), &binding, "n1", "p").unwrap();
        assert_eq!(object::text_at(&pod, "spec.nodeName"), "n1");
        assert_eq!(pod.pointer("/status/conditions/0/type"), Some(&json!("PodScheduled")));
        let error = bound(&pod, &binding, "n2", "p").unwrap_err();
        assert_eq!(error.code, 409);
        assert_eq!(
            error.message,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
        );
    }
}
