//! Which requests a FlowSchema is about, as its object says it.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PolicyRulesWithSubjects, ResourcePolicyRule, Subject};

use crate::auth::{UserInfo, accounts};

/// A request as priority and fairness see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) user: &'a UserInfo,
    pub(crate) verb: &'a str,
    pub(crate) target: Target<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// The namespace is empty for what is in none, or in all.
    Resource {
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
    },
    Path(&'a str),
}

const EVERY: &str = "*";

/// Whether one of a schema's rules is about a request.
pub(super) fn matches(schema: &FlowSchema, asked: &Asked<'_>) -> bool {
    let rules = schema.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    rules.into_iter().any(|rule| rule.subjects.iter().any(|subject| is(subject, asked.user)) && concerns(rule, asked))
}

fn is(subject: &Subject, user: &UserInfo) -> bool {
    let all_or = |name: &str, own: &str| name == EVERY || name == own;
    if let Some(named) = subject.user.as_ref().filter(|_| subject.kind == "User") {
        return all_or(&named.name, &user.name);
    }
    if let Some(group) = subject.group.as_ref().filter(|_| subject.kind == "Group") {
        return user.groups.iter().any(|own| all_or(&group.name, own));
    }
    let Some(account) = subject.service_account.as_ref().filter(|_| subject.kind == "ServiceAccount") else {
        return false;
    };
    accounts::parts(&user.name)
        .is_some_and(|(namespace, name)| namespace == account.namespace && all_or(&account.name, name))
}

fn concerns(rule: &PolicyRulesWithSubjects, asked: &Asked<'_>) -> bool {
    match asked.target {
        Target::Resource { group, resource, subresource, namespace } => {
            rule.resource_rules.iter().flatten().any(|rule| {
                has(&rule.verbs, asked.verb)
                    && has(&rule.api_groups, group)
                    && names(rule, resource, subresource)
                    && in_place(rule, namespace)
            })
        }
        Target::Path(path) => rule.non_resource_rules.iter().flatten().any(|rule| {
            has(&rule.verbs, asked.verb) && rule.non_resource_urls.iter().any(|pattern| is_path(pattern, path))
        }),
    }
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|item| item == EVERY || item == one)
}

fn names(rule: &ResourcePolicyRule, resource: &str, subresource: &str) -> bool {
    rule.resources.iter().any(|named| match named.split_once('/') {
        _ if named == EVERY => true,
        Some((parent, child)) => parent == resource && child == subresource,
        None => subresource.is_empty() && named == resource,
    })
}

fn in_place(rule: &ResourcePolicyRule, namespace: &str) -> bool {
    if namespace.is_empty() {
        return rule.cluster_scope == Some(true);
    }
    rule.namespaces.as_deref().is_some_and(|list| has(list, namespace))
}

fn is_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// What tells a request from the others of its schema.
pub(super) fn flow<'a>(schema: &FlowSchema, asked: &Asked<'a>) -> &'a str {
    let method = schema.spec.as_ref().and_then(|spec| spec.distinguisher_method.as_ref());
    match (method.map(|method| method.type_.as_str()), asked.target) {
        (Some("ByUser"), _) => &asked.user.name,
        (Some("ByNamespace"), Target::Resource { namespace, .. }) => namespace,
        _ => "",
    }
}

/// Schemas are tried by precedence, then by name.
pub(super) fn order(schema: &FlowSchema) -> (i32, &str) {
    let precedence = schema.spec.as_ref().and_then(|spec| spec.matching_precedence).unwrap_or(1000);
    (precedence, schema.metadata.name.as_deref().unwrap_or_default())
}

/// The seats that a request takes: a list takes one for every hundred objects that it goes through, ten at most, as in
/// Kubernetes.
pub(crate) fn seats(lists: bool, objects: usize, limit: usize) -> u32 {
    const OBJECTS: usize = 100;
    const MOST: usize = 10;
    let shown = if limit == 0 { objects } else { limit.min(objects) };
    let seats = if lists { shown.div_ceil(OBJECTS).clamp(1, MOST) } else { 1 };
    u32::try_from(seats).unwrap_or(1)
}

/// The name of a priority level that a schema refers to.
pub(super) fn level_of(schema: &FlowSchema) -> &str {
    schema.spec.as_ref().map_or("", |spec| spec.priority_level_configuration.name.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(rules: serde_json::Value) -> FlowSchema {
        let spec = json!({"priorityLevelConfiguration": {"name": "x"}, "rules": rules});
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap()
    }

    fn pods(namespace: &str) -> Target<'_> {
        Target::Resource { group: "", resource: "pods", subresource: "", namespace }
    }

    #[test]
    fn a_rule_is_about_subjects_verbs_resources_and_places() {
        let robot = UserInfo::authenticated("system:serviceaccount:web:robot", &["system:serviceaccounts"]);
        let user = |name: &str| json!([{"kind": "User", "user": {"name": name}}]);
        let group = |name: &str| json!([{"kind": "Group", "group": {"name": name}}]);
        let account = |namespace: &str, name: &str| json!([{"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}}]);
        let rule = |verbs: &str, resources: &str, namespaces: &str, cluster: bool| {
            json!([{"verbs": [verbs], "apiGroups": [""], "resources": [resources], "namespaces": [namespaces],
                "clusterScope": cluster}])
        };
        let all = rule("*", "*", "*", true);
        for (subjects, resource_rules, namespace, wanted) in [
            (user("*"), all.clone(), "web", true),
            (user("system:serviceaccount:web:robot"), all.clone(), "", true),
            (user("robot"), all.clone(), "web", false),
            (group("system:authenticated"), all.clone(), "web", true),
            (group("system:masters"), all.clone(), "web", false),
            (account("web", "*"), all.clone(), "web", true),
            (account("web", "robot"), all.clone(), "web", true),
            (account("db", "*"), all.clone(), "web", false),
            (user("*"), rule("list", "pods", "web", false), "web", true),
            (user("*"), rule("get", "pods", "web", false), "web", false),
            (user("*"), rule("*", "services", "*", true), "web", false),
            (user("*"), rule("*", "pods/status", "*", true), "web", false),
            (user("*"), rule("*", "pods", "db", true), "web", false),
            (user("*"), rule("*", "pods", "*", false), "", false),
        ] {
            let schema = schema(json!([{"subjects": subjects, "resourceRules": resource_rules}]));
            let asked = Asked { user: &robot, verb: "list", target: pods(namespace) };
            assert_eq!(matches(&schema, &asked), wanted, "{schema:?}");
        }
        let paths = schema(json!([{"subjects": user("*"),
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}]}]));
        for (path, wanted) in [("/healthz", true), ("/healthz/x", false), ("/apis/apps", true), ("/version", false)] {
            let asked = Asked { user: &robot, verb: "get", target: Target::Path(path) };
            assert_eq!(matches(&paths, &asked), wanted, "{path}");
        }
    }

    #[test]
    fn lists_take_seats_by_what_they_go_through() {
        for (lists, objects, limit, wanted) in [
            (false, 100_000, 0, 1),
            (true, 0, 0, 1),
            (true, 101, 0, 2),
            (true, 100_000, 0, 10),
            (true, 100_000, 250, 3),
        ] {
            assert_eq!(seats(lists, objects, limit), wanted);
        }
    }
}
