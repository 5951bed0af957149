//! What a pod uses: as long as it may run, its number and what it asks of its node.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use wherry_api::kinds::core::podspec::busiest;
use wherry_api::object;
use wherry_api::quantity::Quantity;

use super::Usage;

/// Where a quota on one of these exists, every container must say it.
const TO_BE_SAID: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

fn containers<'a>(pod: &'a Value, field: &str) -> &'a [Value] {
    object::at(pod, "spec").and_then(|spec| spec.get(field)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What a pod uses besides its count as an object. One that has ended, or should have, uses nothing.
pub(super) fn usage(pod: &Value, now: Timestamp) -> Usage {
    let mut used = Usage::new();
    if has_ended(pod, now) {
        return used;
    }
    used.insert("pods".to_owned(), Quantity::from_units(1));
    for (name, amount) in busiest::of_pod(pod, "requests") {
        used.insert(format!("requests.{name}"), amount);
        if !name.contains('/') {
            used.insert(name, amount);
        }
    }
    for (name, amount) in busiest::of_pod(pod, "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
    used
}

fn has_ended(pod: &Value, now: Timestamp) -> bool {
    if matches!(object::text_at(pod, "status.phase").as_str(), "Failed" | "Succeeded") {
        return true;
    }
    let grace = object::deletion_grace_period(pod);
    object::deletion_timestamp(pod).zip(grace).is_some_and(|(end, grace)| {
        // The deletion's time already is the end of its grace; Kubernetes waits as long again.
        end.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| end < now)
    })
}

/// What the pod's containers must say because these resources are limited: `limits.cpu for: a,b; memory for: a`. `None`:
/// all of it is said.
pub fn missing<'a>(pod: &Value, limited: impl Iterator<Item = &'a str>) -> Option<String> {
    let limited: BTreeSet<&str> = limited.filter(|name| TO_BE_SAID.contains(name)).collect();
    let mut unsaid: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in containers(pod, "containers").iter().chain(containers(pod, "initContainers")) {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        for resource in &limited {
            let (field, kind) = resource.split_once('.').unwrap_or(("requests", resource));
            let said = |of: &Value| of.get(field).and_then(|map| map.get(kind)).is_some();
            let whole = object::at(pod, "spec.resources").is_some_and(said);
            if !whole && !container.get("resources").is_some_and(said) {
                unsaid.entry(resource).or_default().insert(name);
            }
        }
    }
    let join = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(",");
    let parts: Vec<String> =
        unsaid.into_iter().map(|(resource, names)| format!("{resource} for: {}", join(names))).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(name: &str, requests: &Value, limits: &Value) -> Value {
        json!({"name": name, "resources": {"requests": requests, "limits": limits}})
    }

    fn shown(used: &Usage, name: &str) -> String {
        used.get(name).map_or_else(|| "-".to_owned(), ToString::to_string)
    }

    #[test]
    fn a_pod_uses_what_its_containers_need_at_the_worst_moment() {
        let mut sidecar = container("s", &json!({"cpu": "100m"}), &json!({}));
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {
            "initContainers": [sidecar, container("i", &json!({"cpu": "1", "memory": "1Gi"}), &json!({}))],
            "containers": [container("a", &json!({"cpu": "200m", "example.com/gpu": "1"}), &json!({"cpu": "1"}))],
            "overhead": {"cpu": "50m", "memory": "10Mi"}}});
        let used = usage(&pod, Timestamp::UNIX_EPOCH);
        assert_eq!((shown(&used, "cpu"), shown(&used, "requests.cpu")), ("1150m".into(), "1150m".into()));
        assert_eq!((shown(&used, "memory"), shown(&used, "limits.cpu")), ("1034Mi".into(), "1050m".into()));
        assert_eq!((shown(&used, "limits.memory"), shown(&used, "requests.example.com/gpu")), ("-".into(), "1".into()));
        assert_eq!(shown(&used, "pods"), "1");
    }

    #[test]
    fn a_pod_that_has_ended_uses_nothing() {
        let pod = |status: Value, meta: Value| json!({"metadata": meta, "status": status, "spec": {"containers": []}});
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        assert!(usage(&pod(json!({"phase": "Succeeded"}), json!({})), now).is_empty());
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:20Z", "deletionGracePeriodSeconds": 30});
        assert!(usage(&pod(json!({}), leaving.clone()), now).is_empty());
        assert!(!usage(&pod(json!({}), leaving), "2026-01-01T00:00:40Z".parse().unwrap()).is_empty());
    }

    #[test]
    fn what_is_limited_must_be_said_by_every_container() {
        let pod = json!({"spec": {"containers": [container("a", &json!({"cpu": "1"}), &json!({})), {"name": "b"}]}});
        assert_eq!(
            missing(&pod, ["cpu", "limits.memory", "pods"].into_iter()).as_deref(),
            Some("cpu for: b; limits.memory for: a,b")
        );
        assert_eq!(missing(&pod, ["pods"].into_iter()), None);
    }
}
