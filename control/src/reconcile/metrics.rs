//! Numbers about the queues: how much waits, how much was done, how much failed, how long it took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use crate::controllers::api_service::Unavailable;
use crate::server::metrics::{Number, count};

/// One per process; clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// One entry per controller.
    controllers: Arc<Mutex<BTreeMap<&'static str, Counts>>>,
    dropped_events: Arc<AtomicU64>,
    /// Which APIServices do not answer.
    pub unavailable: Unavailable,
}

/// What is counted of one controller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Keys that wait for a worker.
    pub depth: usize,
    pub reconciles: usize,
    pub errors: usize,
    /// Spent in reconciles, those in parallel added up.
    pub time: Duration,
}

impl Metrics {
    pub fn waiting(&self, controller: &'static str, depth: usize) {
        self.controllers.lock().entry(controller).or_default().depth = depth;
    }

    pub fn reconciled(&self, controller: &'static str, took: Duration, succeeded: bool) {
        let mut controllers = self.controllers.lock();
        let counts = controllers.entry(controller).or_default();
        counts.reconciles += 1;
        counts.errors += usize::from(!succeeded);
        counts.time += took;
    }

    pub fn dropped_event(&self) {
        self.dropped_events.fetch_add(1, Ordering::Relaxed);
    }

    pub fn controller(&self, name: &str) -> Counts {
        self.controllers.lock().get(name).copied().unwrap_or_default()
    }

    /// Makes the numbers readable at `/metrics`, with the controller as the resource.
    pub fn register(&self, registry: &mut Registry) {
        self.numbers().into_iter().for_each(|number| registry.register_collector(Box::new(number)));
        registry.register_collector(Box::new(self.unavailable.clone()));
    }

    fn numbers(&self) -> Vec<Number> {
        let number = |name, help, value: fn(&Counts) -> f64| {
            let controllers = self.controllers.clone();
            let read = move || controllers.lock().iter().map(|(name, c)| ((*name).to_owned(), value(c))).collect();
            Number { name, help, read: Box::new(read) }
        };
        let dropped = self.dropped_events.clone();
        vec![
            number("wherry_reconcile_queue_depth", "Keys that wait for a worker", |c| count(c.depth)),
            number("wherry_reconciles", "Reconciles that ended", |c| count(c.reconciles)),
            number("wherry_reconcile_errors", "Reconciles that failed and are retried", |c| count(c.errors)),
            number("wherry_reconcile_seconds", "Time spent in reconciles", |c| c.time.as_secs_f64()),
            Number::one("wherry_events_dropped", "Events that found the recorder full", move || {
                count(usize::try_from(dropped.load(Ordering::Relaxed)).unwrap_or(usize::MAX))
            }),
        ]
    }
}
