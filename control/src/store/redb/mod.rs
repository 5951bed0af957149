//! The embedded engine: every record in memory, redb underneath for what must survive.
//!
//! Two stages. The *memory stage* ([`core`]) holds the visible state and gives revisions; the *disk stage* ([`writer`],
//! one thread) commits what is queued in one durable transaction. The order of revisions, visibility and durability:
//!
//! - A synced transaction is visible (to reads, watches, preconditions of others) only after its fsync, and is answered then.
//!   So nobody ever acts on a write that a power cut takes back, and a full disk leaves no visible state that is not so.
//! - A relaxed transaction is visible and answered at once, also while the writer waits for the disk. Watch events must be
//!   in revision order, so it is ordered *before* the batch in flight: a batch leaves a gap of [`core::GAP`] free revisions
//!   below its own, and relaxed writes take those. That order is a true one because they share no key with the batch; one
//!   that does, or that finds the gap used up, waits for its turn in the queue. Revisions therefore skip numbers.
//! - Relaxed writes that a crash takes back were seen with revisions that must not be given out again. A store that was not
//!   closed continues [`core::RESERVE`] further on, and a watch from inside that range must list again.
//! - A batch that finds no room on the disk did not happen: after a pause the file is opened again, and written, until that
//!   succeeds; it goes on from the batch before. When the disk fails otherwise, whether the batch happened is unknown: the store
//!   refuses everything but reads from then on, until it is opened again by a person.
//!
//! Watches pull: each has a cursor into the history, in memory or on disk, so that a slow one costs nothing and ends with
//! [`StoreError::Compacted`] when the history has moved past it.

mod backend;
mod core;
mod disk;
mod history;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use redb::backends::InMemoryBackend;
use tokio::sync::{Semaphore, oneshot, watch};

use self::core::{Core, Head, Refused, record};
use self::disk::{Disk, Loaded};
use self::writer::{Counters, Gathering, Queue, Request, Writer};
use super::{Change, Changes, Committed, Key, Page, Record, Revision, Store, StoreError, StoreStats, Txn};

/// Synced transactions that may wait; further callers wait before they queue.
const QUEUE: usize = 4096;
/// Changes handed to a watcher at once (a transaction is never split).
const WATCH_BATCH: usize = 512;

/// Bounds of the history: what is older than its age, or beyond its bytes, is forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Of what is in memory, from which most watches resume.
    pub memory_history_bytes: usize,
    pub memory_history_age: Duration,
    /// Of what is on disk, for watches that resume from further back or after a restart.
    pub disk_history_bytes: u64,
    pub disk_history_age: Duration,
    /// How long a disk that has no room is left alone at first; up to eight times as long if it still has none.
    pub full_disk_pause: Duration,
    /// After such a pause a commit leaves the file so that it opens at once if the process is then killed.
    pub quiet: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_history_bytes: 12 << 20,
            memory_history_age: Duration::from_mins(5),
            disk_history_bytes: 64 << 20,
            disk_history_age: Duration::from_hours(1),
            full_disk_pause: Duration::from_secs(1),
            quiet: Duration::from_secs(1),
        }
    }
}

/// What callers, watchers and the writer share.
struct Shared {
    core: Mutex<Core>,
    queue: Queue,
    permits: Arc<Semaphore>,
    /// Announces the visible revision; `None` once closed, which ends the watches.
    changed: Mutex<Option<watch::Sender<Revision>>>,
    /// `None` once closed.
    disk: RwLock<Option<Arc<Disk>>>,
    counters: Counters,
    options: Options,
}

impl Shared {
    fn announce(&self) {
        let revision = self.core.lock().published;
        if let Some(changed) = &*self.changed.lock() {
            changed.send_if_modified(|shown| revision > std::mem::replace(shown, revision.max(*shown)));
        }
    }

    fn disk(&self) -> Result<Arc<Disk>, StoreError> {
        self.disk.read().clone().ok_or(StoreError::Closed)
    }

    /// Why a write was refused: after the disk was full it may have room, and the file not be free.
    fn why(&self, error: StoreError) -> StoreError {
        let in_use = || self.disk().is_ok_and(|disk| disk.in_use());
        if matches!(error, StoreError::Full) && in_use() { StoreError::InUse } else { error }
    }

    /// Changes after `after` up to `up_to` from memory and, for what is older, disk.
    fn history(&self, prefix: &str, after: Revision, up_to: Revision) -> Result<Vec<Change>, StoreError> {
        let core = self.core.lock();
        core.check_history(after)?;
        let start = core.ring.start();
        let recent: Vec<_> = core.ring.after(after).take_while(|w| w.revision <= up_to).cloned().collect();
        let older = (after < start).then(|| (core.ring.values_at_start(), core.head.clone()));
        drop(core);
        let mut changes = match older {
            Some((values, head)) => {
                let (undos, oldest) = self.disk()?.history(prefix, after, start)?;
                if oldest > after {
                    return Err(StoreError::Compacted { asked: after, oldest });
                }
                history::replay(undos, values, &head)
            }
            None => Vec::new(),
        };
        changes.retain(|c| c.revision <= up_to);
        let recent = recent.iter().flat_map(|w| &w.changes).filter(|c| c.key.as_str().starts_with(prefix));
        changes.extend(recent.cloned());
        Ok(changes)
    }
}

/// The redb engine.
pub struct RedbStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens or creates the store in a directory (created with mode 0700). Blocks while it reads the file.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, Options::default())
    }

    pub fn open_with(dir: &Path, options: Options) -> Result<Self, StoreError> {
        let (disk, loaded) = disk::open(dir)?;
        Self::start(disk, loaded, options)
    }

    /// A store that ends with the process: the same engine on memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let options = Options { disk_history_bytes: 16 << 20, ..Options::default() };
        Self::in_memory_with(options)
    }

    pub fn in_memory_with(options: Options) -> Result<Self, StoreError> {
        let (disk, loaded) = disk::on(InMemoryBackend::new())?;
        Self::start(disk, loaded, options)
    }

    fn start(disk: Arc<Disk>, loaded: Loaded, options: Options) -> Result<Self, StoreError> {
        let Loaded { head, state, gaps } = loaded;
        let (changed, _) = watch::channel(state.last);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(head, state.last, state.oldest, gaps, &options)),
            queue: Queue::default(),
            permits: Arc::new(Semaphore::new(QUEUE)),
            changed: Mutex::new(Some(changed)),
            disk: RwLock::new(Some(Arc::clone(&disk))),
            counters: Counters::default(),
            options,
        });
        let (gathering, wrote) = (Gathering::none(), Instant::now());
        let writer = Writer { shared: Arc::clone(&shared), disk, state, gathering, wrote, pauses: 0 };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|e| StoreError::Engine(e.into()))?;
        Ok(Self { shared, writer: Mutex::new(Some(thread)) })
    }

    /// Waits until everything acknowledged is on disk.
    async fn flush(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(Request::Flush { reply })?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn enqueue(&self, txn: Txn) -> Result<Committed, StoreError> {
        let permit = Arc::clone(&self.shared.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.shared.queue.push(Request::Commit { txn, reply, permit })?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn write(&self, txn: Txn) -> Result<Committed, StoreError> {
        if !writer::relaxed(&txn) {
            return self.enqueue(txn).await;
        }
        let (applied, first_unwritten) = {
            let mut core = self.shared.core.lock();
            let first = core.unwritten.is_empty();
            (core.apply_relaxed(txn, now()), first)
        };
        match applied {
            Ok((revision, values)) => {
                self.shared.counters.relaxed.fetch_add(1, Ordering::Relaxed);
                self.shared.announce();
                if first_unwritten {
                    self.shared.queue.nudge();
                }
                Ok(Committed { revision, values })
            }
            Err(Refused::Busy(txn)) => self.enqueue(txn).await,
            Err(Refused::Failed(error)) => {
                self.shared.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn head(&self) -> Result<(Head, Revision), StoreError> {
        let core = self.shared.core.lock();
        if core.health == core::Health::Closed {
            Err(StoreError::Closed)
        } else {
            Ok((core.head.clone(), core.published))
        }
    }
}

impl Drop for RedbStore {
    /// As [`Store::close`], without an answer: the file's lock is free afterwards.
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.writer.lock().take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let (head, _) = self.head()?;
        Ok(head.get(key).map(|slot| record(key, slot)))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let (head, revision) = self.head()?;
        let first = Key::from_stored(prefix);
        let from = after.filter(|key| **key >= first).unwrap_or(&first);
        let mut rows = head
            .range::<_, Key>(from..)
            .skip_while(|(key, _)| after == Some(key))
            .take_while(|(key, _)| key.as_str().starts_with(prefix));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let records = rows.by_ref().take(limit).map(|(key, slot)| record(key, slot)).collect();
        Ok(Page { revision, records, more: rows.next().is_some() })
    }

    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        self.write(txn).await.map_err(|error| self.shared.why(error))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let announced = self.shared.changed.lock().as_ref().map(watch::Sender::subscribe).ok_or(StoreError::Closed)?;
        self.shared.core.lock().check_history(after)?;
        let follower =
            Follower { shared: Arc::clone(&self.shared), prefix: prefix.into(), cursor: after, changed: announced };
        Ok(stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(Some(changes)) => Some((Ok(changes), Some(follower))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }

    async fn history(&self, prefix: &str, after: Revision, up_to: Revision) -> Result<Vec<Change>, StoreError> {
        let shared = Arc::clone(&self.shared);
        let prefix = prefix.to_owned();
        blocking(move || shared.history(&prefix, after, up_to)).await
    }

    fn revision(&self) -> Revision {
        self.shared.core.lock().published
    }

    fn writable(&self) -> Result<(), StoreError> {
        let healthy = self.shared.core.lock().healthy();
        healthy.map_err(|error| self.shared.why(error))
    }

    fn oldest(&self) -> Revision {
        self.shared.core.lock().oldest()
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        self.flush().await?;
        let disk = self.shared.disk()?;
        let to: PathBuf = to.to_owned();
        blocking(move || disk.backup(&to)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.shared.queue.close();
        let thread = self.writer.lock().take();
        if let Some(thread) = thread {
            blocking(move || thread.join().map_err(|_| StoreError::Closed)).await?;
        }
        match &self.shared.core.lock().health {
            core::Health::Failed(why) => Err(StoreError::Engine(why.clone().into())),
            core::Health::Full(_) => Err(StoreError::Engine("the disk had no room for the last writes".into())),
            core::Health::Open | core::Health::Closed => Ok(()),
        }
    }

    fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::default();
        self.shared.counters.fill(&mut stats);
        let core = self.shared.core.lock();
        stats.records = core.head.len();
        stats.unwritten = core.unwritten.len();
        stats.history_bytes = core.ring.bytes();
        stats
    }
}

/// A watch's place in the history.
struct Follower {
    shared: Arc<Shared>,
    prefix: Box<str>,
    cursor: Revision,
    changed: watch::Receiver<Revision>,
}

impl Follower {
    /// The next changes; `None` when the store has closed and everything was seen.
    async fn next(&mut self) -> Result<Option<Vec<Change>>, StoreError> {
        loop {
            let closed = self.changed.has_changed().is_err();
            let start = self.shared.core.lock().ring.start();
            let changes = if self.cursor < start { self.take_disk(start).await? } else { self.take_ring() };
            if !changes.is_empty() {
                return Ok(Some(changes));
            }
            if closed {
                return Ok(None);
            }
            let cursor = self.cursor;
            // An error is the end of the store: one more look at what it left.
            let _ = self.changed.wait_for(|revision| *revision > cursor).await;
        }
    }

    async fn take_disk(&mut self, up_to: Revision) -> Result<Vec<Change>, StoreError> {
        let (shared, prefix, after) = (Arc::clone(&self.shared), self.prefix.clone(), self.cursor);
        let changes = blocking(move || shared.history(&prefix, after, up_to)).await?;
        self.cursor = up_to;
        Ok(changes)
    }

    fn take_ring(&mut self) -> Vec<Change> {
        let core = self.shared.core.lock();
        let mut changes = Vec::new();
        for written in core.ring.after(self.cursor) {
            self.cursor = written.revision;
            changes.extend(written.changes.iter().filter(|c| c.key.as_str().starts_with(&*self.prefix)).cloned());
            if changes.len() >= WATCH_BATCH {
                break;
            }
        }
        changes
    }
}

/// Runs what touches the disk where it blocks nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Engine(e.into()))?
}

/// Unix milliseconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An error with its causes, for callers that get a copy of it.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
