//! Runs controllers: each has a queue, a bounded number of reconciles in flight, a timer that looks at everything again,
//! and an owner that stops it.
//!
//! What must stay true: no task outlives [`Running::shutdown`]; a reconcile that panics costs one retry, not the controller.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::queue::Item;
use super::{Error, Key, Metrics, Queue, Shared};

/// What is in flight gets this long to end when the process stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Keeps one kind of object as it should be.
pub trait Controller: Send + Sync + 'static {
    type Key: Item;

    /// How it is called in logs and metrics.
    const NAME: &'static str;

    /// How many keys are worked on at once.
    const WORKERS: usize = 16;

    /// How often every key is looked at again without a reason.
    const RESYNC: Duration = Duration::from_mins(10);

    /// Subscribes to what makes a key worth looking at. Called once, when the caches are filled.
    fn watch(self: &Arc<Self>, queue: &Queue<Self::Key>);

    /// All keys there are, for the timer.
    fn keys(&self) -> Vec<Self::Key>;

    /// Brings the key's object nearer to what it should be. `Some`: look again after this time.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Option<Duration>, Error>> + Send;
}

/// Tasks that run until they are told to stop.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, tasks: JoinSet::new() }
    }

    pub fn spawn(&mut self, task: BoxFuture<'static, ()>) {
        self.tasks.spawn(task);
    }

    /// Stops every task and waits for it. Dropping instead aborts them.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a controller ended early");
            }
        }
    }
}

/// Runs one controller until it is told to stop.
pub async fn run<C: Controller>(controller: C, shared: Arc<Shared>, metrics: Metrics, stop: CancellationToken) {
    tokio::select! {
        () = shared.synced() => {}
        () = stop.cancelled() => return,
    }
    let controller = Arc::new(controller);
    let queue = Queue::default();
    controller.watch(&queue);
    let mut flights = JoinSet::new();
    let mut resync = tokio::time::interval(C::RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    debug!(controller = C::NAME, "started");
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = flights.join_next() => if let Err(error) = ended {
                warn!(controller = C::NAME, %error, "a reconcile panicked");
            },
            _ = resync.tick() => controller.keys().into_iter().for_each(|key| queue.add(key)),
            key = queue.next(), if flights.len() < C::WORKERS => {
                flights.spawn(one(controller.clone(), queue.clone(), key, metrics.clone()));
            }
        }
        metrics.waiting(C::NAME, queue.depth());
    }
    queue.close();
    drain(flights, C::NAME).await;
}

/// Gives what is in flight a moment to end when the process stops, and aborts the rest.
pub async fn drain(mut flights: JoinSet<()>, of: &'static str) {
    let drained = tokio::time::timeout(DRAIN, async { while flights.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        debug!(of, "requests were still in flight at the end and are given up");
    }
    flights.shutdown().await;
}

/// Frees the key again, whatever happens to the reconcile.
struct Busy<T: Item> {
    queue: Queue<T>,
    key: T,
    succeeded: bool,
}

impl<T: Item> Drop for Busy<T> {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.succeeded);
    }
}

async fn one<C: Controller>(controller: Arc<C>, queue: Queue<C::Key>, key: C::Key, metrics: Metrics) {
    let mut busy = Busy { queue: queue.clone(), key, succeeded: false };
    let start = Instant::now();
    let result = controller.reconcile(&busy.key).await;
    metrics.reconciled(C::NAME, start.elapsed(), result.is_ok());
    match result {
        Ok(again) => {
            busy.succeeded = true;
            if let Some(delay) = again {
                queue.add_after(busy.key.clone(), delay);
            }
        }
        Err(error) => report(C::NAME, &busy.key, &error),
    }
}

/// A lost race is normal; anything else is worth a line.
fn report(controller: &'static str, key: &impl std::fmt::Debug, error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if error.is_conflict() || matches!(error, Error::Unfinished(_)) {
        debug!(controller, ?key, %error, cause, "will try again");
    } else {
        warn!(controller, ?key, %error, cause, "reconcile failed; will try again");
    }
}

/// Enqueues the object itself.
pub fn itself<K: super::kinds::Kind>(queue: &Queue<Key>) -> impl Fn(&super::Change<'_, K>) + Send + Sync + 'static {
    let queue = queue.clone();
    move |change| {
        if let Some(object) = change.latest() {
            queue.add(Key::of(&**object));
        }
    }
}
