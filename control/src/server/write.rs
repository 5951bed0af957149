//! The one way into the store: encode, commit, wait until the cache shows it.
//!
//! What must stay true: what a writer is answered is what was committed, byte for byte; when it is answered, every later
//! read sees it; a change that changes nothing is not written; no object outgrows what a client may send at once, however
//! many patches made it.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use super::Server;
use super::alloc::{Hold, Writes};
use super::body;
use super::call::Call;
use super::definitions::Definitions;
use super::error::ServerError;
use crate::admission::Charge;
use crate::registry::Closed;
use crate::store::{Committed, Encoded, Key, Op, Precondition, Revision, StoreError, Txn};

/// How often a write that names no resourceVersion is tried again when another one was faster. Each failure means that
/// somebody else's write succeeded.
pub(crate) const ATTEMPTS: usize = 32;

/// An object as it is in the store, in the stored version.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) revision: Revision,
}

/// What is to be written: an object in the stored version of `resource`. It has been converted before it is charged: nobody
/// waits for a webhook while others of the namespace wait for their turn.
#[derive(Debug)]
pub(crate) struct Put<'a> {
    pub(crate) resource: &'a Descriptor,
    pub(crate) key: Key,
    pub(crate) stored: &'a Value,
    pub(crate) preconditions: Vec<(Key, Precondition)>,
    /// What is charged for it in the same transaction.
    pub(crate) charge: Charge,
}

impl Server {
    /// The present state of an object. Sees every acknowledged write.
    pub(crate) fn current(&self, resource: &Descriptor, namespace: &str, name: &str) -> Option<Stored> {
        let entry = self.cache().get(&resource.storage_resource(), namespace, name)?;
        Some(Stored { bytes: entry.bytes.clone(), revision: entry.revision })
    }

    /// Returns when reads show every write that the store has acknowledged: for another look after one that was too old.
    pub(crate) async fn caught_up(&self) {
        self.cache().reached(self.store().revision()).await;
    }

    /// Writes an object; `hold` is what was allocated for it.
    pub(crate) async fn put(&self, put: Put<'_>, mut hold: Hold) -> Result<Stored, ServerError> {
        let (bytes, splice) = object::encode(put.stored);
        if bytes.len() > body::LIMIT {
            return Err(ApiError::too_large(body::LIMIT).into());
        }
        let Charge { preconditions: charged, ops: charges, turn } = put.charge;
        let Writes { preconditions: taken, ops: takes } = hold.take_writes();
        let own = Op::Put { key: put.key, value: Encoded { bytes, splice } };
        let txn = Txn {
            preconditions: put.preconditions.into_iter().chain(charged).chain(taken).collect(),
            ops: [own].into_iter().chain(charges).chain(takes).collect(),
            durability: put.resource.durability,
            expires_after: put.resource.expires_after,
        };
        let committed = self.commit(txn, move || hold.keep()).await?;
        // The next writer may be charged now: the cache shows this one.
        drop(turn);
        let bytes = committed.values.into_iter().next().unwrap_or_default();
        Ok(Stored { bytes, revision: committed.revision })
    }

    /// Removes an object, `old`, whose last write has this revision.
    pub(crate) async fn remove(
        &self,
        resource: &Descriptor,
        key: Key,
        old: &Value,
        revision: Revision,
    ) -> Result<Revision, ServerError> {
        let Writes { preconditions, ops } = self.allocators().ending(resource, old);
        let own = (key.clone(), Precondition::At(revision));
        let txn = Txn {
            preconditions: [own].into_iter().chain(preconditions).collect(),
            ops: [Op::Delete { key: key.clone() }].into_iter().chain(ops).collect(),
            durability: resource.durability,
            expires_after: None,
        };
        let (allocators, uid) = (self.allocators().clone(), object::uid(old).to_owned());
        let closed = self.close(resource, object::name(old)).await?;
        let done = move || {
            allocators.release(&key, &uid);
            closed
        };
        Ok(self.commit(txn, done).await?.revision)
    }

    /// What is not stored with a namespace goes before it does: its images. Nothing may be put there until the answer is
    /// dropped.
    async fn close(&self, resource: &Descriptor, name: &str) -> Result<Option<Closed>, ServerError> {
        let images = self.config().images.as_ref().filter(|_| resource.is("", "namespaces"));
        let Some(images) = images else { return Ok(None) };
        Ok(Some(images.close(name).await?))
    }

    /// Commits on a task of the server: a client that goes away must not part a write from what follows it. What `done` gives
    /// is kept until every reader sees the write.
    async fn commit<T: Send>(
        &self,
        txn: Txn,
        done: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Committed, ServerError> {
        let (store, server) = (self.store().clone(), self.clone());
        let defines = txn.ops.iter().any(|op| match op {
            Op::Put { key, .. } | Op::Delete { key } => Definitions::concerns(key),
        });
        let task = self.tasks().spawn(async move {
            let committed = store.commit(txn).await?;
            let until_seen = done();
            server.cache().reached(committed.revision).await;
            drop(until_seen);
            if defines && let Err(error) = server.serve_definitions(committed.revision).await {
                // It is written: whoever follows the definitions tries again.
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "what a definition defines cannot be served yet");
            }
            Ok::<_, ServerError>(committed)
        });
        task.await?
    }
}

/// What a change that was not written is to be tried again on, if it was made of a state that is no longer there: the
/// object as it is now. Errors: 404 if it is gone, or the failure, if it is another one.
pub(crate) async fn again(
    call: &Call,
    name: &str,
    current: Stored,
    failure: ServerError,
) -> Result<Stored, ServerError> {
    let ServerError::Store(StoreError::Precondition { key, actual }) = failure else { return Err(failure) };
    if key != call.key_of(name) {
        // What goes with it (a quota, a range, an address) changed between the look at it and the write.
        call.server.caught_up().await;
        return Ok(current);
    }
    let record = actual.ok_or_else(|| ApiError::not_found(&call.resource, name))?;
    Ok(Stored { bytes: record.value, revision: record.revision })
}

/// What an object of the stored version would be in the store without having been written.
pub(crate) fn unwritten(stored: Cow<'_, Value>, revision: Option<Revision>) -> Stored {
    if let Some(revision) = revision {
        let (bytes, splice) = object::encode(&stored);
        return Stored { bytes: Encoded { bytes, splice }.with_revision(revision), revision };
    }
    let mut stored = stored.into_owned();
    object::remove_meta(&mut stored, "resourceVersion");
    Stored { bytes: stored.to_string().into(), revision: 0 }
}
