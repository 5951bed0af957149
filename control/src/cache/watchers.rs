//! The watchers of one resource, found by what they demand: an event looks only at those that it may concern.
//!
//! Must stay true: a watcher is told each event after its `start` once, in order, or is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::entry::{self, Entry};
use super::fields::Fields;
use super::state::Update;
use super::{Event, Filter};
use crate::store::Revision;

/// Events that may wait for a watcher: with a full queue it is dropped. A burst of 1,000 pods fits.
pub(super) const QUEUE: usize = 4096;

/// By which of its demands a watcher is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dimension {
    Name,
    /// The place among the fields that the cache reads.
    Field(usize),
    Namespace,
}

#[derive(Debug)]
struct Watcher {
    filter: Arc<Filter>,
    /// It has seen everything up to here.
    start: Revision,
    queue: mpsc::Sender<Event>,
    slow: Arc<AtomicBool>,
    place: Option<(Dimension, Box<str>)>,
}

#[derive(Debug, Default)]
struct Watchers {
    next: u64,
    /// Nothing will be delivered any more.
    ended: bool,
    by_id: HashMap<u64, Watcher>,
    /// Those with no demand to be found by.
    everything: Vec<u64>,
    by_demand: HashMap<Dimension, HashMap<Box<str>, Vec<u64>>>,
}

/// One resource's watchers.
#[derive(Debug)]
pub(super) struct Hub {
    /// Of the shard: `core/pods`.
    pub(super) name: Box<str>,
    pub(super) fields: Arc<Fields>,
    watchers: Mutex<Watchers>,
    pub(super) dropped: AtomicU64,
}

/// What a watcher's stream holds; dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    pub(super) events: mpsc::Receiver<Event>,
    slow: Arc<AtomicBool>,
}

impl Subscription {
    /// Whether it was dropped because its queue was full.
    pub(super) fn was_slow(&self) -> bool {
        self.slow.load(Ordering::Acquire)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.watchers.lock().remove(self.id);
    }
}

impl Hub {
    pub(super) fn new(name: Box<str>, fields: Arc<Fields>) -> Self {
        Self { name, fields, watchers: Mutex::default(), dropped: AtomicU64::new(0) }
    }

    /// Adds a watcher; `begin` reads the state that it starts from while no event is handed out.
    pub(super) fn subscribe<T, E>(
        self: &Arc<Self>,
        filter: &Arc<Filter>,
        begin: impl FnOnce() -> Result<(Revision, T), E>,
    ) -> Result<(Subscription, Revision, T), E> {
        let (queue, events) = mpsc::channel(QUEUE);
        let slow = Arc::new(AtomicBool::new(false));
        let place = self.place(filter);
        let mut watchers = self.watchers.lock();
        let (start, first) = begin()?;
        let watcher = Watcher { filter: Arc::clone(filter), start, queue, slow: Arc::clone(&slow), place };
        // One that comes too late has an end at once: its sender is dropped here.
        let id = if watchers.ended { 0 } else { watchers.add(watcher) };
        drop(watchers);
        Ok((Subscription { hub: Arc::clone(self), id, events, slow }, start, first))
    }

    /// The narrowest demand of a filter.
    fn place(&self, filter: &Filter) -> Option<(Dimension, Box<str>)> {
        if let Some(name) = filter.fields.required("metadata.name") {
            return Some((Dimension::Name, name.into()));
        }
        let mut field = self.fields.paths().enumerate();
        if let Some((index, value)) = field.find_map(|(i, path)| Some((i, filter.fields.required(path)?))) {
            return Some((Dimension::Field(index), value.into()));
        }
        let namespace = filter.namespace.as_deref().or_else(|| filter.fields.required("metadata.namespace"));
        namespace.map(|namespace| (Dimension::Namespace, namespace.into()))
    }

    /// Hands an event to whom it concerns.
    pub(super) fn deliver(&self, update: &Update) {
        let mut watchers = self.watchers.lock();
        if watchers.by_id.is_empty() {
            return;
        }
        let mut deleted = None;
        for id in watchers.concerned(update) {
            let Some(watcher) = watchers.by_id.get(&id).filter(|w| w.start < update.revision) else { continue };
            let Some(event) = fit(&watcher.filter, update, &mut deleted) else { continue };
            if let Err(refused) = watcher.queue.try_send(event) {
                if matches!(refused, mpsc::error::TrySendError::Full(_)) {
                    watcher.slow.store(true, Ordering::Release);
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
                watchers.remove(id);
            }
        }
    }

    /// Ends all watches.
    pub(super) fn end(&self) {
        *self.watchers.lock() = Watchers { ended: true, ..Watchers::default() };
    }

    /// Drops all watchers as too slow: events were missed.
    pub(super) fn drop_all(&self) {
        let mut watchers = self.watchers.lock();
        for watcher in watchers.by_id.values() {
            watcher.slow.store(true, Ordering::Release);
        }
        *watchers = Watchers { next: watchers.next, ended: watchers.ended, ..Watchers::default() };
    }

    pub(super) fn count(&self) -> usize {
        self.watchers.lock().by_id.len()
    }
}

impl Watchers {
    fn add(&mut self, watcher: Watcher) -> u64 {
        self.next += 1;
        let id = self.next;
        self.list_of(watcher.place.as_ref()).push(id);
        self.by_id.insert(id, watcher);
        id
    }

    fn list_of(&mut self, place: Option<&(Dimension, Box<str>)>) -> &mut Vec<u64> {
        match place {
            None => &mut self.everything,
            Some((dimension, value)) => self.by_demand.entry(*dimension).or_default().entry(value.clone()).or_default(),
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(watcher) = self.by_id.remove(&id) else { return };
        let list = self.list_of(watcher.place.as_ref());
        list.retain(|other| *other != id);
        if list.is_empty()
            && let Some((dimension, value)) = &watcher.place
            && let Some(values) = self.by_demand.get_mut(dimension)
        {
            values.remove(value);
            if values.is_empty() {
                self.by_demand.remove(dimension);
            }
        }
    }

    /// Watchers whose demand the object meets, before or after the event.
    fn concerned(&self, update: &Update) -> Vec<u64> {
        let mut ids = self.everything.clone();
        for (dimension, values) in &self.by_demand {
            for entry in [&update.new, &update.old].into_iter().flatten() {
                ids.extend(values.get(value_of(*dimension, entry)).into_iter().flatten());
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

fn value_of(dimension: Dimension, entry: &Entry) -> &str {
    match dimension {
        Dimension::Name => &entry.meta.name,
        Dimension::Namespace => &entry.meta.namespace,
        Dimension::Field(index) => entry.meta.fields.get(index).map_or("", |value| value),
    }
}

/// An update as a watcher with this filter sees it: an object that enters it is added, one that leaves it is deleted.
/// `deleted` keeps the entry that all who see a deletion share.
pub(super) fn fit(filter: &Filter, update: &Update, deleted: &mut Option<Arc<Entry>>) -> Option<Event> {
    let seen = |entry: &Option<Arc<Entry>>| entry.as_ref().filter(|e| filter.matches(&e.meta)).cloned();
    match (seen(&update.new), seen(&update.old)) {
        (Some(new), None) => Some(Event::Added(new)),
        (Some(new), Some(old)) => Some(Event::Modified { new, old }),
        (None, Some(old)) => {
            let last = deleted.get_or_insert_with(|| entry::deleted(&old, update.revision));
            Some(Event::Deleted { last: Arc::clone(last), revision: update.revision })
        }
        (None, None) => None,
    }
}
