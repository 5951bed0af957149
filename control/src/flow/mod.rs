//! Priority and fairness: which requests are served now, which wait, and which are turned away, so that one greedy client
//! cannot keep the others from being served.
//!
//! A request belongs to the first FlowSchema that is about it, and so to a priority level, which has a share of the
//! server's seats. Parts: [`rules`] (which schema), [`level`] (seats and fair queues), [`share`] (lending between levels),
//! [`hand`] (which queues), [`config`] (what the objects say), [`defaults`] (the objects that every cluster has). All but
//! the waiting here is pure.
//!
//! What must stay true: whoever got a seat gives it back, whatever becomes of the request; nobody waits longer than
//! [`WAIT`]; levels share no lock, and none is held while anything is awaited.

mod config;
pub(crate) mod defaults;
mod hand;
mod level;
mod metrics;
mod rules;
mod share;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use wherry_api::resource::GroupResource;

use self::config::{Config, Lane, Objects, Schema};
use self::level::{Came, Place, Why};
pub use self::metrics::Metrics;
pub(crate) use self::rules::{Asked, Target, seats};
use crate::cache::{Cache, Follow, Since};
use crate::store::Key;

/// The API group of schemas and levels.
pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// The longest that a request waits: a quarter of the minute that Kubernetes gives a request.
pub(crate) const WAIT: Duration = Duration::from_secs(15);
/// How often seats are divided anew while somebody waits.
const DIVIDE: Duration = Duration::from_millis(100);

/// Priority and fairness of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Flow(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Cache,
    /// All seats.
    total: u32,
    config: RwLock<Arc<Config>>,
    /// What the configuration is made of. Held while it is made anew; who finds it locked uses the one there is.
    sources: Mutex<Sources>,
    /// The cache's revision that the configuration shows.
    shown: AtomicU64,
    divided: Mutex<Instant>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Sources {
    schemas: Objects<FlowSchema>,
    levels: Objects<PriorityLevelConfiguration>,
    follow_schemas: Follow,
    follow_levels: Follow,
}

/// Which schema and level a request belongs to (the answer's headers), and the hash of its flow.
#[derive(Clone, Debug)]
pub(crate) struct Class(Arc<Schema>, u64);

impl Class {
    pub(crate) fn schema_uid(&self) -> &str {
        &self.0.uid
    }

    pub(crate) fn level_uid(&self) -> &str {
        &self.0.level_uid
    }
}

/// Seats of a machine: Kubernetes' 600, and more where there are many processors.
pub fn default_seats() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors).unwrap_or(1).saturating_mul(150).max(600)
}

impl Flow {
    /// `total`: seats of all levels together.
    pub(crate) fn new(cache: Cache, total: u32, metrics: Metrics) -> Self {
        let follow = |plural: &'static str| Follow::new(&GroupResource::new(GROUP, plural));
        let sources = Sources {
            schemas: Objects::default(),
            levels: Objects::default(),
            follow_schemas: follow("flowschemas"),
            follow_levels: follow("prioritylevelconfigurations"),
        };
        let config = Config::new(total, &sources.schemas, &sources.levels, &Config::default(), &metrics);
        Self(Arc::new(Inner {
            cache,
            total,
            config: RwLock::new(Arc::new(config)),
            sources: Mutex::new(sources),
            // No revision of a store: the first request reads everything.
            shown: AtomicU64::new(u64::MAX),
            divided: Mutex::new(Instant::now()),
            metrics,
        }))
    }

    /// Which schema a request belongs to. `None` cannot be while there is the mandatory one for everything.
    pub(crate) fn classify(&self, asked: &Asked<'_>) -> Option<Class> {
        self.0.refresh();
        let config = self.0.config.read();
        let schema = config.schema_of(asked)?;
        Some(Class(Arc::clone(schema), hand::hash(&schema.name, schema.flow(asked))))
    }

    /// Waits for seats. `None`: the request is turned away, and may come again in a second.
    pub(crate) async fn enter(&self, class: &Class, seats: u32) -> Option<Seat> {
        let (inner, Class(schema, flow)) = (&self.0, class);
        let Some(level) = &schema.lane.level else {
            return Some(Seat::new(inner, schema, None));
        };
        let (told, waits) = oneshot::channel();
        let came = {
            let mut level = level.lock();
            let (queues, hand) = level.queuing().map_or((1, 1), |queuing| (queuing.queues, queuing.hand));
            let dealt = hand::deal(*flow, queues, hand);
            level.come(dealt, seats, (told, Arc::clone(schema)), Instant::now())
        };
        match came {
            Came::Served(place) => {
                schema.numbers.waited.observe(0.0);
                Some(Seat::new(inner, schema, Some(place)))
            }
            Came::Refused(why) => {
                inner.divide();
                schema.numbers.rejected(match why {
                    Why::NoSeat => "concurrency-limit",
                    Why::QueueFull => "queue-full",
                });
                None
            }
            Came::Waits(number) => self.wait(schema, number, waits).await,
        }
    }

    async fn wait(&self, schema: &Schema, number: u64, mut told: oneshot::Receiver<Seat>) -> Option<Seat> {
        let began = Instant::now();
        let mut waiting = Waiting { schema, number, outcome: "cancelled" };
        schema.numbers.waiting.inc();
        let end = began + WAIT;
        loop {
            // Others may lend what is missing here.
            self.0.divide();
            tokio::select! {
                biased;
                seat = &mut told => {
                    waiting.outcome = "";
                    schema.numbers.waited.observe(began.elapsed().as_secs_f64());
                    return seat.ok();
                }
                () = sleep_until(end) => {
                    waiting.outcome = "time-out";
                    return None;
                }
                () = sleep(DIVIDE) => {}
            }
        }
    }
}

/// A request that waits; it leaves its queue when it is dropped.
struct Waiting<'a> {
    schema: &'a Schema,
    number: u64,
    /// Why it left unserved, for the metrics; empty: it was served.
    outcome: &'static str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.schema.numbers.waiting.dec();
        if !self.outcome.is_empty() {
            self.schema.numbers.rejected(self.outcome);
            // One that has just been given its seat gives it back as the channel is dropped.
            if let Some(level) = &self.schema.lane.level {
                level.lock().leave(self.number, Instant::now());
            }
        }
    }
}

/// A place among those that are served; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    inner: Arc<Inner>,
    schema: Arc<Schema>,
    /// `None`: of the exempt level, which does not count.
    place: Option<Place>,
}

impl Seat {
    fn new(inner: &Arc<Inner>, schema: &Arc<Schema>, place: Option<Place>) -> Self {
        schema.numbers.dispatched.inc();
        schema.numbers.executing.inc();
        schema.numbers.seats.inc_by(place.as_ref().map_or(0, |place| place.seats().into()));
        Self { inner: Arc::clone(inner), schema: Arc::clone(schema), place }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.schema.numbers.executing.dec();
        let (Some(level), Some(place)) = (&self.schema.lane.level, self.place.take()) else { return };
        self.schema.numbers.seats.dec_by(place.seats().into());
        let crowded = {
            let mut level = level.lock();
            level.end(place, Instant::now());
            level.waiting() > 0
        };
        if crowded {
            self.inner.serve(&self.schema.lane);
            self.inner.divide();
        }
    }
}

impl Inner {
    /// Brings the configuration up to what the cache shows.
    fn refresh(&self) {
        let now = self.cache.revision();
        if self.shown.load(Ordering::Acquire) == now {
            return;
        }
        let Some(mut sources) = self.sources.try_lock() else { return };
        let Sources { schemas, levels, follow_schemas, follow_levels } = &mut *sources;
        let changed = [take(schemas, self.cache.since(follow_schemas)), take(levels, self.cache.since(follow_levels))];
        if changed.contains(&true) {
            let before = Arc::clone(&self.config.read());
            let config = Config::new(self.total, schemas, levels, &before, &self.metrics);
            *self.config.write() = Arc::new(config);
        }
        self.shown.store(now, Ordering::Release);
    }

    /// Serves who is next, while there are seats.
    fn serve(self: &Arc<Self>, lane: &Lane) {
        let Some(level) = &lane.level else { return };
        loop {
            let next = level.lock().next(Instant::now());
            let Some(((told, schema), place)) = next else { return };
            // Who has gone meanwhile gives the seat back by this.
            drop(told.send(Seat::new(self, &schema, Some(place))));
        }
    }

    /// Divides the seats among the levels, unless that has just been done.
    fn divide(self: &Arc<Self>) {
        let Some(mut divided) = self.divided.try_lock().filter(|last| last.elapsed() >= DIVIDE) else { return };
        *divided = Instant::now();
        let config = Arc::clone(&self.config.read());
        let lanes = config.divide(&self.metrics);
        drop(divided);
        for lane in lanes {
            self.serve(&lane);
        }
    }
}

/// Takes what changed into the objects; whether anything did.
fn take<K: DeserializeOwned>(objects: &mut Objects<K>, since: Since) -> bool {
    let any = !since.is_empty();
    let name = |key: Key| key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    since.read_into(objects, name, |entry| entry.read().ok());
    any
}
