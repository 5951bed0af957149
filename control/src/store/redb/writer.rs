//! The writer thread: takes what is queued, gives each transaction its revision and checks, and commits all of it in one
//! durable redb transaction. While it waits for the disk the queue fills: that is the next batch. Callers that write one
//! thing after the other so split into two groups that take turns. Where commits take long, the writer gives those that it has
//! just answered a moment to ask again, and all of them share the next commit.
//!
//! Must stay true: only this thread writes the disk; an answer is sent after the fsync that covers it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::core::{Core, GAP, Head, Health, InFlight, Written, apply, keys_of, stage};
use super::disk::{Disk, State};
use super::{Options, Shared};
use crate::store::{Committed, Durability, Revision, StoreError, StoreStats, Txn};

/// Transactions of one batch.
const MAX_BATCH: usize = 1024;
/// How long a relaxed write may stay off the disk.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// How long the writer waits at most for callers that it has just answered; never longer than half of what a commit took
/// beyond [`CHEAP`].
const GATHER: Duration = Duration::from_millis(4);
/// A commit that takes no longer costs less than to wait for those who could share it.
const CHEAP: Duration = Duration::from_millis(2);
/// How often the pause is doubled in which a full disk is left alone: to open the file again may take reading all of it.
const DOUBLINGS: u32 = 3;
/// Records deleted per round because they expired.
const EXPIRE_LIMIT: usize = 512;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Request {
    Commit {
        txn: Txn,
        reply: Reply<Committed>,
        /// Held until the transaction is done: the queue's bound.
        permit: OwnedSemaphorePermit,
    },
    /// Answered when everything acknowledged so far is on disk.
    Flush { reply: Reply<()> },
}

/// What waits for the writer thread.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Default)]
struct Inner {
    requests: VecDeque<Request>,
    closing: bool,
    /// The writer sleeps until there are so many, or until its deadline.
    wanted: usize,
}

/// The moment after a commit in which its callers may join the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathering {
    answered: usize,
    until: Instant,
}

impl Gathering {
    /// Nobody is waited for.
    pub(super) fn none() -> Self {
        Self { answered: 0, until: Instant::now() }
    }

    /// After a commit that `took` so long.
    fn after(answered: usize, took: Duration) -> Self {
        Self { answered, until: Instant::now() + GATHER.min(took.saturating_sub(CHEAP) / 2) }
    }
}

impl Queue {
    pub(super) fn push(&self, request: Request) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        if inner.closing {
            return Err(StoreError::Closed);
        }
        inner.requests.push_back(request);
        let enough = inner.requests.len() >= inner.wanted;
        drop(inner);
        if enough {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Lets the writer look at its deadlines again.
    pub(super) fn nudge(&self) {
        drop(self.inner.lock());
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        self.inner.lock().closing = true;
        self.wake.notify_one();
    }

    /// Takes nothing more, and drops what waits: its callers are told that the store is closed.
    fn end(&self) {
        let mut inner = self.inner.lock();
        inner.closing = true;
        let dropped = std::mem::take(&mut inner.requests);
        drop(inner);
        drop(dropped);
    }

    /// Waits for requests, or until `deadline` says that something is due. The flag is set when nothing more will come.
    fn take(&self, gathering: Gathering, deadline: impl Fn() -> Option<Instant>) -> (Vec<Request>, bool) {
        let mut inner = self.inner.lock();
        let expected = (inner.requests.len() + gathering.answered).min(MAX_BATCH);
        inner.wanted = expected;
        while inner.requests.len() < expected && !inner.closing {
            if self.wake.wait_until(&mut inner, gathering.until).timed_out() {
                break;
            }
        }
        inner.wanted = 1;
        loop {
            if !inner.requests.is_empty() || inner.closing {
                let count = inner.requests.len().min(MAX_BATCH);
                let requests = inner.requests.drain(..count).collect();
                let last = inner.closing && inner.requests.is_empty();
                return (requests, last);
            }
            match deadline() {
                Some(at) if at <= Instant::now() => return (Vec::new(), false),
                Some(at) => {
                    self.wake.wait_until(&mut inner, at);
                }
                None => self.wake.wait(&mut inner),
            }
        }
    }
}

/// Numbers of the writer.
#[derive(Debug, Default)]
pub(super) struct Counters {
    batches: AtomicU64,
    transactions: AtomicU64,
    pub(super) relaxed: AtomicU64,
    pub(super) conflicts: AtomicU64,
    largest_batch: AtomicU64,
    fsync_nanos: AtomicU64,
    slowest_fsync_nanos: AtomicU64,
    expired: AtomicU64,
}

impl Counters {
    fn committed(&self, transactions: usize, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let transactions = transactions as u64;
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
        self.largest_batch.fetch_max(transactions, Ordering::Relaxed);
        self.fsync_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.slowest_fsync_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, stats: &mut StoreStats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.batches = get(&self.batches);
        stats.transactions = get(&self.transactions);
        stats.relaxed = get(&self.relaxed);
        stats.conflicts = get(&self.conflicts);
        stats.largest_batch = get(&self.largest_batch);
        stats.fsync = Duration::from_nanos(get(&self.fsync_nanos));
        stats.slowest_fsync = Duration::from_nanos(get(&self.slowest_fsync_nanos));
        stats.expired = get(&self.expired);
    }
}

/// What the writer leaves behind, also if the engine panics: nobody may wait for an answer that will not come.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.queue.end();
        let mut core = self.0.core.lock();
        if core.health == Health::Open {
            core.health = Health::Failed("its writer has stopped".to_owned());
        }
        drop(core);
        self.0.disk.write().take();
        self.0.changed.lock().take();
    }
}

/// The thread's own state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<Disk>,
    pub(super) state: State,
    pub(super) gathering: Gathering,
    /// When it last wrote.
    pub(super) wrote: Instant,
    /// For which a full disk has been left alone since it last had room.
    pub(super) pauses: u32,
}

/// A batch with revisions, ready for the disk.
struct Batch {
    /// Relaxed transactions that are visible but not on disk.
    visible: Vec<Arc<Written>>,
    staged: Vec<Arc<Written>>,
    answers: Vec<(Reply<Committed>, Result<Committed, StoreError>, OwnedSemaphorePermit)>,
    flushes: Vec<Reply<()>>,
    /// Whether the store accepts anything.
    accepted: Result<(), StoreError>,
    /// Written also if it has nothing, to find out whether there is room.
    tries: bool,
    state: State,
    now: u64,
}

impl Writer {
    pub(super) fn run(mut self) {
        let _end = End(Arc::clone(&self.shared));
        loop {
            let (requests, last) = self.shared.queue.take(self.gathering, || self.deadline());
            let tries = self.recover(last);
            let batch = self.prepare(requests, last, tries);
            self.commit(batch);
            if last {
                break;
            }
        }
    }

    /// After a write that found no room: opens the file again, if it is time to, and says whether the next batch is to be
    /// tried. The file holds what it held before that write, or a person must see to it.
    fn recover(&mut self, last: bool) -> bool {
        let due = |health: &Health| matches!(health, Health::Full(at) if last || *at <= Instant::now());
        if !due(&self.shared.core.lock().health) {
            return false;
        }
        let why = match self.disk.open_again() {
            Ok(Some(state)) if state == self.state => return true,
            Ok(_) => "the file is not as it was before the disk was full".to_owned(),
            Err(fault) if fault.passes() => {
                self.shared.core.lock().health = full(&mut self.pauses, &self.shared.options);
                return false;
            }
            Err(fault) => super::describe(&fault),
        };
        tracing::error!(why, "the store's file cannot be opened again after the disk was full");
        self.shared.core.lock().health = Health::Failed(why);
        false
    }

    /// When relaxed writes must be written, or a record expires.
    fn deadline(&self) -> Option<Instant> {
        let core = self.shared.core.lock();
        match core.health {
            Health::Open => {}
            Health::Full(at) => return Some(at),
            Health::Failed(_) | Health::Closed => return None,
        }
        let flush_after = u64::try_from(FLUSH_AFTER.as_millis()).unwrap_or(u64::MAX);
        let flush = core.unwritten.front().map(|w| w.time.saturating_add(flush_after));
        let at = flush.into_iter().chain(core.next_expiry()).min()?;
        drop(core);
        Some(Instant::now() + Duration::from_millis(at.saturating_sub(super::now())))
    }

    /// Orders the batch after everything visible, with room for relaxed writes between.
    /// `tries`: the disk may have room again.
    fn prepare(&self, requests: Vec<Request>, last: bool, tries: bool) -> Batch {
        let now = super::now();
        let healthy = |core: &Core| if tries { Ok(()) } else { core.healthy() };
        let mut core = self.shared.core.lock();
        let expired = core.expire(now, EXPIRE_LIMIT);
        self.shared.counters.expired.fetch_add(expired as u64, Ordering::Relaxed);
        let visible: Vec<Arc<Written>> = core.unwritten.iter().cloned().collect();
        let published = core.published;
        let first = published + 1 + GAP;
        let mut batch = Batch {
            visible,
            staged: Vec::new(),
            answers: Vec::new(),
            flushes: Vec::new(),
            accepted: healthy(&core),
            tries,
            state: State { complete: published, ..self.state },
            now,
        };
        let mut head = core.head.clone();
        let mut in_flight = InFlight { first, keys: std::collections::HashSet::new() };
        for request in requests {
            match request {
                Request::Flush { reply } => batch.flushes.push(reply),
                Request::Commit { txn, reply, permit } => {
                    in_flight.keys.extend(keys_of(&txn).cloned());
                    let revision = first + batch.staged.len() as Revision;
                    let answer = healthy(&core).and_then(|()| step(&mut head, &mut batch, txn, revision));
                    batch.answers.push((reply, answer, permit));
                }
            }
        }
        batch.state.last = batch.staged.last().map_or(published, |w| w.revision);
        batch.state.clean = last;
        core.in_flight = (!batch.staged.is_empty()).then_some(in_flight);
        if last && core.health == Health::Open {
            // From here on a relaxed write would be in no batch.
            core.health = Health::Closed;
        }
        drop(core);
        if expired > 0 {
            self.shared.announce();
        }
        batch
    }

    fn commit(&mut self, batch: Batch) {
        let Batch { visible, staged, mut answers, flushes, accepted, tries, state, now } = batch;
        let needed = tries || !visible.is_empty() || !staged.is_empty() || state.clean;
        let (answered, began) = (answers.len(), Instant::now());
        let outcome = match accepted {
            Ok(()) if needed => self.write(&visible, &staged, state, now),
            other => other,
        };
        let took = began.elapsed();
        if let Err(error) = &outcome {
            // Also of what was refused: that may have been for what another of the batch wrote, which now is not there.
            for (_, answer, _) in &mut answers {
                *answer = Err(again(error));
            }
        }
        for (reply, answer, permit) in answers {
            if answer.is_err() {
                self.shared.counters.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            drop(permit);
            // The caller may have gone away; the write stands.
            let _ = reply.send(answer);
        }
        for reply in flushes {
            let _ = reply.send(outcome.as_ref().map_err(again).copied());
        }
        self.gathering = Gathering::after(answered, took);
    }

    /// Writes the batch, then makes it visible.
    fn write(
        &mut self,
        visible: &[Arc<Written>],
        staged: &[Arc<Written>],
        state: State,
        now: u64,
    ) -> Result<(), StoreError> {
        let all: Vec<Arc<Written>> = visible.iter().chain(staged).cloned().collect();
        let opens_at_once = self.wrote.elapsed() >= self.shared.options.quiet;
        let result = self.disk.write(&all, state, now, &self.shared.options, opens_at_once);
        self.wrote = Instant::now();
        let mut core = self.shared.core.lock();
        core.in_flight = None;
        match result {
            Ok((state, took)) => {
                (self.state, self.pauses) = (state, 0);
                core.disk_oldest = state.oldest;
                if matches!(core.health, Health::Full(_)) {
                    tracing::info!("the disk has room again");
                    core.health = if state.clean { Health::Closed } else { Health::Open };
                }
                publish_all(&mut core, staged);
                core.written(visible.len(), now);
                drop(core);
                self.shared.counters.committed(all.len(), took);
                self.shared.announce();
                Ok(())
            }
            Err(error) if self.disk.lacks_room() => {
                // Said once, until there is room again.
                if !matches!(core.health, Health::Full(_)) {
                    tracing::error!(%error, "the disk has no room; the store writes again when it has");
                }
                core.health = full(&mut self.pauses, &self.shared.options);
                Err(StoreError::Full)
            }
            Err(error) => {
                tracing::error!(%error, "the store could not write; it accepts nothing more until it is opened again");
                core.health = Health::Failed(error.to_string());
                Err(StoreError::Engine(error.into()))
            }
        }
    }
}

/// A full disk is left alone for a while, and longer each time.
fn full(pauses: &mut u32, options: &Options) -> Health {
    let pause = options.full_disk_pause * (1 << (*pauses).min(DOUBLINGS));
    *pauses = pauses.saturating_add(1);
    Health::Full(Instant::now() + pause)
}

fn publish_all(core: &mut Core, staged: &[Arc<Written>]) {
    for written in staged {
        core.publish(Arc::clone(written));
    }
}

/// Stages one transaction of a batch: a later one sees it.
fn step(head: &mut Head, batch: &mut Batch, txn: Txn, revision: Revision) -> Result<Committed, StoreError> {
    let (written, values) = stage(head, txn, revision, batch.now)?;
    if written.changes.is_empty() {
        // Not `revision - 1`: nobody may be told a revision that never comes.
        let revision = batch.staged.last().map_or(batch.state.complete, |before| before.revision);
        return Ok(Committed { revision, values });
    }
    apply(head, &mut std::collections::BTreeSet::new(), &written);
    batch.staged.push(Arc::new(written));
    Ok(Committed { revision, values })
}

/// The same failure for each caller of a batch.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Closed => StoreError::Closed,
        StoreError::Full => StoreError::Full,
        other => StoreError::Engine(super::describe(other).into()),
    }
}

/// Whether a transaction may be acknowledged from memory.
pub(super) fn relaxed(txn: &Txn) -> bool {
    txn.durability == Durability::Relaxed
}
