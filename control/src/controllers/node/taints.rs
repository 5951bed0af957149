//! Which taints and conditions a node should have. No I/O.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Conditions that keep new pods away when they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// What the Ready condition says; a node without one is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    NotReady,
    Unknown,
}

pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub fn health(node: &Node) -> Health {
    match condition(node, "Ready").map(|c| c.status.as_str()) {
        Some("True") => Health::Ready,
        Some("Unknown") => Health::Unknown,
        _ => Health::NotReady,
    }
}

/// The taints as they should be. `evict`: pods may be driven away from nodes that are not ready; not while no node is ready,
/// for then it is this side that is cut off.
pub fn taints(node: &Node, evict: bool, now: Timestamp) -> Vec<Taint> {
    let spec = node.spec.clone().unwrap_or_default();
    let present = spec.taints.unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let health = match health(node) {
        Health::Ready => None,
        Health::NotReady => Some(NOT_READY),
        Health::Unknown => Some(UNREACHABLE),
    };
    wanted.extend(health.map(|key| (key, NO_SCHEDULE)));
    wanted.extend(health.filter(|_| evict).map(|key| (key, NO_EXECUTE)));
    wanted.extend(spec.unschedulable.filter(|cordoned| *cordoned).map(|_| (UNSCHEDULABLE, NO_SCHEDULE)));
    let pressed = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    wanted.extend(PRESSURES.iter().filter(|(kind, _)| pressed(kind)).map(|(_, key)| (*key, NO_SCHEDULE)));
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| taint.key == *key && taint.effect == *effect);
    let mut taints: Vec<Taint> = present.iter().filter(|t| !is_managed(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            let time_added = Some(Time(now));
            taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added });
        }
    }
    taints
}

fn is_managed(taint: &Taint) -> bool {
    let key = taint.key.as_str();
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
}

/// The conditions of a node that has been silent for too long.
pub fn silent(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let present = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut conditions: Vec<NodeCondition> = present.into_iter().map(|c| unknown(c, now)).collect();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        if !conditions.iter().any(|c| c.type_ == kind) {
            conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            });
        }
    }
    conditions
}

fn unknown(condition: NodeCondition, now: Timestamp) -> NodeCondition {
    let owned = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"].contains(&condition.type_.as_str());
    if !owned || condition.status == "Unknown" {
        return condition;
    }
    NodeCondition {
        status: "Unknown".to_owned(),
        reason: Some("NodeStatusUnknown".to_owned()),
        message: Some("Kubelet stopped posting node status.".to_owned()),
        last_transition_time: Some(Time(now)),
        ..condition
    }
}

/// When a pod must leave a node with these taints: `None` never, zero now. `seen`: when the pod was first seen with them, which
/// counts for a taint that does not say since when it is there.
pub fn leaves_in(
    taints: &[Taint],
    tolerations: &[k8s_openapi::api::core::v1::Toleration],
    seen: Timestamp,
    now: Timestamp,
) -> Option<Duration> {
    use crate::scheduler::filters::taints::tolerates;
    let mut soonest = None;
    for taint in taints.iter().filter(|taint| taint.effect == NO_EXECUTE) {
        let mut used = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if used.peek().is_none() {
            return Some(Duration::ZERO);
        }
        let Some(seconds) = used.filter_map(|toleration| toleration.toleration_seconds).min() else { continue };
        let since = taint.time_added.as_ref().map_or(seen, |t| t.0);
        let left = jiff::SignedDuration::from_secs(seconds.max(0)) - now.duration_since(since);
        let left = Duration::try_from(left).unwrap_or_default();
        soonest = Some(soonest.map_or(left, |soonest: Duration| soonest.min(left)));
    }
    soonest
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use k8s_openapi::api::core::v1::Toleration;
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2030-01-01T00:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().expect("a time")
    }

    fn node(ready: &str, spec: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]}}))
        .expect("a node")
    }

    fn named(taints: &[Taint]) -> Vec<(&str, &str)> {
        taints.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect()
    }

    #[test]
    fn taints_follow_the_conditions_and_leave_others_alone() {
        let own =
            json!({"taints": [{"key": "mine", "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]});
        assert_eq!(named(&taints(&node("True", own.clone()), true, now())), [("mine", NO_SCHEDULE)]);
        assert_eq!(
            named(&taints(&node("False", own.clone()), true, now())),
            [("mine", NO_SCHEDULE), (NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]
        );
        assert_eq!(
            named(&taints(&node("Unknown", own), true, now())),
            [("mine", NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE), (UNREACHABLE, NO_SCHEDULE)]
        );
        let cordoned = json!({"unschedulable": true});
        assert_eq!(named(&taints(&node("True", cordoned), true, now())), [(UNSCHEDULABLE, NO_SCHEDULE)]);
    }

    #[test]
    fn nobody_is_driven_away_while_no_node_is_ready() {
        assert_eq!(named(&taints(&node("Unknown", json!({})), false, now())), [(UNREACHABLE, NO_SCHEDULE)]);
    }

    #[test]
    fn a_silent_node_is_unknown_in_every_respect() {
        let conditions = silent(&node("True", json!({})), now());
        let unknown = conditions.iter().filter(|c| c.status == "Unknown").count();
        assert_eq!((conditions.len(), unknown), (4, 4));
        let ready = conditions.iter().find(|c| c.type_ == "Ready").expect("ready");
        assert_eq!(ready.reason.as_deref(), Some("NodeStatusUnknown"));
    }

    #[test]
    fn pods_leave_when_their_toleration_ends() {
        let tainted = taints(&node("Unknown", json!({})), true, now());
        let toleration = |seconds: Value| -> Vec<Toleration> {
            vec![
                serde_json::from_value(json!({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": seconds}))
                .expect("a toleration"),
            ]
        };
        assert_eq!(leaves_in(&tainted, &[], now(), now()), Some(Duration::ZERO));
        assert_eq!(leaves_in(&tainted, &toleration(json!(300)), now(), now()), Some(Duration::from_mins(5)));
        assert_eq!(leaves_in(&tainted, &toleration(json!(null)), now(), now()), None);
        let later = now() + jiff::SignedDuration::from_secs(301);
        assert_eq!(leaves_in(&tainted, &toleration(json!(300)), later, later), Some(Duration::ZERO));
        assert_eq!(leaves_in(&[], &[], now(), now()), None);

        let timeless: Vec<Taint> = tainted.into_iter().map(|taint| Taint { time_added: None, ..taint }).collect();
        assert_eq!(leaves_in(&timeless, &toleration(json!(300)), now(), now()), Some(Duration::from_mins(5)));
        assert_eq!(leaves_in(&timeless, &toleration(json!(300)), now(), later), Some(Duration::ZERO));
    }
}
