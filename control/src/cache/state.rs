//! What readers share: each resource's objects as a persistent map, and its latest events.
//!
//! Must stay true: `revision` and all maps change together, under one lock that is held for map updates only; the events
//! after `ring_start` are all in the ring, so that any state since then can be made again by undoing them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;

use super::entry::Entry;
use crate::store::{Key, Revision};

/// Bounds of a resource's ring: bytes of values, events, age.
const RING_BYTES: usize = 4 << 20;
const RING_EVENTS: usize = 16_384;
const RING_AGE: Duration = Duration::from_mins(5);
/// What an event costs beside its value.
const EVENT_OVERHEAD: usize = 128;
/// Snapshots that `continue` tokens refer to, per resource. Maps share structure: one costs what changed since.
const PINS: usize = 64;
const PIN_AGE: Duration = Duration::from_mins(5);

pub(super) type Objects = OrdMap<Key, Arc<Entry>>;

/// A change to one object.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) revision: Revision,
    /// `None`: deleted.
    pub(super) new: Option<Arc<Entry>>,
    pub(super) old: Option<Arc<Entry>>,
    pub(super) at: Instant,
}

impl Update {
    pub(super) fn key(&self) -> Option<&Key> {
        self.new.as_ref().or(self.old.as_ref()).map(|entry| &entry.key)
    }

    fn cost(&self) -> usize {
        self.new.as_ref().or(self.old.as_ref()).map_or(0, |entry| entry.bytes.len()) + EVENT_OVERHEAD
    }
}

#[derive(Debug)]
struct Pin {
    revision: Revision,
    at: Instant,
    objects: Objects,
}

/// One resource.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) objects: Objects,
    ring: VecDeque<Arc<Update>>,
    ring_start: Revision,
    /// The store's revision when the objects were loaded: changes up to it are in them.
    loaded: Revision,
    ring_bytes: usize,
    pins: VecDeque<Pin>,
}

impl Shard {
    /// A shard whose objects are to be those of this revision.
    pub(super) fn new(loaded: Revision) -> Self {
        Self { ring_start: loaded, loaded, ..Self::default() }
    }

    pub(super) fn loaded(&self) -> Revision {
        self.loaded
    }

    /// Events after `after`, if all of them are kept.
    pub(super) fn events_after(&self, after: Revision) -> Option<VecDeque<Arc<Update>>> {
        let from = self.ring.partition_point(|update| update.revision <= after);
        (after >= self.ring_start).then(|| self.ring.range(from..).cloned().collect())
    }

    pub(super) fn apply(&mut self, update: Arc<Update>) {
        match (&update.new, &update.old) {
            (Some(new), _) => drop(self.objects.insert(new.key.clone(), Arc::clone(new))),
            (None, Some(old)) => drop(self.objects.remove(&old.key)),
            (None, None) => return,
        }
        self.ring_bytes += update.cost();
        self.ring.push_back(update);
        while self.ring_bytes > RING_BYTES || self.ring.len() > RING_EVENTS {
            self.pop();
        }
    }

    /// Drops what is too old; called now and then.
    pub(super) fn age(&mut self, now: Instant) {
        while self.ring.front().is_some_and(|u| now.duration_since(u.at) > RING_AGE) {
            self.pop();
        }
        self.pins.retain(|pin| now.duration_since(pin.at) <= PIN_AGE);
    }

    /// Drops the oldest event, and those of the same transaction.
    fn pop(&mut self) {
        let Some(revision) = self.ring.front().map(|u| u.revision) else { return };
        while let Some(update) = self.ring.pop_front_if(|u| u.revision == revision) {
            self.ring_bytes -= update.cost();
        }
        self.ring_start = revision;
    }

    /// Forgets events, because some were missed.
    pub(super) fn restart_ring(&mut self, revision: Revision) {
        self.ring.clear();
        self.ring_bytes = 0;
        self.ring_start = revision;
    }

    /// Keeps the present state for the pages that follow.
    pub(super) fn pin(&mut self, revision: Revision, objects: Objects, now: Instant) {
        if self.pins.iter().any(|pin| pin.revision == revision) {
            return;
        }
        if self.pins.len() >= PINS {
            self.pins.pop_front();
        }
        self.pins.push_back(Pin { revision, at: now, objects });
    }

    /// What the state of `revision` can be made of.
    pub(super) fn past(&self, revision: Revision, now: Instant) -> Option<Past> {
        let pin = self.pins.iter().find(|pin| pin.revision == revision && now.duration_since(pin.at) <= PIN_AGE);
        if let Some(pin) = pin {
            return Some(Past { objects: pin.objects.clone(), undo: VecDeque::new() });
        }
        self.events_after(revision).map(|undo| Past { objects: self.objects.clone(), undo })
    }
}

/// A state and the events that came after the one that is wanted.
pub(super) struct Past {
    objects: Objects,
    undo: VecDeque<Arc<Update>>,
}

impl Past {
    pub(super) fn new(objects: Objects, undo: VecDeque<Arc<Update>>) -> Self {
        Self { objects, undo }
    }

    pub(super) fn restore(self) -> Objects {
        let mut objects = self.objects;
        for update in self.undo.iter().rev() {
            match (update.key(), &update.old) {
                (_, Some(old)) => drop(objects.insert(old.key.clone(), Arc::clone(old))),
                (Some(key), None) => drop(objects.remove(key)),
                (None, None) => {}
            }
        }
        objects
    }
}

/// All resources, by the prefix of their keys.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) revision: Revision,
    pub(super) shards: HashMap<Box<str>, Shard>,
}
