//! The watch cache: every stored object once, as the bytes that are sent, with its parsed metadata beside it.
//!
//! One task follows the store and is the only writer. Readers take snapshots (persistent maps) without waiting for each
//! other. Reads through the cache see every acknowledged write: a writer waits with [`Cache::reached`] before it answers.
//! A watcher has a bounded queue; one that falls behind is dropped and must list again.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use wherry_api::registry::Registry;
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::selector::{FieldSelector, LabelSelector};

use crate::store::{Key, Revision, Store, StoreError};

/// One object.
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    /// The object as it is sent, resourceVersion included.
    pub bytes: Bytes,
    /// Of its last write.
    pub revision: Revision,
    pub meta: Meta,
}

/// The parsed part of an entry.
#[derive(Debug, Default)]
pub struct Meta {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// uids of owner references.
    pub owners: Box<[Box<str>]>,
    /// Values of the descriptor's `selectable` fields, in its order.
    pub fields: Box<[Box<str>]>,
    pub deleting: bool,
}

impl Meta {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }

    /// A field by the path that field selectors use; `""` if it is absent or not indexed.
    pub fn field(&self, resource: &Descriptor, path: &str) -> &str {
        match path {
            "metadata.name" => &self.name,
            "metadata.namespace" => &self.namespace,
            _ => resource.selectable.iter().position(|p| *p == path).and_then(|i| self.fields.get(i)).map_or("", |v| v),
        }
    }
}

/// What a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
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
    Modified(Arc<Entry>),
    /// The last state that matched, and the revision of what ended it.
    Deleted {
        last: Arc<Entry>,
        revision: Revision,
    },
    /// Nothing that matches happened up to this revision. Sent about once a minute and before the end.
    Progress(Revision),
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

/// All resources' caches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {}

impl Cache {
    /// Loads every object and starts following the store. The returned task handle ends when the store closes.
    pub async fn start(_store: Arc<dyn Store>, _registry: &Registry) -> Result<Self, CacheError> {
        todo!()
    }

    /// Returns when the cache shows `revision`.
    pub async fn reached(&self, _revision: Revision) {
        todo!()
    }

    /// The revision that the cache shows.
    pub fn revision(&self) -> Revision {
        todo!()
    }

    pub fn get(&self, _resource: &GroupResource, _namespace: &str, _name: &str) -> Option<Arc<Entry>> {
        todo!()
    }

    /// Matching entries in key order after `after`, at most `limit` (0: all).
    pub async fn list(
        &self,
        _resource: &Descriptor,
        _filter: &Filter,
        _at: At,
        _after: Option<&Key>,
        _limit: usize,
    ) -> Result<List, CacheError> {
        todo!()
    }

    /// Events after `after`; `None`: the present state as `Added` events first (resourceVersion unset or `0`).
    pub async fn watch(
        &self,
        _resource: &Arc<Descriptor>,
        _filter: Filter,
        _after: Option<Revision>,
    ) -> Result<Events, CacheError> {
        todo!()
    }
}
