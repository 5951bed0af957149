//! The memory stage: what is visible, in revision order, and what of it the disk still lacks.
//!
//! Must stay true: `published` only grows; a synced transaction enters [`Core::head`] after its fsync; whatever is in
//! `unwritten` is also in the ring, so that ring and disk together always hold all changes after [`Core::oldest`].

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use imbl::OrdMap;

use super::Options;
use super::history::Ring;
use crate::store::{Change, ChangeKind, Key, Op, Precondition, Record, Revision, StoreError, Txn};

/// Revisions left free below a batch that is being written, for relaxed writes that happen meanwhile. At one heartbeat
/// per node in ten seconds this covers 1,000 nodes through a stall of ten seconds; a write beyond it waits.
pub(super) const GAP: Revision = 1024;
/// Relaxed transactions that may await the disk; more wait in the queue.
const MAX_UNWRITTEN: usize = 8192;
/// How far a store that was not closed jumps ahead when it is opened: beyond every revision that it may have shown
/// without having written it.
pub(super) const RESERVE: Revision = GAP + MAX_UNWRITTEN as Revision + 1;

/// A record in memory.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) value: Bytes,
    pub(super) revision: Revision,
    /// Unix milliseconds; 0 is never.
    pub(super) expires: u64,
}

/// All records, cheap to clone.
pub(super) type Head = OrdMap<Key, Slot>;

/// A transaction that was given its revision.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) revision: Revision,
    /// When, in Unix milliseconds.
    pub(super) time: u64,
    pub(super) expires: u64,
    pub(super) changes: Vec<Change>,
}

/// What the batch that is on its way to the disk has claimed.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Its first revision.
    pub(super) first: Revision,
    /// Every key that it writes or depends on.
    pub(super) keys: HashSet<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Open,
    /// A disk write found no room: it did not happen, and the file is opened again at this time.
    Full(Instant),
    /// A disk write failed; whether it happened is unknown, so nothing more is accepted.
    Failed(String),
    Closed,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) head: Head,
    pub(super) published: Revision,
    pub(super) ring: Ring,
    pub(super) unwritten: VecDeque<Arc<Written>>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) health: Health,
    /// Changes after this revision are in the disk's history.
    pub(super) disk_oldest: Revision,
    /// Half-open ranges `(from, to)` of revisions that a crash may have taken back: no watch starts inside.
    pub(super) gaps: Vec<(Revision, Revision)>,
    expiries: BTreeSet<(u64, Key)>,
}

/// Why a relaxed transaction was not applied at once.
pub(super) enum Refused {
    /// It must go through the queue.
    Busy(Txn),
    Failed(StoreError),
}

impl Core {
    pub(super) fn new(
        head: Head,
        published: Revision,
        disk_oldest: Revision,
        gaps: Vec<(Revision, Revision)>,
        options: &Options,
    ) -> Self {
        let expiries = head.iter().filter(|(_, s)| s.expires != 0).map(|(k, s)| (s.expires, k.clone())).collect();
        Self {
            head,
            published,
            ring: Ring::new(published, options.memory_history_bytes, options.memory_history_age),
            unwritten: VecDeque::new(),
            in_flight: None,
            health: Health::Open,
            disk_oldest,
            gaps,
            expiries,
        }
    }

    pub(super) fn healthy(&self) -> Result<(), StoreError> {
        match &self.health {
            Health::Open => Ok(()),
            Health::Full(_) => Err(StoreError::Full),
            Health::Closed => Err(StoreError::Closed),
            Health::Failed(why) => Err(StoreError::Engine(
                format!("an earlier write failed, the store must be opened again: {why}").into(),
            )),
        }
    }

    /// The oldest revision that a watch may start after.
    pub(super) fn oldest(&self) -> Revision {
        self.disk_oldest.min(self.ring.start())
    }

    /// Whether a watch may start after `after`.
    pub(super) fn check_history(&self, after: Revision) -> Result<(), StoreError> {
        if let Some((_, to)) = self.gaps.iter().find(|(from, to)| *from < after && after < *to) {
            return Err(StoreError::Compacted { asked: after, oldest: *to });
        }
        let oldest = self.oldest();
        if after < oldest {
            return Err(StoreError::Compacted { asked: after, oldest });
        }
        Ok(())
    }

    /// Applies a relaxed transaction at once: it is ordered before the batch in flight, which shares no key with it.
    pub(super) fn apply_relaxed(&mut self, txn: Txn, now: u64) -> Result<(Revision, Vec<Bytes>), Refused> {
        if matches!(self.health, Health::Full(_)) {
            // Whether there is room now is for the writer to find out.
            return Err(Refused::Busy(txn));
        }
        self.healthy().map_err(Refused::Failed)?;
        let revision = self.published + 1;
        let clashes = self
            .in_flight
            .as_ref()
            .is_some_and(|f| revision >= f.first || keys_of(&txn).any(|key| f.keys.contains(key)));
        if clashes || self.unwritten.len() >= MAX_UNWRITTEN {
            return Err(Refused::Busy(txn));
        }
        let (written, values) = stage(&self.head, txn, revision, now).map_err(Refused::Failed)?;
        if written.changes.is_empty() {
            return Ok((self.published, values));
        }
        let written = Arc::new(written);
        self.unwritten.push_back(Arc::clone(&written));
        self.publish(written);
        Ok((revision, values))
    }

    /// Makes a transaction visible.
    pub(super) fn publish(&mut self, written: Arc<Written>) {
        apply(&mut self.head, &mut self.expiries, &written);
        self.published = written.revision;
        self.ring.push(written);
    }

    /// The disk has everything that was `unwritten` when the batch began.
    pub(super) fn written(&mut self, count: usize, now: u64) {
        self.unwritten.drain(..count.min(self.unwritten.len()));
        self.trim(now);
    }

    fn trim(&mut self, now: u64) {
        let keep_after = self.unwritten.front().map_or(self.published, |w| w.revision - 1);
        self.ring.trim(keep_after, now);
    }

    /// When the next record expires.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Deletes up to `limit` records that have expired; returns how many.
    pub(super) fn expire(&mut self, now: u64, limit: usize) -> usize {
        let mut done = 0;
        while done < limit {
            let Some((_, key)) = self.expiries.first().filter(|(at, _)| *at <= now).cloned() else { break };
            let txn = Txn { ops: vec![Op::Delete { key }], ..Txn::default() };
            if self.apply_relaxed(txn, now).is_err() {
                break;
            }
            done += 1;
        }
        done
    }
}

pub(super) fn keys_of(txn: &Txn) -> impl Iterator<Item = &Key> {
    let ops = txn.ops.iter().map(|op| match op {
        Op::Put { key, .. } | Op::Delete { key } => key,
    });
    txn.preconditions.iter().map(|(key, _)| key).chain(ops)
}

/// Checks a transaction against `head` and works out its changes; `head` is left as it is.
pub(super) fn stage(head: &Head, txn: Txn, revision: Revision, now: u64) -> Result<(Written, Vec<Bytes>), StoreError> {
    for (key, precondition) in &txn.preconditions {
        let actual = head.get(key);
        let holds = match precondition {
            Precondition::Absent => actual.is_none(),
            Precondition::At(wanted) => actual.is_some_and(|slot| slot.revision == *wanted),
        };
        if !holds {
            let actual = actual.map(|slot| record(key, slot));
            return Err(StoreError::Precondition { key: key.clone(), actual });
        }
    }
    let mut changes: Vec<Change> = Vec::with_capacity(txn.ops.len());
    let mut values = Vec::new();
    for op in txn.ops {
        let (key, value) = match op {
            Op::Put { key, value } => (key, Some(value.with_revision(revision))),
            Op::Delete { key } => (key, None),
        };
        values.extend(value.clone());
        let previous = match changes.iter().rev().find(|c| c.key == key) {
            Some(earlier) => Some(earlier).filter(|c| c.kind != ChangeKind::Deleted).map(|c| c.value.clone()),
            None => head.get(&key).map(|slot| slot.value.clone()),
        };
        let (kind, value) = match (value, &previous) {
            (Some(value), Some(_)) => (ChangeKind::Updated, value),
            (Some(value), None) => (ChangeKind::Created, value),
            (None, Some(last)) => (ChangeKind::Deleted, last.clone()),
            (None, None) => continue,
        };
        changes.push(Change { revision, key, kind, value, previous });
    }
    let expires = txn.expires_after.map_or(0, |seconds| now + u64::from(seconds) * 1000);
    Ok((Written { revision, time: now, expires, changes }, values))
}

/// Brings `head` and the order of expiry to the state after `written`.
pub(super) fn apply(head: &mut Head, expiries: &mut BTreeSet<(u64, Key)>, written: &Written) {
    for change in &written.changes {
        let old = if change.kind == ChangeKind::Deleted {
            head.remove(&change.key)
        } else {
            let slot = Slot { value: change.value.clone(), revision: written.revision, expires: written.expires };
            head.insert(change.key.clone(), slot)
        };
        if let Some(old) = old.filter(|slot| slot.expires != 0) {
            expiries.remove(&(old.expires, change.key.clone()));
        }
        if change.kind != ChangeKind::Deleted && written.expires != 0 {
            expiries.insert((written.expires, change.key.clone()));
        }
    }
}

pub(super) fn record(key: &Key, slot: &Slot) -> Record {
    Record { key: key.clone(), value: slot.value.clone(), revision: slot.revision }
}
