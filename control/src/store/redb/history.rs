//! The changes that watches read: a ring in memory, and before it the history on disk.
//!
//! On disk a change keeps only the value *before* it. The value after it is the one before the key's next change, or the
//! present one, so that each value is kept once; [`replay`] walks backwards to put both together.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::core::{Head, Written};
use crate::store::{Change, ChangeKind, Key, Revision};

/// What a change in the ring costs beside its value: the structures around it.
const OVERHEAD: usize = 192;

/// The latest transactions, bounded by bytes, then by age.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Arc<Written>>,
    /// Everything after this revision is here.
    start: Revision,
    bytes: usize,
    max_bytes: usize,
    /// Milliseconds.
    max_age: u64,
}

fn cost(written: &Written) -> usize {
    written.changes.iter().map(|c| c.value.len() + OVERHEAD).sum()
}

impl Ring {
    pub(super) fn new(start: Revision, max_bytes: usize, max_age: Duration) -> Self {
        let max_age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        Self { entries: VecDeque::new(), start, bytes: 0, max_bytes, max_age }
    }

    pub(super) fn start(&self) -> Revision {
        self.start
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, written: Arc<Written>) {
        self.bytes += cost(&written);
        self.entries.push_back(written);
    }

    /// Drops what is over the bounds, but nothing after `keep_after`.
    pub(super) fn trim(&mut self, keep_after: Revision, now: u64) {
        while let Some(front) = self.entries.front() {
            let over = self.bytes > self.max_bytes || now.saturating_sub(front.time) > self.max_age;
            if !over || front.revision > keep_after {
                break;
            }
            self.bytes -= cost(front);
            self.start = front.revision;
            self.entries.pop_front();
        }
    }

    /// Transactions after `after`, oldest first.
    pub(super) fn after(&self, after: Revision) -> impl Iterator<Item = &Arc<Written>> {
        let from = self.entries.partition_point(|w| w.revision <= after);
        self.entries.range(from..)
    }

    /// What the keys that the ring changed held at its start.
    pub(super) fn values_at_start(&self) -> HashMap<Key, Option<Bytes>> {
        let mut values = HashMap::new();
        for change in self.entries.iter().flat_map(|w| &w.changes) {
            values.entry(change.key.clone()).or_insert_with(|| change.previous.clone());
        }
        values
    }
}

/// A change as the disk keeps it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Undo {
    pub(super) revision: Revision,
    pub(super) kind: ChangeKind,
    pub(super) key: Key,
    pub(super) previous: Option<Bytes>,
}

/// Makes changes of `undos` (oldest first, without holes), given what keys held after the last of them: `later`, where it
/// knows, else `head`.
pub(super) fn replay(undos: Vec<Undo>, mut later: HashMap<Key, Option<Bytes>>, head: &Head) -> Vec<Change> {
    let mut changes = Vec::with_capacity(undos.len());
    for undo in undos.into_iter().rev() {
        let Undo { revision, kind, key, previous } = undo;
        let after = match later.get(&key) {
            Some(value) => value.clone(),
            None => head.get(&key).map(|slot| slot.value.clone()),
        };
        later.insert(key.clone(), previous.clone());
        let value = if kind == ChangeKind::Deleted { previous.clone() } else { after };
        let value = value.unwrap_or_default();
        changes.push(Change { revision, key, kind, value, previous });
    }
    changes.reverse();
    changes
}

/// A transaction's history entry: its time, then its changes.
pub(super) fn encode(written: &Written) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&written.time.to_le_bytes());
    for change in &written.changes {
        let previous = change.previous.as_deref();
        out.push(match change.kind {
            ChangeKind::Created => 0,
            ChangeKind::Updated => 1,
            ChangeKind::Deleted => 2,
        });
        put_block(&mut out, change.key.as_str().as_bytes());
        put_block(&mut out, previous.unwrap_or_default());
    }
    out
}

fn put_block(out: &mut Vec<u8>, block: &[u8]) {
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(block.get(..length as usize).unwrap_or(block));
}

/// When a history entry was written; `None` if it is cut short.
pub(super) fn time_of(entry: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*entry.first_chunk()?))
}

/// Reads an entry's changes to keys that begin with `prefix`; `None` if it is damaged.
pub(super) fn decode(revision: Revision, entry: &[u8], prefix: &str, out: &mut Vec<Undo>) -> Option<()> {
    let (_, mut rest) = entry.split_first_chunk::<8>()?;
    while let Some((tag, tail)) = rest.split_first() {
        let kind = match tag {
            0 => ChangeKind::Created,
            1 => ChangeKind::Updated,
            2 => ChangeKind::Deleted,
            _ => return None,
        };
        let (key, tail) = take_block(tail)?;
        let (previous, tail) = take_block(tail)?;
        rest = tail;
        let key = std::str::from_utf8(key).ok()?;
        if key.starts_with(prefix) {
            let previous = (kind != ChangeKind::Created).then(|| Bytes::copy_from_slice(previous));
            out.push(Undo { revision, kind, key: Key::from_stored(key), previous });
        }
    }
    Some(())
}

fn take_block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(kind: u8, key: &str, previous: Vec<u8>) -> Change {
        let kind = [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Deleted][usize::from(kind)];
        let previous = (kind != ChangeKind::Created).then(|| Bytes::from(previous));
        Change { revision: 7, key: Key::from_stored(key), kind, value: Bytes::new(), previous }
    }

    proptest! {
        #[test]
        fn a_history_entry_reads_back_as_written(
            time in any::<u64>(),
            raw in prop::collection::vec((0u8..3, "[a-z/]{1,12}", prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        ) {
            let changes: Vec<Change> = raw.into_iter().map(|(kind, key, prev)| change(kind, &key, prev)).collect();
            let entry = encode(&Written { revision: 7, time, expires: 0, changes: changes.clone() });
            let mut undos = Vec::new();
            prop_assert!(decode(7, &entry, "", &mut undos).is_some());
            prop_assert_eq!(time_of(&entry), Some(time));
            prop_assert_eq!(undos.len(), changes.len());
            for (undo, change) in undos.iter().zip(&changes) {
                prop_assert_eq!((&undo.key, undo.kind, &undo.previous), (&change.key, change.kind, &change.previous));
            }
        }

        #[test]
        fn a_damaged_history_entry_never_panics(entry in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(1, &entry, "", &mut Vec::new());
        }
    }
}
