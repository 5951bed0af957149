//! The disk stage: one redb file with the records, the history and the store's own state.
//!
//! Must stay true: everything of a batch is in one redb transaction; whatever goes wrong with the file while it is opened
//! is a [`StoreError`] that says what to do, never a panic; a file is opened again only after failures of which it is known
//! what they left ([`backend`](super::backend)).

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition, WriteTransaction,
};

use super::Options;
use super::backend::{Open, OpenFault, Source, caught, open_on};
use super::core::{Head, RESERVE, Slot, Written};
use super::history::{self, Undo};
use crate::store::{Change, ChangeKind, Key, Revision, StoreError};

/// Key → revision, expiry (both little-endian u64), value.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Revision → the transaction's changes.
const HISTORY: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("history");
/// Ranges of revisions that a crash may have taken back: after the first, before the second.
const GAPS: TableDefinition<'_, u64, u64> = TableDefinition::new("gaps");
/// `format`, `state`.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The version of these tables.
const FORMAT: u32 = 1;
/// The name of the file in the data directory.
pub(super) const FILE: &str = "state.redb";
/// redb's own page cache; every record is in memory anyway, so this serves commits only.
pub(super) const CACHE_BYTES: usize = 8 << 20;
/// How long those who read the file are waited for before it is opened again; who writes waits as long.
const READERS: Duration = Duration::from_millis(50);
/// Files below this are not worth compacting.
const COMPACT_FROM: u64 = 16 << 20;

/// What the store knows of itself, written with each batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The last revision on disk.
    pub(super) last: Revision,
    /// Up to here nothing is missing.
    pub(super) complete: Revision,
    /// Whether the store was closed, so that it showed nothing that is not here.
    pub(super) clean: bool,
    /// History after this revision is kept.
    pub(super) oldest: Revision,
    /// Bytes of history entries.
    pub(super) history_bytes: u64,
}

impl State {
    fn encode(&self) -> [u8; 40] {
        let words = [self.last, self.complete, u64::from(self.clean), self.oldest, self.history_bytes];
        let mut out = [0; 40];
        for (chunk, word) in out.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let [last, complete, clean, oldest, history_bytes] = words else { return None };
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        Some(Self {
            last: word(last),
            complete: word(complete),
            clean: word(clean) != 0,
            oldest: word(oldest),
            history_bytes: word(history_bytes),
        })
    }
}

/// What a file held when it was opened.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) head: Head,
    pub(super) state: State,
    pub(super) gaps: Vec<(Revision, Revision)>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Disk {
    /// `None`: it could not be opened again.
    open: RwLock<Option<Open>>,
    /// `None`: what is no file cannot be opened again.
    source: Option<Source>,
    /// It was not opened again, since somebody reads it.
    in_use: AtomicBool,
}

impl Disk {
    fn new(open: Open, source: Option<Source>) -> Arc<Self> {
        Arc::new(Self { open: RwLock::new(Some(open)), source, in_use: AtomicBool::new(false) })
    }
}

/// Opens or creates the file in `dir` and reads all of it.
pub(super) fn open(dir: &Path) -> Result<(Arc<Disk>, Loaded), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| StoreError::Engine(e.into()))?;
    let path = dir.join(FILE);
    let shown = path.display().to_string();
    caught(|| open_file(&path)).map_err(|fault| match fault {
        OpenFault::Locked | OpenFault::InUse => StoreError::Locked { path: dir.display().to_string() },
        OpenFault::Newer(found) => StoreError::Newer { path: shown, found, known: FORMAT },
        OpenFault::Io(source) => StoreError::Engine(source.into()),
        OpenFault::Damaged(source) => StoreError::Damaged { path: shown, source },
    })
}

/// A store on something that is no file.
pub(super) fn on(backend: impl StorageBackend) -> Result<(Arc<Disk>, Loaded), StoreError> {
    started(open_on(Box::new(backend)), None)
}

/// The same, on what can be opened again.
#[cfg(test)]
pub(super) fn on_source(source: Source) -> Result<(Arc<Disk>, Loaded), StoreError> {
    started(source.open(), Some(source))
}

/// Why what a store is on cannot be opened.
#[cfg(test)]
pub(super) fn try_open(source: &Source) -> Result<(), OpenFault> {
    caught(|| {
        let open = source.open()?;
        check_format(&open.db)?;
        load(&open.db).map(drop)
    })
}

fn started(open: Result<Open, OpenFault>, source: Option<Source>) -> Result<(Arc<Disk>, Loaded), StoreError> {
    let loaded = open.and_then(|open| Ok((load(&open.db)?, open)));
    let (loaded, open) = loaded.map_err(|fault| match fault {
        OpenFault::Damaged(source) => StoreError::Engine(source),
        OpenFault::Io(source) => StoreError::Engine(source.into()),
        OpenFault::Newer(_) | OpenFault::Locked | OpenFault::InUse => StoreError::Closed,
    })?;
    Ok((Disk::new(open, source), loaded))
}

fn open_file(path: &Path) -> Result<(Arc<Disk>, Loaded), OpenFault> {
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    drop(made.map_err(OpenFault::Io)?);
    let source = Source::of_file(path);
    let mut open = source.open()?;
    check_format(&open.db)?;
    let length = std::fs::metadata(path).map_or(0, |m| m.len());
    if length >= COMPACT_FROM && half_free(&open.db, length)? {
        tracing::info!(path = %path.display(), length, "compacting the database");
        open.db.compact()?;
    }
    let loaded = load(&open.db)?;
    Ok((Disk::new(open, Some(source)), loaded))
}

fn half_free(db: &Database, length: u64) -> Result<bool, OpenFault> {
    let txn = db.begin_write()?;
    let stats = txn.stats()?;
    txn.abort()?;
    Ok(stats.allocated_pages() * stats.page_size() as u64 * 2 <= length)
}

/// Refuses a file of a newer format; marks a new one.
fn check_format(db: &Database) -> Result<(), OpenFault> {
    let txn = db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        let found = meta.get("format")?.map(|v| v.value().try_into().map(u32::from_le_bytes));
        match found {
            Some(Ok(found)) if found > FORMAT => return Err(OpenFault::Newer(found)),
            Some(Ok(_)) => {}
            Some(Err(_)) => return Err(OpenFault::Damaged("the format mark is not a number".into())),
            None => {
                meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
            }
        }
    }
    txn.commit()?;
    Ok(())
}

/// Reads everything, and marks the file as in use.
fn load(db: &Database) -> Result<Loaded, OpenFault> {
    let mut txn = db.begin_write()?;
    txn.set_quick_repair(true);
    let loaded = {
        let mut meta = txn.open_table(META)?;
        let objects = txn.open_table(OBJECTS)?;
        txn.open_table(HISTORY)?;
        let stored = meta.get("state")?.map(|v| State::decode(v.value()));
        let mut state = match stored {
            Some(state) => state.ok_or_else(|| OpenFault::Damaged("the state row is cut short".into()))?,
            None => State { clean: true, ..State::default() },
        };
        let mut gaps_table = txn.open_table(GAPS)?;
        if !state.clean {
            gaps_table.insert(state.complete, state.last + RESERVE)?;
            state.last += RESERVE;
        }
        gaps_table.retain(|_, to| to > state.oldest)?;
        state = State { complete: state.last, clean: false, ..state };
        meta.insert("state", state.encode().as_slice())?;
        let mut gaps = Vec::new();
        for row in gaps_table.iter()? {
            let (from, to) = row?;
            gaps.push((from.value(), to.value()));
        }
        let mut head = Head::new();
        for row in objects.iter()? {
            let (key, value) = row?;
            let slot = decode_slot(value.value()).ok_or_else(|| OpenFault::Damaged("a record is cut short".into()))?;
            head.insert(Key::from_stored(key.value()), slot);
        }
        Loaded { head, state, gaps }
    };
    txn.commit()?;
    Ok(loaded)
}

fn stored_state(db: &Database) -> Result<Option<State>, redb::Error> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    Ok(meta.get("state")?.and_then(|v| State::decode(v.value())))
}

fn decode_slot(bytes: &[u8]) -> Option<Slot> {
    let (revision, rest) = bytes.split_first_chunk::<8>()?;
    let (expires, value) = rest.split_first_chunk::<8>()?;
    Some(Slot {
        revision: u64::from_le_bytes(*revision),
        expires: u64::from_le_bytes(*expires),
        value: Bytes::copy_from_slice(value),
    })
}

impl Disk {
    /// Writes a batch durably, trims the history, and returns the new state. `state` is the one before, with `last`,
    /// `complete` and `clean` already those of the batch. A file that is not closed after a write that `opens_at_once` is ready
    /// when it is opened; after another one all of it is checked first. The former takes a second sync.
    pub(super) fn write(
        &self,
        batch: &[Arc<Written>],
        state: State,
        now: u64,
        options: &Options,
        opens_at_once: bool,
    ) -> Result<(State, Duration), redb::Error> {
        let open = self.open.read();
        let mut txn = open.as_ref().ok_or(redb::Error::DatabaseClosed)?.db.begin_write()?;
        txn.set_quick_repair(opens_at_once);
        let state = write_tables(&txn, batch, state, now, options)?;
        let began = std::time::Instant::now();
        txn.commit()?;
        Ok((state, began.elapsed()))
    }

    /// Whether a failed write only lacked room, so that the file may be opened again.
    pub(super) fn lacks_room(&self) -> bool {
        self.source.is_some() && self.open.read().as_ref().is_none_or(Open::lacks_room)
    }

    /// Opens the file again, and returns what it says of itself. Somebody who reads it for long, as a backup does, goes first.
    pub(super) fn open_again(&self) -> Result<Option<State>, OpenFault> {
        let open = self.open.try_write_for(READERS);
        self.in_use.store(open.is_none(), Ordering::Relaxed);
        let mut open = open.ok_or(OpenFault::InUse)?;
        let source = self.source.as_ref().ok_or(OpenFault::Locked)?;
        let (new, state) = caught(|| {
            // Its lock must be free.
            drop(open.take());
            let new = source.open()?;
            let state = stored_state(&new.db).map_err(|error| OpenFault::Damaged(error.into()))?;
            Ok((new, state))
        })?;
        *open = Some(new);
        Ok(state)
    }

    /// Whether writes wait for nothing but somebody who reads the file.
    pub(super) fn in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Reads the file, until the answer is dropped.
    #[cfg(test)]
    pub(super) fn read(&self) -> impl Drop + '_ {
        self.open.read()
    }

    /// History entries after `after` up to `up_to`, of keys that begin with `prefix`, with the revision after which the
    /// history was complete when it was read.
    pub(super) fn history(
        &self,
        prefix: &str,
        after: Revision,
        up_to: Revision,
    ) -> Result<(Vec<Undo>, Revision), StoreError> {
        let engine = |e: redb::Error| StoreError::Engine(e.into());
        let read = || -> Result<(Vec<Undo>, Revision), redb::Error> {
            let open = self.open.read();
            let txn = open.as_ref().ok_or(redb::Error::DatabaseClosed)?.db.begin_read()?;
            let meta = txn.open_table(META)?;
            let oldest = meta.get("state")?.and_then(|v| State::decode(v.value())).map_or(0, |s| s.oldest);
            let table = txn.open_table(HISTORY)?;
            let mut undos = Vec::new();
            for row in table.range(after + 1..=up_to)? {
                let (revision, entry) = row?;
                history::decode(revision.value(), entry.value(), prefix, &mut undos)
                    .ok_or_else(|| redb::Error::Corrupted(format!("history entry {}", revision.value())))?;
            }
            Ok((undos, oldest))
        };
        if after >= up_to { Ok((Vec::new(), 0)) } else { read().map_err(engine) }
    }

    /// Copies all tables, as they are now, to a new file.
    pub(super) fn backup(&self, to: &Path) -> Result<(), StoreError> {
        let io = |e: std::io::Error| StoreError::Engine(e.into());
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to).map_err(io)?;
        let copy = || -> Result<(), redb::Error> {
            let open = self.open.read();
            let from = open.as_ref().ok_or(redb::Error::DatabaseClosed)?.db.begin_read()?;
            let target = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)?;
            let mut txn = target.begin_write()?;
            txn.set_quick_repair(true);
            copy_table(&from, &txn, META)?;
            copy_table(&from, &txn, OBJECTS)?;
            copy_table(&from, &txn, HISTORY)?;
            copy_table(&from, &txn, GAPS)?;
            txn.commit()?;
            Ok(())
        };
        copy().map_err(|error| {
            // Half a copy is none, and is in the way of the next.
            if let Err(error) = std::fs::remove_file(to) {
                tracing::warn!(%error, file = %to.display(), "half a backup is left behind");
            }
            StoreError::Engine(error.into())
        })
    }
}

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    from: &redb::ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), redb::Error> {
    let source = from.open_table(table)?;
    let mut target = to.open_table(table)?;
    for row in source.iter()? {
        let (key, value) = row?;
        target.insert(key.value(), value.value())?;
    }
    Ok(())
}

fn write_tables(
    txn: &WriteTransaction,
    batch: &[Arc<Written>],
    mut state: State,
    now: u64,
    options: &Options,
) -> Result<State, redb::Error> {
    let mut objects = txn.open_table(OBJECTS)?;
    let mut history = txn.open_table(HISTORY)?;
    let mut row = Vec::new();
    for written in batch {
        for change in &written.changes {
            write_object(&mut objects, written, change, &mut row)?;
        }
        let entry = history::encode(written);
        state.history_bytes += entry.len() as u64;
        history.insert(written.revision, entry.as_slice())?;
    }
    trim_history(&mut history, &mut state, batch.len() * 2 + 64, now, options)?;
    txn.open_table(META)?.insert("state", state.encode().as_slice())?;
    Ok(state)
}

fn write_object(
    objects: &mut Table<'_, &'static str, &'static [u8]>,
    written: &Written,
    change: &Change,
    row: &mut Vec<u8>,
) -> Result<(), redb::Error> {
    if change.kind == ChangeKind::Deleted {
        objects.remove(change.key.as_str())?;
        return Ok(());
    }
    row.clear();
    row.extend_from_slice(&written.revision.to_le_bytes());
    row.extend_from_slice(&written.expires.to_le_bytes());
    row.extend_from_slice(&change.value);
    objects.insert(change.key.as_str(), row.as_slice())?;
    Ok(())
}

/// Drops the oldest entries over the bounds, at most `limit`: more than come in, so that it catches up without a stall.
fn trim_history(
    history: &mut Table<'_, u64, &'static [u8]>,
    state: &mut State,
    limit: usize,
    now: u64,
    options: &Options,
) -> Result<(), redb::Error> {
    let max_age = u64::try_from(options.disk_history_age.as_millis()).unwrap_or(u64::MAX);
    for _ in 0..limit {
        let Some((revision, size, time)) = history
            .first()?
            .map(|(k, v)| (k.value(), v.value().len() as u64, history::time_of(v.value()).unwrap_or_default()))
        else {
            break;
        };
        if state.history_bytes <= options.disk_history_bytes && now.saturating_sub(time) <= max_age {
            break;
        }
        history.remove(revision)?;
        state.history_bytes = state.history_bytes.saturating_sub(size);
        state.oldest = state.oldest.max(revision);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_the_file_holds_up_no_writer() {
        let (disk, _) = on_source(Source::new(redb::backends::InMemoryBackend::new)).unwrap();
        let waits = |disk: &Disk| matches!(disk.open_again(), Err(fault @ OpenFault::InUse) if fault.passes());
        let reader = disk.open.read();
        assert!(waits(&disk));
        drop(reader);
        assert!(!waits(&disk));
    }

    #[test]
    fn the_state_row_reads_back_as_written() {
        let state = State { last: 9, complete: 7, clean: true, oldest: 3, history_bytes: 11 };
        assert_eq!(State::decode(&state.encode()), Some(state));
        assert_eq!(State::decode(&[0; 39]), None);
    }
}
