//! Numbers of priority and fairness, named as in Kubernetes.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of waiting times, seconds.
const BUCKETS: [f64; 11] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];

/// A flow schema and the level that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Labels {
    pub(super) priority_level: String,
    pub(super) flow_schema: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLevel {
    priority_level: String,
}

type Count = Gauge<i64, AtomicI64>;

/// All of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    waiting: Family<Labels, Count>,
    executing: Family<Labels, Count>,
    seats: Family<Labels, Count>,
    dispatched: Family<Labels, Counter<u64, AtomicU64>>,
    rejected: Family<Rejected, Counter<u64, AtomicU64>>,
    waited: Family<Labels, Histogram, fn() -> Histogram>,
    nominal: Family<OfLevel, Count>,
    current: Family<OfLevel, Count>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            waiting: Family::default(),
            executing: Family::default(),
            seats: Family::default(),
            dispatched: Family::default(),
            rejected: Family::default(),
            waited: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            nominal: Family::default(),
            current: Family::default(),
        }
    }
}

impl Metrics {
    /// Adds them to what `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        let name = |name: &str| format!("apiserver_flowcontrol_{name}");
        registry.register(name("current_inqueue_requests"), "Requests that wait", self.waiting.clone());
        registry.register(name("current_executing_requests"), "Requests that are served", self.executing.clone());
        registry.register(name("current_executing_seats"), "Seats that are taken", self.seats.clone());
        registry.register(name("dispatched_requests"), "Requests that were served", self.dispatched.clone());
        registry.register(name("rejected_requests"), "Requests that were turned away", self.rejected.clone());
        registry.register(name("request_wait_duration_seconds"), "Time in a queue", self.waited.clone());
        registry.register(name("nominal_limit_seats"), "Seats that a priority level owns", self.nominal.clone());
        registry.register(name("current_limit_seats"), "Seats that a level may use now", self.current.clone());
    }

    /// What one schema's requests count in: looked up once per schema, not per request.
    pub(super) fn of(&self, labels: Labels) -> Numbers {
        Numbers {
            waiting: self.waiting.get_or_create_owned(&labels),
            executing: self.executing.get_or_create_owned(&labels),
            seats: self.seats.get_or_create_owned(&labels),
            dispatched: self.dispatched.get_or_create_owned(&labels),
            waited: self.waited.get_or_create_owned(&labels),
            all: self.clone(),
            labels,
        }
    }

    pub(super) fn limits(&self, level: &str, nominal: u32, current: u32) {
        let labels = OfLevel { priority_level: level.to_owned() };
        self.nominal.get_or_create(&labels).set(i64::from(nominal));
        self.current.get_or_create(&labels).set(i64::from(current));
    }
}

/// The numbers of one schema.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    pub(super) waiting: Count,
    pub(super) executing: Count,
    pub(super) seats: Count,
    pub(super) dispatched: Counter<u64, AtomicU64>,
    pub(super) waited: Histogram,
    all: Metrics,
    labels: Labels,
}

impl Numbers {
    /// Turning away is rare: looked up when it happens.
    pub(super) fn rejected(&self, reason: &'static str) {
        let Labels { priority_level, flow_schema } = self.labels.clone();
        self.all.rejected.get_or_create(&Rejected { priority_level, flow_schema, reason }).inc();
    }
}
