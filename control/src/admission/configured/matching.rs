//! Whether a webhook or policy is about a request: rules and selectors.

use serde_json::Value;
use wherry_api::object;
use wherry_api::selector::LabelSelector;
use wherry_api::status::ApiError;

use super::super::Request;
use super::{Context, Objects, list, text};

/// Whether a request is what `rules`, `excludes` and the selectors of `constraints` are about. `rules` are
/// `RuleWithOperations`, with `resourceNames` in policies.
pub(super) fn matches(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    constraints: &Value,
    rules: &[Value],
) -> Result<bool, ApiError> {
    let equivalent = text(constraints, "matchPolicy") != "Exact";
    if !rules.is_empty() && !rules.iter().any(|rule| rule_matches(rule, request, equivalent)) {
        return Ok(false);
    }
    if list(constraints, "excludeResourceRules").iter().any(|rule| rule_matches(rule, request, equivalent)) {
        return Ok(false);
    }
    Ok(objects_match(constraints, objects)? && namespace_matches(context, request, objects, constraints)?)
}

fn has(rule: &Value, field: &str, wanted: &str) -> bool {
    list(rule, field).iter().any(|item| item == "*" || item == wanted)
}

fn rule_matches(rule: &Value, request: &Request<'_>, equivalent: bool) -> bool {
    let resource = request.resource;
    // The versions of a group are the same objects: a rule about one is about all, unless it is to be exact.
    let version = has(rule, "apiVersions", &resource.version)
        || (equivalent && list(rule, "resources").iter().any(|r| r.as_str().is_some_and(|r| !r.starts_with('*'))));
    // An object that has no namespace, a Namespace among them.
    let cluster = request.namespace.is_empty() || (resource.group.is_empty() && resource.plural == "namespaces");
    let scope = match text(rule, "scope") {
        "Namespaced" => !cluster,
        "Cluster" => cluster,
        _ => true,
    };
    let names = list(rule, "resourceNames");
    has(rule, "operations", request.operation.name())
        && has(rule, "apiGroups", &resource.group)
        && version
        && scope
        && list(rule, "resources").iter().any(|r| resource_matches(r.as_str().unwrap_or_default(), request))
        && (names.is_empty() || names.iter().any(|name| name == request.name))
}

/// `pods`, `pods/status`, `pods/*`, `*/scale`, `*`, `*/*`.
fn resource_matches(rule: &str, request: &Request<'_>) -> bool {
    let (resource, subresource) = rule.split_once('/').unwrap_or((rule, ""));
    let fits = |wanted: &str, is: &str| wanted == "*" || wanted == is;
    fits(resource, &request.resource.plural) && fits(subresource, request.subresource)
}

fn selector(constraints: &Value, field: &str) -> Result<Option<LabelSelector>, ApiError> {
    match constraints.get(field).filter(|s| s.as_object().is_some_and(|s| !s.is_empty())) {
        Some(selector) => LabelSelector::from_object(selector).map(Some),
        None => Ok(None),
    }
}

fn objects_match(constraints: &Value, objects: Objects<'_>) -> Result<bool, ApiError> {
    let Some(selector) = selector(constraints, "objectSelector")? else { return Ok(true) };
    Ok([objects.new, objects.old].into_iter().flatten().any(|object| selector.matches_object(object)))
}

fn namespace_matches(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    constraints: &Value,
) -> Result<bool, ApiError> {
    let Some(selector) = selector(constraints, "namespaceSelector")? else { return Ok(true) };
    if request.resource.group.is_empty() && request.resource.plural == "namespaces" {
        // A namespace is judged by its own labels.
        return Ok(objects.new.or(objects.old).is_some_and(|namespace| selector.matches_object(namespace)));
    }
    if request.namespace.is_empty() {
        return Ok(true);
    }
    match context.namespace(request.namespace) {
        Some(namespace) => Ok(selector.matches_object(&namespace)),
        None => {
            let mut error = ApiError::new(404, "NotFound", format!("namespaces {:?} not found", request.namespace));
            request.namespace.clone_into(&mut error.details.name);
            "namespaces".clone_into(&mut error.details.kind);
            Err(error)
        }
    }
}

/// The name that an object has or will have.
pub(super) fn name<'a>(request: &Request<'a>, objects: Objects<'a>) -> &'a str {
    if request.name.is_empty() { objects.new.map_or("", object::name) } else { request.name }
}
