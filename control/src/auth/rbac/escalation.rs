//! Nobody grants what they do not have: the checks on writes of roles and bindings.
//!
//! A role may be written by who holds all its rules, or may `escalate`; a binding by who holds the rules of its role, or
//! may `bind` that role. Administrators may both.

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde_json::Value;
use wherry_api::object;
use wherry_api::status::ApiError;
use wherry_api::strategy::view;

use super::{GROUP, Rbac, cover};
use crate::auth::{Attributes, Authorizer, MASTERS, Refusal, UserInfo};

/// Judges a write of a role or a binding; anything else passes.
pub async fn check(
    rbac: &Rbac,
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    attributes: &Attributes,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let Some(new) = new else { return Ok(()) };
    let exempt = attributes.group != GROUP || !attributes.subresource.is_empty() || user.in_group(MASTERS);
    if exempt || old.is_some_and(|old| only_for_collection(new, old)) {
        return Ok(());
    }
    match attributes.resource.as_str() {
        "roles" | "clusterroles" => role(rbac, authorizer, user, attributes, new, old).await,
        "rolebindings" | "clusterrolebindings" => binding(rbac, authorizer, user, attributes, new).await,
        _ => Ok(()),
    }
}

async fn role(
    rbac: &Rbac,
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    attributes: &Attributes,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let escalate = Attributes { verb: "escalate".to_owned(), ..attributes.clone() };
    if authorizer.authorize(user, &escalate).await.allowed() {
        return Ok(());
    }
    let aggregates = |role: &Value| role.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    if (aggregates(new) || old.is_some_and(aggregates))
        && confirm(rbac, user, &attributes.namespace, &everything()).is_err()
    {
        return Err(Refusal::Forbidden("must have cluster-admin privileges to use an aggregationRule".to_owned()));
    }
    let rules: Vec<PolicyRule> = new.get("rules").and_then(view).unwrap_or_default();
    confirm(rbac, user, &attributes.namespace, &rules)
}

async fn binding(
    rbac: &Rbac,
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    attributes: &Attributes,
    new: &Value,
) -> Result<(), Refusal> {
    let Some(role) = new.get("roleRef").and_then(view::<RoleRef>) else { return Ok(()) };
    let bind = Attributes {
        verb: "bind".to_owned(),
        group: role.api_group.clone().unwrap_or_default(),
        version: "*".to_owned(),
        resource: format!("{}s", role.kind.to_lowercase()),
        namespace: attributes.namespace.clone(),
        name: role.name.clone(),
        ..Attributes::default()
    };
    if authorizer.authorize(user, &bind).await.allowed() {
        return Ok(());
    }
    let rules = rbac.role_rules(&role.kind, &role.name, &attributes.namespace).map_err(|message| {
        let mut error = ApiError::new(404, "NotFound", message);
        error.details.name = role.name;
        error.details.group = role.api_group.unwrap_or_default();
        error.details.kind = role.kind.to_lowercase();
        Refusal::Error(error)
    })?;
    confirm(rbac, user, &attributes.namespace, &rules)
}

/// Whether the user holds all of these rules.
fn confirm(rbac: &Rbac, user: &UserInfo, namespace: &str, wanted: &[PolicyRule]) -> Result<(), Refusal> {
    if cover::too_many(wanted) {
        let why = format!("the rules name more than {} permissions, too many to compare with those held", cover::MOST);
        return Err(Refusal::Forbidden(why));
    }
    let held = rbac.rules_for(user, namespace);
    if cover::too_long(&held.rules, wanted) {
        let why = "the rules name too many permissions to compare with all the rules that are held".to_owned();
        return Err(Refusal::Forbidden(why));
    }
    let missing = cover::missing(&held.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = missing.iter().map(cover::describe).collect();
    lines.sort();
    lines.dedup();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        cover::quoted(&user.groups),
        lines.join("\n")
    );
    if !held.errors.is_empty() {
        message = format!("{message}; resolution errors: [{}]", held.errors.join(", "));
    }
    Err(Refusal::Forbidden(message))
}

fn everything() -> [PolicyRule; 2] {
    let any = || vec!["*".to_owned()];
    let resources =
        PolicyRule { verbs: any(), api_groups: Some(any()), resources: Some(any()), ..PolicyRule::default() };
    [resources, PolicyRule { verbs: any(), non_resource_urls: Some(any()), ..PolicyRule::default() }]
}

/// Whether an update changes only what garbage collection needs to change.
fn only_for_collection(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
            object::remove_meta(&mut object, field);
        }
        object
    };
    rest(new) == rest(old)
}
