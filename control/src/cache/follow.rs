//! The cache's only writer: loads the store, then applies its changes and hands them to the watchers.
//!
//! Order for each batch: parse (no lock), change the maps (lock), announce the revision, deliver. So a reader never waits
//! for parsing or for watchers, and a watcher's event is never ahead of what a read shows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::mpsc;

use super::entry::Entry;
use super::fields::Fields;
use super::parse::Parser;
use super::state::{Shard, Update};
use super::watchers::Hub;
use super::{Hubs, Inner, Order};
use crate::store::{Change, ChangeKind, Changes, Key, Record, Revision, Store, StoreError};

/// How often what is too old is dropped.
const AGE_EVERY: Duration = Duration::from_secs(30);

/// A change whose value is parsed.
struct Parsed {
    revision: Revision,
    key: Key,
    entry: Option<Arc<Entry>>,
}

pub(super) struct Follower {
    inner: Arc<Inner>,
    store: Arc<dyn Store>,
    parser: Parser,
}

impl Drop for Follower {
    /// However it ends, also by a panic: writers that wait for the cache go on.
    fn drop(&mut self) {
        if !self.inner.closed.load(Ordering::Acquire) {
            self.stop(None);
        }
    }
}

/// The part of a key that names its resource: `core/pods`.
pub(super) fn resource_of(key: &Key) -> &str {
    let text = key.as_str();
    let end = text.match_indices('/').nth(1).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text)
}

impl Follower {
    pub(super) fn new(inner: Arc<Inner>, store: Arc<dyn Store>) -> Self {
        Self { inner, store, parser: Parser::default() }
    }

    /// Fills the cache and begins to follow from there.
    pub(super) async fn load(&mut self) -> Result<Changes, StoreError> {
        let page = self.store.list("", None, 0).await?;
        let changes = self.store.watch("", page.revision).await?;
        let entries: Vec<Arc<Entry>> = page.records.iter().filter_map(|record| self.entry_of(record)).collect();
        let mut state = self.inner.state.write();
        state.revision = page.revision;
        for prefix in self.inner.hubs().keys() {
            state.shards.insert(prefix.clone(), Shard::new(page.revision));
        }
        for entry in entries {
            if let Some(shard) = state.shards.get_mut(resource_of(&entry.key)) {
                shard.objects.insert(entry.key.clone(), entry);
            }
        }
        drop(state);
        self.announce(page.revision);
        self.inner.delivered.store(page.revision, Ordering::Release);
        Ok(changes)
    }

    /// Follows until the store closes.
    pub(super) async fn run(mut self, mut changes: Changes, mut orders: mpsc::Receiver<Order>) {
        let mut aging = tokio::time::interval(AGE_EVERY);
        loop {
            tokio::select! {
                batch = changes.next() => match batch {
                    Some(Ok(batch)) => self.follow(batch),
                    Some(Err(StoreError::Compacted { .. })) => match self.resync().await {
                        Ok(again) => changes = again,
                        Err(error) => return self.stop(Some(&error)),
                    },
                    Some(Err(error)) => return self.stop(Some(&error)),
                    None => return self.stop(None),
                },
                // The cache, which owns this task, holds the sender.
                Some(order) = orders.recv() => {
                    let shown = self.serve(order.fields).await;
                    // Whoever asked may have gone.
                    let _ = order.done.send(shown);
                }
                _ = aging.tick() => self.age(),
            }
        }
    }

    fn stop(&self, error: Option<&StoreError>) {
        if let Some(error) = error.filter(|e| !matches!(e, StoreError::Closed)) {
            tracing::error!(%error, "the watch cache has lost the store");
        }
        for hub in self.inner.hubs().values() {
            hub.end();
        }
        self.inner.closed.store(true, Ordering::Release);
        // Nobody may wait for what will not come.
        self.announce(Revision::MAX);
    }

    fn age(&self) {
        let now = Instant::now();
        for shard in self.inner.state.write().shards.values_mut() {
            shard.age(now);
        }
    }

    fn announce(&self, revision: Revision) {
        self.inner.shown.send_replace(revision);
    }

    fn follow(&mut self, batch: Vec<Change>) {
        let Some(revision) = batch.last().map(|change| change.revision) else { return };
        let mut parsed = Vec::with_capacity(batch.len());
        let hubs = self.inner.hubs();
        for change in batch {
            let Some(hub) = hubs.get(resource_of(&change.key)) else { continue };
            let Change { revision, key, kind, value, .. } = change;
            let entry = (kind != ChangeKind::Deleted).then(|| {
                let meta = self.parser.meta(&key, &value, &hub.fields);
                Arc::new(Entry { key: key.clone(), bytes: value, revision, meta })
            });
            parsed.push(Parsed { revision, key, entry });
        }
        let updates = self.apply(parsed, revision);
        self.announce(revision);
        self.deliver(&updates, revision);
    }

    fn apply(&self, parsed: Vec<Parsed>, revision: Revision) -> Vec<(Arc<Hub>, Arc<Update>)> {
        let at = Instant::now();
        let mut updates = Vec::with_capacity(parsed.len());
        let hubs = self.inner.hubs();
        let mut state = self.inner.state.write();
        for Parsed { revision, key, entry } in parsed {
            let prefix = resource_of(&key);
            let (Some(hub), Some(shard)) = (hubs.get(prefix), state.shards.get_mut(prefix)) else { continue };
            // It was loaded after this change.
            if revision <= shard.loaded() {
                continue;
            }
            let old = shard.objects.get(&key).cloned();
            if entry.is_none() && old.is_none() {
                continue;
            }
            let update = Arc::new(Update { revision, new: entry, old, at });
            shard.apply(Arc::clone(&update));
            updates.push((Arc::clone(hub), update));
        }
        state.revision = revision;
        updates
    }

    fn deliver(&self, updates: &[(Arc<Hub>, Arc<Update>)], revision: Revision) {
        for (hub, update) in updates {
            hub.deliver(update);
        }
        self.inner.events.fetch_add(updates.len() as u64, Ordering::Relaxed);
        self.inner.delivered.store(revision, Ordering::Release);
    }

    fn entry_of(&mut self, record: &Record) -> Option<Arc<Entry>> {
        let hub = self.inner.hub(resource_of(&record.key))?;
        Some(self.entry_with(record, &hub.fields))
    }

    fn entry_with(&mut self, record: &Record, fields: &Arc<Fields>) -> Arc<Entry> {
        let meta = self.parser.meta(&record.key, &record.value, fields);
        let Record { key, value, revision } = record.clone();
        Arc::new(Entry { key, bytes: value, revision, meta })
    }

    /// Changes what is served; resources whose fields are the same stay as they are. Returns the revision that what is new
    /// shows.
    async fn serve(&mut self, wanted: HashMap<Box<str>, Arc<Fields>>) -> Result<Revision, StoreError> {
        let before = self.inner.hubs();
        let (mut hubs, mut loaded, mut shown) = (Hubs::new(), Vec::new(), 0);
        for (name, fields) in wanted {
            if let Some(hub) = before.get(&name).filter(|hub| hub.fields == fields) {
                hubs.insert(name, Arc::clone(hub));
                continue;
            }
            let page = self.store.list(&format!("{name}/"), None, 0).await?;
            let entries: Vec<_> = page.records.iter().map(|record| self.entry_with(record, &fields)).collect();
            shown = shown.max(page.revision);
            loaded.push((name.clone(), page.revision, entries));
            hubs.insert(name.clone(), Arc::new(Hub::new(name, fields)));
        }
        let ended: Vec<_> =
            before.iter().filter(|(name, hub)| hubs.get(*name).is_none_or(|new| !Arc::ptr_eq(new, hub))).collect();
        let mut state = self.inner.state.write();
        for (name, _) in &ended {
            state.shards.remove(*name);
        }
        for (name, revision, entries) in loaded {
            let mut shard = Shard::new(revision);
            shard.objects.extend(entries.into_iter().map(|entry| (entry.key.clone(), entry)));
            state.shards.insert(name, shard);
        }
        *self.inner.hubs.write() = Arc::new(hubs);
        drop(state);
        for (_, hub) in &ended {
            hub.end();
        }
        Ok(shown)
    }

    /// Takes the store's state as it is, because the changes up to it are gone; watchers must list again.
    async fn resync(&mut self) -> Result<Changes, StoreError> {
        tracing::warn!("the watch cache fell behind the store's history and loads it again");
        let page = self.store.list("", None, 0).await?;
        let changes = self.store.watch("", page.revision).await?;
        let mut present = HashSet::with_capacity(page.records.len());
        let mut parsed = Vec::new();
        for record in &page.records {
            present.insert(record.key.clone());
            if let Some(entry) = self.entry_of(record) {
                parsed.push(Parsed { revision: record.revision, key: record.key.clone(), entry: Some(entry) });
            }
        }
        let state = self.inner.state.read();
        let gone = state.shards.values().flat_map(|shard| shard.objects.keys()).filter(|key| !present.contains(*key));
        let revision = page.revision;
        parsed.extend(gone.map(|key| Parsed { revision, key: key.clone(), entry: None }));
        drop(state);
        self.apply(parsed, revision);
        for shard in self.inner.state.write().shards.values_mut() {
            shard.restart_ring(revision);
        }
        self.announce(revision);
        for hub in self.inner.hubs().values() {
            hub.drop_all();
        }
        self.inner.delivered.store(revision, Ordering::Release);
        Ok(changes)
    }
}
