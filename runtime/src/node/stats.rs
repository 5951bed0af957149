//! `/stats/summary` and `/pods`: what runs here and what it uses.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::backend::Stats;
use crate::pod::manager::Manager;
use crate::pod::setup::identity;

/// The PodList of this node.
pub(super) fn pods(manager: &Manager) -> Value {
    let items: Vec<Arc<Pod>> = manager.pods().iter().map(|shared| shared.pod()).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

/// The kubelet's summary: CPU time and memory by pod and container.
pub(super) fn summary(node: &str, manager: &Manager) -> Value {
    let now = Time(Timestamp::now());
    let mut total = Stats::default();
    let mut pods = Vec::new();
    for shared in manager.pods() {
        let pod = shared.pod();
        let (namespace, name, uid) = identity(&pod);
        let mut sum = Stats::default();
        let mut containers = Vec::new();
        for (container, running) in shared.running() {
            let stats = running.stats();
            add(&mut sum, stats);
            containers.push(json!({"name": container, "cpu": cpu(stats, &now), "memory": memory(stats, &now)}));
        }
        add(&mut total, sum);
        pods.push(json!({
            "podRef": {"name": name, "namespace": namespace, "uid": uid},
            "containers": containers, "cpu": cpu(sum, &now), "memory": memory(sum, &now),
        }));
    }
    json!({"node": {"nodeName": node, "cpu": cpu(total, &now), "memory": memory(total, &now)}, "pods": pods})
}

fn add(sum: &mut Stats, stats: Stats) {
    sum.cpu += stats.cpu;
    sum.memory_bytes += stats.memory_bytes;
    sum.requests += stats.requests;
}

fn cpu(stats: Stats, now: &Time) -> Value {
    json!({"time": now, "usageCoreNanoSeconds": u64::try_from(stats.cpu.as_nanos()).unwrap_or(u64::MAX)})
}

fn memory(stats: Stats, now: &Time) -> Value {
    json!({"time": now, "usageBytes": stats.memory_bytes, "workingSetBytes": stats.memory_bytes})
}
