//! What validating and mutating policies share: which bindings are about a request, and with which parameters.

use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;
use wherry_api::selector::LabelSelector;
use wherry_api::status::ApiError;

use super::super::Request;
use super::environment::{Environment, conditions_hold};
use super::equivalent::{View, Views};
use super::{Context, Objects, ignores_failure, list, matching, text};

/// One evaluation that is due: a policy, a binding of it, and one object of parameters.
pub(super) struct Due {
    pub(super) policy: Value,
    pub(super) binding: Value,
    pub(super) params: Value,
    /// What the policy is shown of the request.
    pub(super) view: View,
}

/// Everything that policies of these kinds have to say of a request. Errors: a policy that is about the request cannot be
/// evaluated, as its failure policy says.
pub(super) async fn due(
    context: &Context,
    request: &Request<'_>,
    objects: Objects<'_>,
    policies: &'static str,
    bindings: &'static str,
) -> Result<Vec<Due>, ApiError> {
    let bindings = context.registered(bindings);
    if bindings.is_empty() {
        return Ok(Vec::new());
    }
    let (mut due, mut views) = (Vec::new(), Views::default());
    for policy in context.registered(policies).iter() {
        let spec = policy.get("spec").unwrap_or(&Value::Null);
        let constraints = spec.get("matchConstraints").unwrap_or(&Value::Null);
        let rules = list(constraints, "resourceRules");
        if rules.is_empty() {
            continue;
        }
        let Some(seen) = matching::matches(context, request, objects, constraints, rules)? else { continue };
        for binding in bindings.iter().filter(|b| object::text_at(b, "spec.policyName") == object::name(policy)) {
            let resources = object::at(binding, "spec.matchResources").unwrap_or(&Value::Null);
            if matching::matches(context, request, objects, resources, list(resources, "resourceRules"))?.is_none() {
                continue;
            }
            let view = views.get(request, objects, seen.clone()).await?;
            match params(context, request, spec, binding) {
                Ok(all) => due.extend(all.into_iter().map(|params| Due {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    params,
                    view: view.clone(),
                })),
                Err(_) if ignores_failure(spec) => {}
                Err(why) => {
                    return Err(refusal(request, objects, policy, binding, &why, "Invalid"));
                }
            }
        }
    }
    Ok(due)
}

/// `KIND "NAME" is forbidden: POLICYKIND 'p' with binding 'b' denied request: why`.
pub(super) fn refusal(
    request: &Request<'_>,
    objects: Objects<'_>,
    policy: &Value,
    binding: &Value,
    why: &str,
    reason: &str,
) -> ApiError {
    let kind = object::kind(policy);
    let text =
        format!("{kind} '{}' with binding '{}' denied request: {why}", object::name(policy), object::name(binding));
    let error = ApiError::forbidden(request.resource, matching::name(request, objects), text);
    let (code, reason) = match reason {
        "Unauthorized" => (401, "Unauthorized"),
        "Forbidden" => (403, "Forbidden"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    ApiError { code, reason: reason.into(), ..error }
}

/// The objects of parameters that a binding names; one null if it names none.
fn params(context: &Context, request: &Request<'_>, spec: &Value, binding: &Value) -> Result<Vec<Value>, String> {
    let kind = spec.get("paramKind").filter(|k| k.is_object());
    let reference = object::at(binding, "spec.paramRef").filter(|r| r.is_object());
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![Value::Null]) };
    let (api_version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
    let registry = (context.kinds.0)();
    let resource = registry.by_kind(api_version, kind).ok_or_else(|| {
        format!(
            "failed to configure policy: failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'"
        )
    })?;
    let own = text(reference, "namespace");
    let namespace = match (resource.namespaced(), own) {
        (false, _) => "",
        (true, "") if request.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => request.namespace,
        (true, own) => own,
    };
    let found = named(context, &resource.group_resource(), namespace, reference)?;
    if found.is_empty() && text(reference, "parameterNotFoundAction") != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

fn named(context: &Context, kind: &GroupResource, namespace: &str, reference: &Value) -> Result<Vec<Value>, String> {
    let name = text(reference, "name");
    if !name.is_empty() {
        return Ok(context.find(kind, namespace, name).into_iter().collect());
    }
    let selector = reference.get("selector").unwrap_or(&Value::Null);
    let selector = LabelSelector::from_object(selector).map_err(|error| error.message)?;
    let all = context.cache.all(kind, namespace);
    let trees = all.iter().filter_map(|entry| entry.read::<Value>().ok());
    Ok(trees.filter(|tree| selector.matches_object(tree)).collect())
}

impl Due {
    pub(super) fn spec(&self) -> &Value {
        self.policy.get("spec").unwrap_or(&Value::Null)
    }

    /// Which evaluation of the request this is.
    pub(super) fn id(&self) -> String {
        let place = object::namespace(&self.params);
        format!("{}/{}/{place}/{}", object::name(&self.policy), object::name(&self.binding), object::name(&self.params))
    }

    /// The environment of this evaluation; `None`: the policy's conditions do not hold. Error: why they cannot be told.
    pub(super) fn environment<'a>(
        &self,
        context: &Context,
        request: &Request<'a>,
        objects: Objects<'a>,
    ) -> Result<Option<Environment<'a>>, String> {
        let environment = Environment::new(context, request, objects)
            .with_params(self.params.clone())
            .with_variables(&context.programs, self.spec());
        match conditions_hold(context, &environment, self.spec()) {
            Ok(holds) => Ok(holds.then_some(environment)),
            Err(_) if ignores_failure(self.spec()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
