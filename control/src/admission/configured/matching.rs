//! Whether a webhook or policy is about a request: rules and selectors.

use std::sync::Arc;

use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::selector::LabelSelector;
use wherry_api::status::ApiError;

use super::super::Request;
use super::equivalent::As;
use super::{Context, Objects, list, text};

/// As what a request is what `rules`, `excludes` and the selectors of `constraints` are about; `None`: it is not. `rules` are
/// `RuleWithOperations`, with `resourceNames` in policies.
pub(super) fn matches(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    constraints: &Value,
    rules: &[Value],
) -> Result<Option<As>, ApiError> {
    let mut seen = As::Requested;
    if !rules.is_empty() {
        match named_by(context, request, constraints, rules) {
            Some(named) => seen = named,
            None => return Ok(None),
        }
    }
    if named_by(context, request, constraints, list(constraints, "excludeResourceRules")).is_some() {
        return Ok(None);
    }
    let selected = objects_match(constraints, objects)? && namespace_matches(context, request, objects, constraints)?;
    Ok(selected.then_some(seen))
}

/// As what one of the rules names a request: as its own kind, or (unless it is to be exact) as another of the same objects.
fn named_by(context: &Context, request: &Request<'_>, constraints: &Value, rules: &[Value]) -> Option<As> {
    let named = |resource: &Descriptor| rules.iter().any(|rule| rule_matches(rule, request, resource));
    if named(request.resource) {
        return Some(As::Requested);
    }
    let stored = request.resource.storage_resource();
    if rules.is_empty() || text(constraints, "matchPolicy") == "Exact" {
        return None;
    }
    let registry = (context.kinds.0)();
    let mut same = registry.iter().filter(|other| other.storage_resource() == stored);
    same.find(|other| named(other)).map(|other| As::Other(Arc::clone(other)))
}

fn has(rule: &Value, field: &str, wanted: &str) -> bool {
    list(rule, field).iter().any(|item| item == "*" || item == wanted)
}

fn rule_matches(rule: &Value, request: &Request<'_>, resource: &Descriptor) -> bool {
    // An object that has no namespace, a Namespace among them.
    let cluster = request.namespace.is_empty() || resource.is("", "namespaces");
    let scope = match text(rule, "scope") {
        "Namespaced" => !cluster,
        "Cluster" => cluster,
        _ => true,
    };
    let names = list(rule, "resourceNames");
    has(rule, "operations", request.operation.name())
        && has(rule, "apiGroups", &resource.group)
        && has(rule, "apiVersions", &resource.version)
        && scope
        && list(rule, "resources").iter().any(|r| resource_matches(r.as_str().unwrap_or_default(), request, resource))
        && (names.is_empty() || names.iter().any(|name| name == request.name))
}

/// `pods`, `pods/status`, `pods/*`, `*/scale`, `*`, `*/*`.
fn resource_matches(rule: &str, request: &Request<'_>, resource: &Descriptor) -> bool {
    let (plural, subresource) = rule.split_once('/').unwrap_or((rule, ""));
    let fits = |wanted: &str, is: &str| wanted == "*" || wanted == is;
    fits(plural, &resource.plural) && fits(subresource, request.subresource)
}

fn selector(constraints: &Value, field: &str) -> Result<Option<LabelSelector>, ApiError> {
    match constraints.get(field).filter(|s| s.as_object().is_some_and(|s| !s.is_empty())) {
        Some(selector) => LabelSelector::from_object(selector).map(Some),
        None => Ok(None),
    }
}

fn objects_match(constraints: &Value, objects: Objects<'_>) -> Result<bool, ApiError> {
    let Some(selector) = selector(constraints, "objectSelector")? else { return Ok(true) };
    // Options of a connection have no labels, not even none: no selector selects them.
    let labelled = [objects.new, objects.old].into_iter().flatten().filter(|object| object.get("metadata").is_some());
    Ok(labelled.into_iter().any(|object| selector.matches_object(object)))
}

fn namespace_matches(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    constraints: &Value,
) -> Result<bool, ApiError> {
    let Some(selector) = selector(constraints, "namespaceSelector")? else { return Ok(true) };
    if request.resource.is("", "namespaces") {
        // A namespace is judged by its own labels.
        return Ok(objects.new.or(objects.old).is_some_and(|namespace| selector.matches_object(namespace)));
    }
    if request.namespace.is_empty() {
        return Ok(true);
    }
    match context.namespace(request.namespace) {
        Some(namespace) => Ok(selector.matches_object(&namespace)),
        None => Err(ApiError::missing(&GroupResource::new("", "namespaces"), request.namespace)),
    }
}

/// The name that an object has or will have.
pub(super) fn name<'a>(request: &Request<'a>, objects: Objects<'a>) -> &'a str {
    if request.name.is_empty() { objects.new.map_or("", object::name) } else { request.name }
}
