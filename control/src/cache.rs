//! The watch cache: every stored object once, as the bytes that are sent, with its parsed metadata beside it.
//!
//! One task follows the store and is the only writer. Readers take snapshots (persistent maps) without waiting for each
//! other. Reads through the cache see every acknowledged write: a writer waits with [`Cache::reached`] before it answers.
//! A watcher has a bounded queue; one that falls behind is dropped and must list again.

mod entry;
mod fields;
mod follow;
mod parse;
mod since;
mod state;
mod watch;
mod watchers;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use wherry_api::registry::Registry;
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::selector::{FieldSelector, LabelSelector};

pub use self::entry::{Entry, Meta, deleted_bytes};
use self::fields::Fields;
use self::follow::Follower;
use self::parse::Parser;
pub(crate) use self::since::{Follow, Since};
use self::state::{Objects, Past, State, Update};
pub use self::watch::WatchOptions;
use self::watchers::{Hub, fit};
use crate::store::{Change, ChangeKind, Key, Revision, Store, StoreError};

/// How long a read waits for a revision that has not come yet: what kube-apiserver waits.
const WAIT: Duration = Duration::from_secs(3);
/// Replays from the store's history at a time: each may hold as much as the history.
const REPLAYS: usize = 2;

/// What a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Filter {
    /// Whether an object is in it.
    pub fn matches(&self, meta: &Meta) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| *namespace == *meta.namespace)
            && (self.labels.is_empty() || self.labels.matches(|key| meta.label(key)))
            && (self.fields.is_empty() || self.fields.matches(|path| meta.field(path)))
    }

    fn selects(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }
}

/// Which state a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The latest (resourceVersion unset, `0`, or "not older than" a past one).
    Latest,
    /// Not older than this revision: waits for it, a few seconds at most.
    NotOlderThan(Revision),
    /// Exactly this one, while its snapshot is kept: what `continue` and `resourceVersionMatch=Exact` need.
    Exact(Revision),
}

/// A list's page.
#[derive(Clone, Debug)]
pub struct List {
    pub revision: Revision,
    pub entries: Vec<Arc<Entry>>,
    /// The last entry's key, if more entries remain.
    pub next: Option<Key>,
    /// How many matching entries remain after this page; only known without selectors.
    pub remaining: Option<u64>,
}

/// A watch event, already fitted to the watcher's filter.
#[derive(Clone, Debug)]
pub enum Event {
    Added(Arc<Entry>),
    Modified {
        new: Arc<Entry>,
        /// What it was before.
        old: Arc<Entry>,
    },
    /// The last state that matched, already with the resourceVersion of what ended it, and that revision.
    Deleted {
        last: Arc<Entry>,
        revision: Revision,
    },
    /// Nothing that matches happened up to this revision. Sent about once a minute and before the end.
    Progress(Revision),
}

impl Event {
    /// The revision that a watcher has seen with it.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Added(entry) | Self::Modified { new: entry, .. } => entry.revision,
            Self::Deleted { revision, .. } | Self::Progress(revision) => *revision,
        }
    }
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The revision is older than what is kept: 410 Expired.
    #[error("too old resource version: {asked} ({oldest})")]
    Expired { asked: Revision, oldest: Revision },
    /// The revision lies in the future: 504 with the cause `ResourceVersionTooLarge`.
    #[error("Too large resource version: {asked}, current: {current}")]
    TooLarge { asked: Revision, current: Revision },
    /// The watcher's queue was full.
    #[error("the watcher was too slow and has been dropped; list again")]
    TooSlow,
    #[error("no such resource: {0}")]
    Unknown(GroupResource),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A watch: ends with an error, or when the cache stops.
pub type Events = BoxStream<'static, Result<Event, CacheError>>;

/// Numbers of the cache since its start, for metrics.
#[derive(Clone, Debug, Default)]
pub struct CacheStats {
    /// Objects per resource (`core/pods`).
    pub objects: Vec<(Box<str>, usize)>,
    pub watchers: usize,
    /// Watchers that were too slow.
    pub dropped_watchers: u64,
    pub events: u64,
    pub revision: Revision,
}

/// The watchers of every resource, by the name of its shard.
type Hubs = HashMap<Box<str>, Arc<Hub>>;

/// Changes of what is served that may wait for the follower.
const ORDERS: usize = 4;

/// What the follower is asked to do between two batches.
struct Order {
    fields: HashMap<Box<str>, Arc<Fields>>,
    /// Told the revision from which the cache shows what was asked for.
    done: oneshot::Sender<Result<Revision, StoreError>>,
}

/// What readers, watches and the writer share.
struct Inner {
    store: Arc<dyn Store>,
    state: RwLock<State>,
    /// Changed by the follower only, and never without `state`'s shards.
    hubs: RwLock<Arc<Hubs>>,
    /// The revision that reads show.
    shown: tokio::sync::watch::Sender<Revision>,
    /// The revision up to which all watchers' queues have their events.
    delivered: AtomicU64,
    events: AtomicU64,
    closed: AtomicBool,
    replays: Semaphore,
}

/// All resources' caches. Cheap to clone; the last clone's drop ends the task that follows the store.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    orders: mpsc::Sender<Order>,
    _task: Arc<Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl Cache {
    /// Loads every object of the registry's kinds and starts following the store, until that closes.
    pub async fn start(store: Arc<dyn Store>, registry: &Registry) -> Result<Self, CacheError> {
        let hub = |(name, fields): (Box<str>, _)| (name.clone(), Arc::new(Hub::new(name, fields)));
        let hubs: Hubs = fields::of(registry).into_iter().map(hub).collect();
        let (shown, _) = tokio::sync::watch::channel(0);
        let inner = Arc::new(Inner {
            store: Arc::clone(&store),
            state: RwLock::default(),
            hubs: RwLock::new(Arc::new(hubs)),
            shown,
            delivered: AtomicU64::new(0),
            events: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            replays: Semaphore::new(REPLAYS),
        });
        let mut follower = Follower::new(Arc::clone(&inner), store);
        let changes = follower.load().await?;
        let (orders, taken) = mpsc::channel(ORDERS);
        let task = tokio::spawn(follower.run(changes, taken));
        Ok(Self { inner, orders, _task: Arc::new(Task(task)) })
    }

    /// Serves what this registry stores from now on: resources that are new are loaded, those that are gone are dropped and
    /// their watches end, and so do watches of those whose selectable fields changed. The others notice nothing.
    pub async fn serve(&self, registry: &Registry) -> Result<(), CacheError> {
        let (done, revision) = oneshot::channel();
        let order = Order { fields: fields::of(registry), done };
        self.orders.send(order).await.map_err(|_| StoreError::Closed)?;
        let revision = revision.await.map_err(|_| StoreError::Closed)??;
        self.reached(revision).await;
        Ok(())
    }

    /// Returns when the cache shows `revision`, or has stopped.
    pub async fn reached(&self, revision: Revision) {
        // The sender lives in `inner`: this cannot fail.
        let _ = self.inner.shown.subscribe().wait_for(|shown| *shown >= revision).await;
    }

    /// The revision that the cache shows.
    pub fn revision(&self) -> Revision {
        self.inner.state.read().revision
    }

    /// Whether the cache still follows its store (`/readyz`).
    pub fn following(&self) -> bool {
        !self.inner.closed.load(Ordering::Acquire)
    }

    pub fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let state = self.inner.state.read();
        let shard = state.shards.get(&*shard_name(resource))?;
        shard.objects.get(&Key::new(resource, namespace, name)).cloned()
    }

    /// How many objects of a resource there are.
    pub fn count(&self, resource: &GroupResource) -> usize {
        self.inner.state.read().shards.get(&*shard_name(resource)).map_or(0, |shard| shard.objects.len())
    }

    /// All objects of a resource in a namespace (`""`: those in none), as they are now.
    pub fn all(&self, resource: &GroupResource, namespace: &str) -> Vec<Arc<Entry>> {
        let state = self.inner.state.read();
        let Some(shard) = state.shards.get(&*shard_name(resource)) else { return Vec::new() };
        let objects = shard.objects.clone();
        drop(state);
        if objects.is_empty() {
            return Vec::new();
        }
        let filter = Filter { namespace: Some(namespace.to_owned()), ..Filter::default() };
        page(&objects, resource, &filter, 0, None, 0).entries
    }

    /// Matching entries in key order after `after`, at most `limit` (0: all).
    pub async fn list(
        &self,
        resource: &Descriptor,
        filter: &Filter,
        at: At,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<List, CacheError> {
        let group_resource = resource.storage_resource();
        let shard_name = shard_name(&group_resource);
        if let At::NotOlderThan(revision) | At::Exact(revision) = at {
            self.wait_for(revision).await?;
        }
        let (revision, objects) = match at {
            At::Exact(revision) => (revision, self.past(&group_resource, &shard_name, revision).await?),
            At::Latest | At::NotOlderThan(_) => {
                let state = self.inner.state.read();
                let shard = state.shards.get(&*shard_name).ok_or(CacheError::Unknown(group_resource.clone()))?;
                (state.revision, shard.objects.clone())
            }
        };
        let list = page(&objects, &group_resource, filter, revision, after, limit);
        if list.next.is_some()
            && let Some(shard) = self.inner.state.write().shards.get_mut(&*shard_name)
        {
            shard.pin(revision, objects, Instant::now());
        }
        Ok(list)
    }

    /// Events after `after`; `None`: the present state as `Added` events first (resourceVersion unset or `0`), and then a
    /// [`Event::Progress`] with its revision.
    pub async fn watch(
        &self,
        resource: &Descriptor,
        filter: Filter,
        after: Option<Revision>,
    ) -> Result<Events, CacheError> {
        self.watch_with(resource, filter, after, WatchOptions::default()).await
    }

    /// [`Cache::watch`] that ends by itself, or tells its progress more often.
    pub async fn watch_with(
        &self,
        resource: &Descriptor,
        filter: Filter,
        after: Option<Revision>,
        options: WatchOptions,
    ) -> Result<Events, CacheError> {
        let group_resource = resource.storage_resource();
        let shard_name = shard_name(&group_resource);
        let hub = self.inner.hub(&shard_name).ok_or(CacheError::Unknown(group_resource.clone()))?;
        if let Some(after) = after {
            self.wait_for(after).await?;
        }
        let filter = Arc::new(filter);
        let (subscription, start, begin) = hub.subscribe(&filter, || {
            let state = self.inner.state.read();
            let shard = state.shards.get(&*shard_name).ok_or(CacheError::Unknown(group_resource.clone()))?;
            let begin = match after {
                None => Begin::State(shard.objects.clone()),
                Some(after) => shard.events_after(after).map_or(Begin::History(after), |e| Begin::Events(e.into())),
            };
            Ok::<_, CacheError>((state.revision, begin))
        })?;
        let ready = match begin {
            Begin::State(objects) => {
                let list = page(&objects, &group_resource, &filter, start, None, 0);
                list.entries.into_iter().map(Event::Added).chain([Event::Progress(start)]).collect()
            }
            Begin::Events(updates) => updates.iter().filter_map(|update| fit(&filter, update, &mut None)).collect(),
            Begin::History(after) => self.replay(&hub, &filter, after, start).await?,
        };
        Ok(watch::stream(Arc::clone(&self.inner), subscription, start, ready, options))
    }

    pub fn stats(&self) -> CacheStats {
        let all = self.inner.hubs();
        let hubs = || all.values();
        let state = self.inner.state.read();
        CacheStats {
            objects: state.shards.iter().map(|(name, shard)| (name.clone(), shard.objects.len())).collect(),
            watchers: hubs().map(|hub| hub.count()).sum(),
            dropped_watchers: hubs().map(|hub| hub.dropped.load(Ordering::Relaxed)).sum(),
            events: self.inner.events.load(Ordering::Relaxed),
            revision: state.revision,
        }
    }

    async fn wait_for(&self, revision: Revision) -> Result<(), CacheError> {
        if tokio::time::timeout(WAIT, self.reached(revision)).await.is_err() {
            return Err(CacheError::TooLarge { asked: revision, current: self.revision() });
        }
        if self.revision() < revision && !self.following() { Err(StoreError::Closed.into()) } else { Ok(()) }
    }

    /// A past state, while its snapshot or the events since are kept: in memory, or, as after a start, by the store.
    async fn past(&self, resource: &GroupResource, name: &str, revision: Revision) -> Result<Objects, CacheError> {
        let unknown = || CacheError::Unknown(resource.clone());
        let shown = || {
            let state = self.inner.state.read();
            let shard = state.shards.get(name).ok_or_else(unknown)?;
            let past = shard.past(revision, Instant::now());
            Ok::<_, CacheError>((past, state.revision, shard.objects.clone()))
        };
        if let (Some(past), ..) = shown()? {
            return Ok(past.restore());
        }
        let hub = self.inner.hub(name).ok_or_else(unknown)?;
        let _permit = self.inner.replays.acquire().await.map_err(|_| StoreError::Closed)?;
        let (_, now, objects) = shown()?;
        let changes = self.inner.store.history(&format!("{name}/"), revision, now).await.map_err(expired)?;
        let mut parser = Parser::default();
        let undo = changes.into_iter().map(|change| Arc::new(update_of(&mut parser, &hub, change)));
        Ok(Past::new(objects, undo.collect()).restore())
    }

    /// Events older than what memory keeps, from the store's history.
    async fn replay(
        &self,
        hub: &Hub,
        filter: &Filter,
        after: Revision,
        up_to: Revision,
    ) -> Result<Vec<Event>, CacheError> {
        let _permit = self.inner.replays.acquire().await.map_err(|_| StoreError::Closed)?;
        let mut prefix = format!("{}/", hub.name);
        if let Some(namespace) = &filter.namespace {
            prefix = format!("{prefix}{namespace}/");
        }
        let changes = self.inner.store.history(&prefix, after, up_to).await.map_err(expired)?;
        let mut parser = Parser::default();
        let updates = changes.into_iter().map(|change| update_of(&mut parser, hub, change));
        Ok(updates.filter_map(|update| fit(filter, &update, &mut None)).collect())
    }
}

impl Inner {
    fn hubs(&self) -> Arc<Hubs> {
        Arc::clone(&self.hubs.read())
    }

    fn hub(&self, name: &str) -> Option<Arc<Hub>> {
        self.hubs.read().get(name).cloned()
    }
}

/// What a watch begins with.
enum Begin {
    State(Objects),
    Events(Vec<Arc<Update>>),
    History(Revision),
}

fn expired(error: StoreError) -> CacheError {
    match error {
        StoreError::Compacted { asked, oldest } => CacheError::Expired { asked, oldest },
        other => CacheError::Store(other),
    }
}

/// A resource's keys without the last slash: `core/pods`.
fn shard_name(resource: &GroupResource) -> Box<str> {
    Key::prefix(resource).trim_end_matches('/').into()
}

fn update_of(parser: &mut Parser, hub: &Hub, change: Change) -> Update {
    let Change { revision, key, kind, value, previous } = change;
    let mut entry = |bytes: bytes::Bytes, revision| {
        let meta = parser.meta(&key, &bytes, &hub.fields);
        Arc::new(Entry { key: key.clone(), bytes, revision, meta })
    };
    let old = previous.map(|bytes| {
        let written = parse::resource_version(&bytes).and_then(|range| std::str::from_utf8(bytes.get(range)?).ok());
        let written = written.and_then(|digits| digits.parse().ok()).unwrap_or_default();
        entry(bytes, written)
    });
    let new = (kind != ChangeKind::Deleted).then(|| entry(value, revision));
    Update { revision, new, old, at: Instant::now() }
}

/// The entries of `objects` that a list shows.
fn page(
    objects: &Objects,
    group_resource: &GroupResource,
    filter: &Filter,
    revision: Revision,
    after: Option<&Key>,
    limit: usize,
) -> List {
    let mut prefix = Key::prefix(group_resource);
    if let Some(namespace) = &filter.namespace {
        prefix = format!("{prefix}{namespace}/");
    }
    let first = Key::from_stored(&prefix);
    let from = after.filter(|key| **key >= first).unwrap_or(&first);
    let mut rows = objects
        .range::<_, Key>(from..)
        .skip_while(|(key, _)| after == Some(key))
        .take_while(|(key, _)| key.as_str().starts_with(&prefix))
        .map(|(_, entry)| entry)
        .filter(|entry| filter.matches(&entry.meta));
    let limit = if limit == 0 { usize::MAX } else { limit };
    let entries: Vec<Arc<Entry>> = rows.by_ref().take(limit).cloned().collect();
    let more = rows.next().is_some();
    let next = entries.last().filter(|_| more).map(|entry| entry.key.clone());
    let remaining = (more && !filter.selects()).then(|| 1 + rows.count() as u64);
    List { revision, entries, next, remaining }
}
