//! Whether rules include other rules: nobody may grant what they do not have.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::rule::{covers_url, has, list};

/// Permissions that are compared one by one. More are refused unseen: the lists of a rule multiply, and a body of a few
/// kilobytes can name billions.
pub const MOST: usize = 16_384;

/// Texts that are compared with each other: a tenth of a second's worth. Permissions that are held may be written as often as
/// one likes.
const MOST_COMPARED: usize = 1 << 24;

/// Whether rules name more permissions than [`MOST`].
pub fn too_many(rules: &[PolicyRule]) -> bool {
    permissions(rules) > MOST
}

/// Whether so much is held that it is not compared with as much as is wanted.
pub fn too_long(held: &[PolicyRule], wanted: &[PolicyRule]) -> bool {
    let lists = |rule: &PolicyRule| {
        let optional = [&rule.api_groups, &rule.resources, &rule.resource_names, &rule.non_resource_urls];
        rule.verbs.len() + optional.into_iter().map(|items| list(items.as_ref()).len()).sum::<usize>()
    };
    let texts: usize = held.iter().map(lists).sum();
    permissions(wanted).saturating_mul(texts) > MOST_COMPARED
}

fn permissions(rules: &[PolicyRule]) -> usize {
    let length = |items: Option<&Vec<String>>| list(items).len();
    let parts = rules.iter().map(|rule| {
        let names = length(rule.resource_names.as_ref()).max(1);
        let objects = length(rule.api_groups.as_ref()).saturating_mul(length(rule.resources.as_ref()));
        let each = objects.saturating_mul(names).saturating_add(length(rule.non_resource_urls.as_ref()));
        each.saturating_mul(rule.verbs.len())
    });
    parts.fold(0, usize::saturating_add)
}

/// The parts of `wanted` that `held` does not include, as Kubernetes lists them: one resource and its verbs each.
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
    // Where each resource's rule is, and the verbs that it has.
    let mut known = HashMap::new();
    for part in parts {
        if part.non_resource_urls.is_some() {
            rules.push(part);
            continue;
        }
        let about = (part.api_groups.clone(), part.resources.clone(), part.resource_names.clone());
        let (at, verbs) = known.entry(about).or_insert_with(|| (rules.len(), HashSet::new()));
        let more: Vec<String> = part.verbs.iter().filter(|&verb| verbs.insert(verb.clone())).cloned().collect();
        match rules.get_mut(*at) {
            Some(rule) => rule.verbs.extend(more),
            None => rules.push(PolicyRule { verbs: more, ..part }),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], resources: Vec<String>) -> PolicyRule {
        let verbs = verbs.iter().map(|&verb| verb.to_owned()).collect();
        PolicyRule { verbs, api_groups: Some(vec![String::new()]), resources: Some(resources), ..PolicyRule::default() }
    }

    #[test]
    fn what_is_missing_is_listed_by_resource_with_all_its_verbs() {
        let many = || (0..MOST / 4).map(|i| format!("r{i}")).collect::<Vec<_>>();
        let url = |verb: &str| PolicyRule {
            verbs: vec![verb.to_owned()],
            non_resource_urls: Some(vec!["/x".to_owned()]),
            ..PolicyRule::default()
        };
        let wanted = [rule(&["get", "list"], many()), rule(&["list", "watch"], many()), url("get"), url("post")];
        let held = [rule(&["*"], vec!["r1".to_owned()])];
        let missing = missing(&held, &wanted);
        let all =
            many().into_iter().filter(|name| name != "r1").map(|name| rule(&["get", "list", "watch"], vec![name]));
        assert_eq!(missing, all.chain([url("get"), url("post")]).collect::<Vec<_>>());
    }
}
