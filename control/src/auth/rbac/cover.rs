//! Whether rules include other rules: nobody may grant what they do not have.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::rule::{covers_url, has, list};

/// Permissions that are compared one by one. More are refused unseen: the lists of a rule multiply, and a body of a few
/// kilobytes can name billions.
pub const MOST: usize = 16_384;

/// Whether rules name more permissions than [`MOST`].
pub fn too_many(rules: &[PolicyRule]) -> bool {
    let length = |items: Option<&Vec<String>>| list(items).len();
    let parts = rules.iter().map(|rule| {
        let names = length(rule.resource_names.as_ref()).max(1);
        let objects = length(rule.api_groups.as_ref()).saturating_mul(length(rule.resources.as_ref()));
        let each = objects.saturating_mul(names).saturating_add(length(rule.non_resource_urls.as_ref()));
        each.saturating_mul(rule.verbs.len())
    });
    parts.fold(0, usize::saturating_add) > MOST
}

/// The parts of `wanted` that `held` does not include, as Kubernetes lists them: one resource and its verbs each, sorted.
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(broken_down);
    compact(parts.filter(|part| !held.iter().any(|rule| includes(rule, part))).collect())
}

/// One rule per verb, group, resource and name.
fn broken_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let one = |text: &String| Some(vec![text.clone()]);
    for verb in &rule.verbs {
        for group in list(rule.api_groups.as_ref()) {
            for resource in list(rule.resources.as_ref()) {
                let part = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                match list(rule.resource_names.as_ref()) {
                    [] => parts.push(part),
                    names => {
                        parts.extend(names.iter().map(|n| PolicyRule { resource_names: one(n), ..part.clone() }));
                    }
                }
            }
        }
        for url in list(rule.non_resource_urls.as_ref()) {
            parts.push(PolicyRule { verbs: vec![verb.clone()], non_resource_urls: one(url), ..PolicyRule::default() });
        }
    }
    parts
}

/// Whether `rule` includes all of `part`.
fn includes(rule: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |held: &[String], wanted: &[String]| wanted.iter().all(|value| has(held, value));
    let held_names = list(rule.resource_names.as_ref());
    let wanted_names = list(part.resource_names.as_ref());
    let urls = list(rule.non_resource_urls.as_ref());
    all(&rule.verbs, &part.verbs)
        && all(list(rule.api_groups.as_ref()), list(part.api_groups.as_ref()))
        && list(part.resources.as_ref()).iter().all(|r| includes_resource(list(rule.resources.as_ref()), r))
        && list(part.non_resource_urls.as_ref()).iter().all(|path| urls.iter().any(|url| covers_url(url, path)))
        && (held_names.is_empty()
            || (!wanted_names.is_empty() && wanted_names.iter().all(|name| held_names.contains(name))))
}

fn includes_resource(held: &[String], resource: &str) -> bool {
    let any = resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
    has(held, resource) || any.is_some_and(|any| held.contains(&any))
}

/// Rules about the same resource become one with all their verbs.
fn compact(parts: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for mut part in parts {
        let same = |rule: &&mut PolicyRule| {
            part.non_resource_urls.is_none()
                && (&rule.api_groups, &rule.resources, &rule.resource_names, &rule.non_resource_urls)
                    == (&part.api_groups, &part.resources, &part.resource_names, &part.non_resource_urls)
        };
        match rules.iter_mut().find(same) {
            Some(rule) => {
                part.verbs.retain(|verb| !rule.verbs.contains(verb));
                rule.verbs.append(&mut part.verbs);
            }
            None => rules.push(part),
        }
    }
    rules
}

/// A rule on one line, as Kubernetes' messages show it.
pub fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", list(rule.api_groups.as_ref())),
        ("Resources", list(rule.resources.as_ref())),
        ("NonResourceURLs", list(rule.non_resource_urls.as_ref())),
        ("ResourceNames", list(rule.resource_names.as_ref())),
        ("Verbs", rule.verbs.as_slice()),
    ];
    let shown = parts.iter().filter(|(_, items)| !items.is_empty());
    let shown: Vec<String> = shown.map(|(name, items)| format!("{name}:{}", quoted(items))).collect();
    format!("{{{}}}", shown.join(", "))
}

/// `["a" "b"]`.
pub fn quoted(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}
