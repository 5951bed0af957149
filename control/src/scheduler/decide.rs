//! One decision: the best node for a pod, or why there is none. No I/O.

use std::collections::BTreeMap;

use super::filters::{Filter, Rejection};
use super::pod::PodInfo;
use super::queue::Wake;
use super::scores::{Score, scaled};
use super::snapshot::{Cluster, NodeInfo};

/// Everything that has a say.
#[derive(Debug)]
pub struct Judges {
    pub filters: Vec<Box<dyn Filter>>,
    pub scores: Vec<Box<dyn Score>>,
}

impl Default for Judges {
    fn default() -> Self {
        Self { filters: super::filters::all(), scores: super::scores::all() }
    }
}

/// No node fits.
#[derive(Debug, PartialEq, Eq)]
pub struct Unschedulable {
    /// What a person reads, in Kubernetes' form.
    pub message: String,
    /// What may change it; empty: anything.
    pub wakes: Vec<Wake>,
}

/// The name of the best node. `turn` chooses among equals, so that ties go round.
pub fn decide(judges: &Judges, cluster: &Cluster, pod: &PodInfo, turn: usize) -> Result<String, Unschedulable> {
    let mut fitting: Vec<&NodeInfo> = Vec::new();
    let mut rejections = Vec::new();
    let mut wakes = Vec::new();
    for node in cluster.nodes() {
        match judges.filters.iter().find_map(|filter| Some((filter, filter.check(pod, node).err()?))) {
            None => fitting.push(node),
            Some((filter, rejection)) => {
                wakes.extend(
                    filter.helped_by().iter().filter(|wake| !wakes.contains(*wake)).copied().collect::<Vec<_>>(),
                );
                rejections.push(rejection);
            }
        }
    }
    match best(judges, pod, &fitting, turn) {
        Some(node) => Ok(node.name().to_owned()),
        None => Err(Unschedulable { message: message(pod, &rejections), wakes }),
    }
}

fn best<'a>(judges: &Judges, pod: &PodInfo, nodes: &[&'a NodeInfo], turn: usize) -> Option<&'a NodeInfo> {
    if let [only] = nodes {
        return Some(only);
    }
    let mut totals = vec![0_i64; nodes.len()];
    for judge in &judges.scores {
        let raw: Vec<i64> = nodes.iter().map(|node| judge.score(pod, node)).collect();
        let largest = raw.iter().copied().max().unwrap_or_default();
        for (total, raw) in totals.iter_mut().zip(raw) {
            *total += judge.weight() * scaled(judge.scale(), raw, largest);
        }
    }
    let top = totals.iter().copied().max()?;
    let equals: Vec<_> = nodes.iter().zip(&totals).filter(|(_, total)| **total == top).collect();
    equals.get(turn % equals.len().max(1)).map(|(node, _)| **node)
}

fn message(pod: &PodInfo, rejections: &[Rejection]) -> String {
    if rejections.is_empty() {
        return "no nodes available to schedule pods".to_owned();
    }
    let count = rejections.len();
    let reasons = histogram(rejections.iter().flat_map(|r| &r.reasons).map(AsRef::as_ref));
    let preemption = preemption(pod, rejections);
    format!("0/{count} nodes are available: {reasons}. preemption: {preemption}")
}

/// What evicting other pods would bring.
fn preemption(pod: &PodInfo, rejections: &[Rejection]) -> String {
    if pod.spec().and_then(|s| s.preemption_policy.as_deref()) == Some("Never") {
        return "not eligible due to preemptionPolicy=Never.".to_owned();
    }
    let outlook = rejections.iter().map(|r| {
        if r.resolvable {
            "No preemption victims found for incoming pod"
        } else {
            "Preemption is not helpful for scheduling"
        }
    });
    format!("0/{} nodes are available: {}.", rejections.len(), histogram(outlook))
}

/// `1 this, 2 that`, sorted as text.
fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let mut lines: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, spec: Value) -> PodInfo {
        let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]},
            "spec": {"containers": [{"name": "c"}]}});
        if let (Some(target), Value::Object(spec)) = (pod["spec"].as_object_mut(), spec) {
            target.extend(spec);
        }
        PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod")))
    }

    fn asking(memory: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]})
    }

    fn node(cluster: &mut Cluster, name: &str, spec: Value, labels: Value) {
        let allocatable = json!({"cpu": "4", "memory": "1Gi", "pods": "110"});
        let node =
            json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}});
        cluster.set_node(&Arc::new(serde_json::from_value(node).expect("a node")));
    }

    fn three() -> Cluster {
        let mut cluster = Cluster::default();
        for name in ["a", "b", "c"] {
            node(&mut cluster, name, json!({}), json!({"name": name}));
        }
        cluster
    }

    #[test]
    fn the_message_counts_reasons_as_kubernetes_does() {
        let mut cluster = three();
        let big = pod("big", json!({"nodeSelector": {"name": "a"}, "containers": asking("2Gi")["containers"]}));
        let denied = decide(&Judges::default(), &cluster, &big, 0).expect_err("no node");
        assert_eq!(
            denied.message,
            "0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't match Pod's node affinity/selector. \
             preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
        cluster.assume(Arc::new(pod("first", asking("800Mi"))), "a");
        let second = pod("second", json!({"nodeSelector": {"name": "a"}, "containers": asking("800Mi")["containers"]}));
        let denied = decide(&Judges::default(), &cluster, &second, 0).expect_err("no node");
        assert!(denied.message.contains("1 No preemption victims found for incoming pod"), "{}", denied.message);
        assert_eq!(denied.wakes, [Wake::Node, Wake::PodGone]);
        let nothing = decide(&Judges::default(), &Cluster::default(), &second, 0).expect_err("no node");
        assert_eq!(nothing.message, "no nodes available to schedule pods");
    }

    #[test]
    fn taints_cordons_and_ports_keep_pods_away() {
        let mut cluster = Cluster::default();
        node(&mut cluster, "tainted", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}), json!({}));
        node(&mut cluster, "cordoned", json!({"unschedulable": true}), json!({}));
        node(&mut cluster, "free", json!({}), json!({}));
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let judges = Judges::default();
        assert_eq!(decide(&judges, &cluster, &pod("p", port.clone()), 0), Ok("free".to_owned()));
        cluster.assume(Arc::new(pod("p", port.clone())), "free");
        let denied = decide(&judges, &cluster, &pod("q", port), 0).expect_err("no node");
        assert!(
            denied.message.starts_with(
                "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports, \
                 1 node(s) had untolerated taint {k: }, 1 node(s) were unschedulable."
            ),
            "{}",
            denied.message
        );
    }

    #[test]
    fn pods_of_one_controller_are_spread_and_the_emptier_node_wins() {
        let mut cluster = three();
        let judges = Judges::default();
        for turn in 0..9 {
            let info = pod(&format!("p{turn}"), json!({}));
            let node = decide(&judges, &cluster, &info, turn).expect("a node");
            cluster.assume(Arc::new(info), &node);
        }
        let counts: Vec<_> = cluster.nodes().map(|n| n.pods.len()).collect();
        assert_eq!(counts, [3, 3, 3]);
    }

    #[test]
    fn a_node_takes_no_more_pods_than_it_may() {
        let mut cluster = Cluster::default();
        let one = json!({"metadata": {"name": "a"}, "status": {"allocatable": {"pods": "1"}}});
        cluster.set_node(&Arc::new(serde_json::from_value(one).expect("a node")));
        let judges = Judges::default();
        cluster.assume(
            Arc::new(pod("p", json!({}))),
            &decide(&judges, &cluster, &pod("p", json!({})), 0).expect("a node"),
        );
        let denied = decide(&judges, &cluster, &pod("q", json!({})), 0).expect_err("full");
        assert!(denied.message.contains("1 Too many pods"), "{}", denied.message);
    }
}
