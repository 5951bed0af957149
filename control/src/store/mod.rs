//! The store contract: revisioned get, list, transactions with preconditions, and watch.
//!
//! Every write gets a revision, greater than all before it. A value is a finished object except for its
//! resourceVersion, which the store's writer splices in ([`Encoded`]), so that what is stored, cached and sent is one
//! `Bytes`. Engines: [`redb`] (default), later etcd; `contract.rs` holds the suite that every engine passes.

#[cfg(test)]
pub(crate) mod contract;
pub mod encrypted;
pub mod redb;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use wherry_api::resource::{Durability, GroupResource};

/// A revision of the whole store; 0 is "before everything".
pub type Revision = u64;

/// Where an object lives: `GROUP/PLURAL/NAMESPACE/NAME`, the core group written as `core`, a cluster-scoped object with an
/// empty namespace. Orders as Kubernetes lists: by namespace, then name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    pub fn new(resource: &GroupResource, namespace: &str, name: &str) -> Self {
        Self(format!("{}{namespace}/{name}", Self::prefix(resource)).into())
    }

    /// What all keys of a resource begin with.
    pub fn prefix(resource: &GroupResource) -> String {
        let group = if resource.group.is_empty() { "core" } else { &resource.group };
        format!("{group}/{}/", resource.resource)
    }

    /// A key as it was stored.
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stored value and the revision of its last write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Key,
    pub value: Bytes,
    pub revision: Revision,
}

/// An object encoded but for its resourceVersion: `bytes` contains `"resourceVersion":""` and `splice` is the offset
/// between those quotes, where the writer puts the revision in decimal.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    pub splice: usize,
}

impl Encoded {
    /// The finished object.
    pub fn with_revision(&self, revision: Revision) -> Bytes {
        let digits = revision.to_string();
        let mut out = Vec::with_capacity(self.bytes.len() + digits.len());
        let (head, tail) = self.bytes.split_at(self.splice.min(self.bytes.len()));
        out.extend_from_slice(head);
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(tail);
        Bytes::from(out)
    }
}

/// What must hold for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    Absent,
    /// The record exists and its last write has this revision.
    At(Revision),
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    Put {
        key: Key,
        value: Encoded,
    },
    /// Removes the record; watchers get its last value with the deletion's revision.
    Delete {
        key: Key,
    },
}

/// Writes that happen together or not at all, in one revision.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub preconditions: Vec<(Key, Precondition)>,
    pub ops: Vec<Op>,
    pub durability: Durability,
    /// Seconds after which the written records expire.
    pub expires_after: Option<u32>,
}

/// A transaction that happened; `values` are the finished bytes of its `Put`s, in order.
#[derive(Clone, Debug)]
pub struct Committed {
    pub revision: Revision,
    pub values: Vec<Bytes>,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The revision that the page shows.
    pub revision: Revision,
    pub records: Vec<Record>,
    /// Whether records after the last one remain.
    pub more: bool,
}

/// A change, in revision order. A deletion carries the last value.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: Revision,
    pub key: Key,
    pub kind: ChangeKind,
    /// The new value; for a deletion the last one.
    pub value: Bytes,
    /// The value before, where there was one.
    pub previous: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Created,
    Updated,
    Deleted,
}

/// Why a store call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A precondition did not hold; nothing was written. `actual` is what is there.
    #[error("precondition on {key:?} failed")]
    Precondition { key: Key, actual: Option<Record> },
    /// The revision asked for is no longer kept; `oldest` is the first that a watch may start after.
    #[error("revision {asked} has been compacted; the oldest kept is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("the data directory {path} is in use by another process; stop it or choose another --data-dir")]
    Locked { path: String },
    #[error(
        "the data in {path} was written by a newer version of Wherry (format {found}, this version reads up to {known}); use that version, or restore a backup"
    )]
    Newer { path: String, found: u32, known: u32 },
    #[error(
        "the database {path} is damaged; restore a backup of it (`wherry backup` makes them), or move the file away to start empty"
    )]
    Damaged {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{object} cannot be read")]
    Sealed {
        /// Resource and place.
        object: String,
        #[source]
        source: encrypted::SealError,
    },
    /// Nothing was written.
    #[error("the disk has no room; the store writes again when it has")]
    Full,
    /// Nothing was written.
    #[error(
        "the disk had no room, and the store's file is still read, as a backup does; the store writes again when that ends"
    )]
    InUse,
    #[error("the store failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether it ends by itself.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Full | Self::InUse)
    }
}

/// Batches of changes of one transaction group, in order. Ends with an error when the watcher was too slow or
/// the history it needs is gone.
pub type Changes = BoxStream<'static, Result<Vec<Change>, StoreError>>;

/// Numbers of a store since it was opened, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Durable commits; each covers one or more transactions.
    pub batches: u64,
    /// Transactions written to disk.
    pub transactions: u64,
    /// Transactions of the largest of them.
    pub largest_batch: u64,
    /// Transactions that were acknowledged from memory.
    pub relaxed: u64,
    /// Transactions that were refused.
    pub conflicts: u64,
    /// Records removed because they expired.
    pub expired: u64,
    /// Time spent in durable commits.
    pub fsync: Duration,
    /// The longest of them.
    pub slowest_fsync: Duration,
    /// Records that are there now.
    pub records: usize,
    /// Relaxed transactions that are not on disk yet.
    pub unwritten: usize,
    /// Bytes of history in memory.
    pub history_bytes: usize,
}

/// A revisioned key-value store with watch.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// Records whose key begins with `prefix`, after `after`, at most `limit` (0: all), at the current revision.
    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError>;

    /// Commits, and returns when the transaction is as durable as it asks.
    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError>;

    /// All changes after `after` to keys that begin with `prefix` (`""`: all). [`StoreError::Compacted`] if that is too long ago.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError>;

    /// The changes after `after` up to `up_to` (which has happened) to keys that begin with `prefix`, in order.
    /// [`StoreError::Compacted`] if that is too long ago.
    async fn history(&self, prefix: &str, after: Revision, up_to: Revision) -> Result<Vec<Change>, StoreError>;

    /// Whether a record is stored in a form that a write would no longer give it (its encryption key changed): it is
    /// worth writing again though it is the same object.
    async fn stale(&self, _key: &Key) -> bool {
        false
    }

    /// Why writes are refused, as far as is known. [`StoreError::Full`] and [`StoreError::InUse`] pass by themselves.
    fn writable(&self) -> Result<(), StoreError>;

    /// The revision of the last commit.
    fn revision(&self) -> Revision;

    /// The oldest revision that a watch may start after.
    fn oldest(&self) -> Revision;

    /// Writes a consistent copy to a new file while the store runs.
    async fn backup(&self, to: &Path) -> Result<(), StoreError>;

    /// Writes out what is relaxed and stops. Later calls fail with [`StoreError::Closed`].
    async fn close(&self) -> Result<(), StoreError>;

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}
