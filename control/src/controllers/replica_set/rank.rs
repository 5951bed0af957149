//! Which of too many pods go first, in Kubernetes' order.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::controllers::pods;

/// An integer; lower ones are deleted first.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Everything that the order looks at; smaller is deleted earlier.
#[derive(Debug)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    /// How many related pods share the node; the fullest node loses first.
    crowd: Reverse<usize>,
    ready_since: Option<Timestamp>,
    restarts: Reverse<i32>,
    created: Option<Timestamp>,
}

impl Rank {
    fn of(pod: &Pod, crowd: usize) -> Self {
        Self {
            assigned: !pods::node(pod).is_empty(),
            phase: match pods::phase(pod) {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready: pods::is_ready(pod),
            cost: cost(pod),
            crowd: Reverse(crowd),
            ready_since: pods::ready_since(pod),
            restarts: Reverse(pods::restarts(pod)),
            created: pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
        }
    }

    fn compare(&self, other: &Self, now: Timestamp) -> Ordering {
        (self.assigned, self.phase, self.ready, self.cost, self.crowd)
            .cmp(&(other.assigned, other.phase, other.ready, other.cost, other.crowd))
            .then_with(|| by_age(self.ready_since, other.ready_since, now))
            .then_with(|| self.restarts.cmp(&other.restarts))
            .then_with(|| by_age(self.created, other.created, now))
    }
}

fn cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(COST));
    text.and_then(|t| t.parse().ok()).unwrap_or_default()
}

/// The younger first, by orders of magnitude: pods of about the same age are equal. An unknown time is the youngest.
fn by_age(one: Option<Timestamp>, other: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |time: Option<Timestamp>| {
        let age = time.map_or(0, |t| now.duration_since(t).as_secs().max(0));
        (time.is_some(), u64::try_from(age).unwrap_or_default().checked_ilog2().map_or(0, |log| log + 1))
    };
    magnitude(one).cmp(&magnitude(other))
}

/// The `count` pods of `candidates` that go. `related`: active pods of the same Deployment, for crowding.
pub fn victims(candidates: Vec<Arc<Pod>>, related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count >= candidates.len() {
        return candidates;
    }
    let mut crowds: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *crowds.entry(pods::node(pod)).or_default() += 1;
    }
    let crowd = |pod: &Pod| crowds.get(pods::node(pod)).copied().unwrap_or_default();
    let mut ranked: Vec<_> = candidates.into_iter().map(|pod| (Rank::of(&pod, crowd(&pod)), pod)).collect();
    ranked.sort_by(|(one, a), (other, b)| one.compare(other, now).then_with(|| a.metadata.uid.cmp(&b.metadata.uid)));
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2030-01-01T00:00:00Z";

    fn pod(name: &str, node: &str, phase: &str, ready: Option<&str>, more: Value) -> Arc<Pod> {
        let conditions: Vec<Value> = ready
            .map(|since| json!({"type": "Ready", "status": "True", "lastTransitionTime": since}))
            .into_iter()
            .collect();
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2029-01-01T00:00:00Z"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase, "conditions": conditions},
        });
        if let (Some(meta), Value::Object(more)) = (pod["metadata"].as_object_mut(), more) {
            meta.extend(more);
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn order(pods: Vec<Arc<Pod>>) -> Vec<String> {
        let now = NOW.parse().expect("a time");
        let mut left = pods.clone();
        let mut order = Vec::new();
        while !left.is_empty() {
            let gone = victims(left.clone(), &pods, 1, now).remove(0);
            left.retain(|p| p.metadata.uid != gone.metadata.uid);
            order.push(gone.metadata.name.clone().expect("a name"));
        }
        order
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let none = || json!({});
        let old = Some("2029-06-01T00:00:00Z");
        let new = Some("2029-12-31T23:59:50Z");
        let pods = vec![
            pod("h-old", "n1", "Running", old, none()),
            pod("g-new", "n1", "Running", new, none()),
            pod("e-cheap", "n1", "Running", old, json!({"annotations": {COST: "-5"}})),
            pod("d-unready", "n1", "Running", None, none()),
            pod("c-unknown", "n1", "Unknown", None, none()),
            pod("b-pending", "n1", "Pending", None, none()),
            pod("a-unassigned", "", "Pending", None, none()),
        ];
        assert_eq!(order(pods), ["a-unassigned", "b-pending", "c-unknown", "d-unready", "e-cheap", "g-new", "h-old"]);
    }

    #[test]
    fn the_fullest_node_loses_first() {
        let ready = Some("2029-06-01T00:00:00Z");
        let pods: Vec<_> = [("a", "n1"), ("b", "n2"), ("c", "n2")]
            .into_iter()
            .map(|(name, node)| pod(name, node, "Running", ready, json!({})))
            .collect();
        let gone = victims(pods.clone(), &pods, 1, NOW.parse().expect("a time"));
        assert_eq!(gone[0].metadata.name.as_deref(), Some("b"));
    }
}
