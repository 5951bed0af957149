//! Aggregated ClusterRoles: their rules are those of the roles that their selectors choose.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::core::{Selector, SelectorExt};

/// The rules that an aggregated role should have, from all cluster roles: in the order of the selectors, and of the roles'
/// names below one; each rule once. `None`: the role aggregates nothing, or a selector cannot be read.
pub fn rules<'a>(role: &ClusterRole, all: impl Iterator<Item = &'a ClusterRole> + Clone) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.clone().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let selector = Selector::try_from(selector).ok()?;
        let empty = std::collections::BTreeMap::new();
        let mut chosen: Vec<&ClusterRole> = all
            .clone()
            .filter(|other| other.metadata.name != role.metadata.name)
            .filter(|other| selector.matches(other.metadata.labels.as_ref().unwrap_or(&empty)))
            .collect();
        chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for rule in chosen.iter().flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Some(rules)
}
