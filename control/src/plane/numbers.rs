//! What `/metrics` tells of the parts that the control plane is put together from.

use std::sync::Arc;

use crate::audit::Audit;
use crate::cache::{Cache, CacheStats};
use crate::flow;
use crate::reconcile;
use crate::server::metrics::{Metrics, Number, count};
use crate::store::{Store, StoreStats};

/// The numbers of store, cache, queues, flow control and audit log.
pub(super) fn metrics(
    store: &Arc<dyn Store>,
    cache: &Cache,
    (queues, flow): (&reconcile::Metrics, &flow::Metrics),
    audit: Option<&Audit>,
) -> Metrics {
    let of_cache = cache.clone();
    let objects = Number {
        name: "apiserver_storage_objects",
        help: "Stored objects",
        read: Box::new(move || {
            let label = |key: &str| match key.split_once('/') {
                Some(("core", resource)) => resource.to_owned(),
                Some((group, resource)) => format!("{resource}.{group}"),
                None => key.to_owned(),
            };
            of_cache.stats().objects.iter().map(|(key, objects)| (label(key), count(*objects))).collect()
        }),
    };
    let cached = |name, help, read: fn(&CacheStats) -> usize| {
        let cache = cache.clone();
        Number::one(name, help, move || count(read(&cache.stats())))
    };
    let stored = |name, help, read: fn(&StoreStats) -> f64| {
        let store = Arc::clone(store);
        Number::one(name, help, move || read(&store.stats()))
    };
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let numbers = vec![
        objects,
        cached("wherry_cache_watchers", "Open watches", |stats| stats.watchers),
        cached("wherry_cache_dropped_watchers", "Watches that were too slow", |stats| {
            usize::try_from(stats.dropped_watchers).unwrap_or(usize::MAX)
        }),
        stored("wherry_store_commits", "Durable commits", |stats| as_double(stats.batches)),
        stored("wherry_store_transactions", "Transactions on disk", |stats| as_double(stats.transactions)),
        stored("wherry_store_conflicts", "Transactions refused by a precondition", |stats| as_double(stats.conflicts)),
        stored("wherry_store_fsync_seconds", "Time spent in durable commits", |stats| stats.fsync.as_secs_f64()),
        stored("wherry_store_slowest_fsync_seconds", "The slowest durable commit", |stats| {
            stats.slowest_fsync.as_secs_f64()
        }),
        stored("wherry_store_history_bytes", "History kept in memory", |stats| count(stats.history_bytes)),
        Number::one("wherry_store_revision", "The last revision", {
            let store = Arc::clone(store);
            move || count(whole(store.revision()))
        }),
    ];
    Metrics::with(numbers, |registry| {
        queues.register(registry);
        flow.register(registry);
        if let Some(audit) = audit {
            audit.register(registry);
        }
    })
}

fn as_double(number: u64) -> f64 {
    count(usize::try_from(number).unwrap_or(usize::MAX))
}
