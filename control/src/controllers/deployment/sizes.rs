//! The arithmetic of a rollout: how many replicas each ReplicaSet should have next.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::template::{DESIRED, MAX};

/// A set and the size it should have.
pub type Sized = (Arc<ReplicaSet>, i32);

pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or_default()
}

/// Orders sets from the oldest to the newest.
pub fn age(set: &ReplicaSet) -> (Option<Timestamp>, &str) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.as_deref().unwrap_or_default())
}

pub fn total(sets: &[Arc<ReplicaSet>]) -> i32 {
    sets.iter().map(|set| wanted(set)).sum()
}

pub fn is_rolling(deployment: &Deployment) -> bool {
    strategy(deployment) != Some("Recreate")
}

fn strategy(deployment: &Deployment) -> Option<&str> {
    deployment.spec.as_ref()?.strategy.as_ref()?.type_.as_deref()
}

/// How many pods beyond the wanted number a rolling update may run.
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fenceposts(deployment).0 } else { 0 }
}

/// How many pods of the wanted number may be missing.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = replicas(deployment);
    if !is_rolling(deployment) || replicas == 0 { 0 } else { fenceposts(deployment).1.min(replicas) }
}

/// Surge rounded up, unavailable rounded down; both 0 would never move, so then one pod may be unavailable.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()).and_then(|s| s.rolling_update.clone());
    let RollingUpdateDeployment { max_surge, max_unavailable } = rolling.unwrap_or_default();
    let quarter = || IntOrString::String("25%".to_owned());
    let replicas = replicas(deployment);
    let surge = share(&max_surge.unwrap_or_else(quarter), replicas, true);
    let unavailable = share(&max_unavailable.unwrap_or_else(quarter), replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn share(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            let hundredths = percent * i64::from(total) + if up { 99 } else { 0 };
            i32::try_from(hundredths / 100).unwrap_or(i32::MAX)
        }
    }
}

/// The size of the set with the present template, as far as the surge allows; `all` includes it.
pub fn new_size(deployment: &Deployment, all: &[Arc<ReplicaSet>], present: i32) -> i32 {
    let replicas = replicas(deployment);
    if !is_rolling(deployment) || present > replicas {
        return replicas;
    }
    let room = replicas.saturating_add(max_surge(deployment)) - total(all);
    if room <= 0 { present } else { present + room.min(replicas - present) }
}

/// How old sets shrink in a rolling update: what is unhealthy first, then as many as are available beyond the minimum.
pub fn shrink_old(deployment: &Deployment, new: &ReplicaSet, old: &[Arc<ReplicaSet>]) -> Vec<Sized> {
    if total(old) == 0 {
        return Vec::new();
    }
    let minimum = replicas(deployment) - max_unavailable(deployment);
    let new_unavailable = wanted(new) - available(new);
    let most = total(old) + wanted(new) - minimum - new_unavailable;
    if most <= 0 {
        return Vec::new();
    }
    let mut sets: Vec<Sized> = old.iter().map(|set| (set.clone(), wanted(set))).collect();
    sets.sort_by(|a, b| age(&a.0).cmp(&age(&b.0)));
    let mut left = most;
    for (set, size) in &mut sets {
        let unhealthy = (*size - available(set)).max(0).min(left);
        *size -= unhealthy;
        left -= unhealthy;
    }
    let mut spare = old.iter().map(|set| available(set)).sum::<i32>() + available(new) - minimum;
    for (_, size) in &mut sets {
        let cut = (*size).min(spare).max(0);
        *size -= cut;
        spare -= cut;
    }
    sets.retain(|(set, size)| wanted(set) != *size);
    sets
}

/// Sizes when the Deployment itself was resized, in the middle of a rollout or not.
pub fn rescale(deployment: &Deployment, new: Option<&Arc<ReplicaSet>>, old: &[Arc<ReplicaSet>]) -> Vec<Sized> {
    let replicas = replicas(deployment);
    if let Some(only) = active_or_latest(new, old) {
        return vec![(only, replicas)];
    }
    let active_old = old.iter().filter(|set| wanted(set) > 0).cloned();
    if new.is_some_and(|new| is_saturated(deployment, new)) {
        return active_old.map(|set| (set, 0)).collect();
    }
    if !is_rolling(deployment) {
        return Vec::new();
    }
    let active: Vec<_> = active_old.chain(new.filter(|set| wanted(set) > 0).cloned()).collect();
    let allowed = if replicas > 0 { replicas.saturating_add(max_surge(deployment)) } else { 0 };
    proportionally(deployment, active, allowed)
}

fn active_or_latest(new: Option<&Arc<ReplicaSet>>, old: &[Arc<ReplicaSet>]) -> Option<Arc<ReplicaSet>> {
    let mut active = old.iter().chain(new).filter(|set| wanted(set) > 0);
    match (active.next(), active.next()) {
        (None, _) => new.or_else(|| old.iter().max_by_key(|set| age(set))).cloned(),
        (only, None) => only.cloned(),
        _ => None,
    }
}

fn annotated(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.annotations().get(key)?.parse().ok()
}

fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let replicas = replicas(deployment);
    wanted(set) == replicas && annotated(set, DESIRED) == Some(replicas) && available(set) == replicas
}

/// Whether the Deployment was resized since this set was last scaled.
pub fn was_resized(deployment: &Deployment, set: &ReplicaSet) -> bool {
    wanted(set) > 0 && annotated(set, DESIRED).is_some_and(|desired| desired != replicas(deployment))
}

/// Spreads what is to be added or removed over the active sets by their share; the largest takes the rest.
fn proportionally(deployment: &Deployment, mut active: Vec<Arc<ReplicaSet>>, allowed: i32) -> Vec<Sized> {
    let change = allowed - total(&active);
    active.sort_by(|a, b| age(a).cmp(&age(b)));
    if change > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| Reverse(wanted(set)));
    let mut added = 0;
    let mut sizes: Vec<Sized> = Vec::with_capacity(active.len());
    for set in active {
        let part = portion(deployment, &set, change, added);
        added += part;
        let size = wanted(&set) + part;
        sizes.push((set, size));
    }
    if let Some((_, size)) = sizes.first_mut() {
        *size = (*size + change - added).max(0);
    }
    sizes
}

fn portion(deployment: &Deployment, set: &ReplicaSet, change: i32, added: i32) -> i32 {
    let left = change - added;
    if wanted(set) == 0 || left == 0 {
        return 0;
    }
    let fraction = fraction(deployment, set);
    if change > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// The set's share of the Deployment's new size, less what it has. Negative: it shrinks.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let replicas = replicas(deployment);
    if replicas == 0 {
        return -wanted(set);
    }
    let shown = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or_default();
    let before = i64::from(annotated(set, MAX).unwrap_or(shown));
    if before == 0 {
        return 0;
    }
    let target = i64::from(replicas) + i64::from(max_surge(deployment));
    let share = (i64::from(wanted(set)) * target * 2 + before) / (before * 2);
    i32::try_from(share).unwrap_or(i32::MAX) - wanted(set)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        let value = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |number| json!(number));
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"replicas": replicas, "selector": {},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": value(surge), "maxUnavailable": value(unavailable)}},
            "template": {}}}))
        .expect("a deployment")
    }

    fn set(name: &str, wanted: i32, available: i32, annotations: &[(&str, i32)]) -> Arc<ReplicaSet> {
        let annotations: std::collections::BTreeMap<_, _> =
            annotations.iter().map(|(key, value)| (*key, value.to_string())).collect();
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations},
                "spec": {"replicas": wanted, "selector": {}},
                "status": {"replicas": wanted, "availableReplicas": available}}))
            .expect("a set"),
        )
    }

    fn names(sizes: &[Sized]) -> Vec<(String, i32)> {
        sizes.iter().map(|(set, size)| (set.name_any(), *size)).collect()
    }

    #[test]
    fn surge_rounds_up_and_unavailable_rounds_down() {
        let cases = [
            (10, "25%", "25%", 3, 2),
            (3, "25%", "25%", 1, 0),
            (1, "0", "0", 0, 1),
            (5, "0%", "10%", 0, 1),
            (4, "2", "1", 2, 1),
            (2, "0", "5", 0, 2),
        ];
        for (replicas, surge, unavailable, surges, missing) in cases {
            let deployment = deployment(replicas, surge, unavailable);
            assert_eq!((max_surge(&deployment), max_unavailable(&deployment)), (surges, missing), "{replicas} {surge}");
        }
    }

    #[test]
    fn a_new_set_grows_into_the_surge() {
        let deployment = deployment(10, "25%", "25%");
        assert_eq!(new_size(&deployment, &[set("old", 10, 10, &[])], 0), 3);
        assert_eq!(new_size(&deployment, &[set("old", 8, 8, &[]), set("new", 3, 0, &[])], 3), 5);
        assert_eq!(new_size(&deployment, &[set("new", 12, 0, &[])], 12), 10);
        assert_eq!(new_size(&deployment, &[], 0), 10);
    }

    #[test]
    fn old_sets_shrink_only_while_enough_pods_are_available() {
        let deployment = deployment(10, "25%", "25%");
        let old = [set("old", 10, 10, &[])];
        assert_eq!(names(&shrink_old(&deployment, &set("new", 3, 0, &[]), &old)), [("old".to_owned(), 8)]);
        let old = [set("old", 8, 8, &[])];
        assert!(shrink_old(&deployment, &set("new", 5, 0, &[]), &old).is_empty());
        assert_eq!(names(&shrink_old(&deployment, &set("new", 5, 5, &[]), &old)), [("old".to_owned(), 3)]);
    }

    #[test]
    fn unhealthy_old_pods_go_first() {
        let deployment = deployment(10, "20%", "20%");
        let old = [set("a", 8, 5, &[])];
        let sizes = shrink_old(&deployment, &set("new", 4, 3, &[]), &old);
        assert_eq!(names(&sizes), [("a".to_owned(), 5)]);
    }

    #[test]
    fn resizing_in_the_middle_of_a_rollout_is_proportional() {
        let deployment = deployment(20, "50%", "0");
        let sizes = rescale(
            &deployment,
            Some(&set("new", 5, 0, &[(DESIRED, 10), (MAX, 15)])),
            &[set("old", 10, 10, &[(DESIRED, 10), (MAX, 15)])],
        );
        assert_eq!(names(&sizes), [("old".to_owned(), 20), ("new".to_owned(), 10)]);
        let total: i32 = sizes.iter().map(|(_, size)| size).sum();
        assert_eq!(total, 30);
    }

    #[test]
    fn a_deployment_with_one_active_set_resizes_that() {
        let new = set("new", 3, 3, &[(DESIRED, 3)]);
        let old = [set("old", 0, 0, &[])];
        assert_eq!(names(&rescale(&deployment(7, "1", "0"), Some(&new), &old)), [("new".to_owned(), 7)]);
        assert!(was_resized(&deployment(7, "1", "0"), &new));
        assert!(!was_resized(&deployment(3, "1", "0"), &new));
    }
}
