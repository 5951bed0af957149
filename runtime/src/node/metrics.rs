//! `/metrics` of the node, in the OpenMetrics text format.

use http::{Response, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::server::{Body, answer as whole, text};
use crate::backend::Stats;
use crate::pod::manager::Manager;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Reads everything that is measured, now: nothing is kept between two looks.
pub(super) fn answer(manager: &Manager) -> Response<Body> {
    let mut registry = Registry::default();
    collect(manager, &mut registry);
    let mut out = String::new();
    match encode(&mut out, &registry) {
        Ok(()) => whole(StatusCode::OK, OPEN_METRICS, out),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Adds the node's metrics to a process' registry.
pub fn collect(manager: &Manager, registry: &mut Registry) {
    let pods = manager.pods();
    let mut containers = 0_i64;
    let mut sum = Stats::default();
    for (_, container) in pods.iter().flat_map(|pod| pod.running()) {
        let stats = container.stats();
        containers += 1;
        sum.cpu += stats.cpu;
        sum.memory_bytes += stats.memory_bytes;
        sum.requests += stats.requests;
    }
    let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let memory = i64::try_from(sum.memory_bytes).unwrap_or(i64::MAX);
    registry.register("wherry_node_pods", "Pods of this node", ConstGauge::new(count));
    registry.register("wherry_node_containers_running", "Containers that run", ConstGauge::new(containers));
    registry.register("wherry_node_guest_memory_bytes", "Memory that running containers use", ConstGauge::new(memory));
    registry.register(
        "wherry_node_guest_cpu_seconds",
        "CPU time of the containers that run",
        ConstCounter::new(sum.cpu.as_secs_f64()),
    );
    registry.register(
        "wherry_node_guest_requests",
        "Requests that running containers served",
        ConstCounter::new(sum.requests),
    );
    let dropped = manager.context().events.dropped();
    registry.register("wherry_node_events_dropped", "Events that were not written", ConstCounter::new(dropped));
}
