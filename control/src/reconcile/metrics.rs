//! Numbers about the queues: how much waits, how much was done, how much failed, how long it took.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// One per process; clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub depth: Family<Label, Gauge>,
    pub reconciles: Family<Label, Counter>,
    pub errors: Family<Label, Counter>,
    pub seconds: Family<Label, Histogram, fn() -> Histogram>,
    pub dropped_events: Counter,
}

/// Which controller it is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Label {
    pub controller: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            depth: Family::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_1, 4.0, 10))),
            dropped_events: Counter::default(),
        }
    }
}

impl Metrics {
    /// Makes the numbers readable at `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("reconcile_queue_depth", "Keys that wait for a worker", self.depth.clone());
        registry.register("reconciles", "Reconciles that ended", self.reconciles.clone());
        registry.register("reconcile_errors", "Reconciles that failed and are retried", self.errors.clone());
        registry.register("reconcile_seconds", "How long reconciles took", self.seconds.clone());
        registry.register("events_dropped", "Events that found the recorder full", self.dropped_events.clone());
    }
}
