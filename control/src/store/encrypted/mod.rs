//! Encryption at rest: a store around the engine that seals the values of chosen resources on their way to it and opens
//! them on their way back.
//!
//! Everything above (cache, server, watches) sees plain objects; the engine, its file, its history and its backups never
//! do. What must stay true: a value is opened only under the key path that it was sealed for; what cannot be opened is an
//! error that names the object and the key, at start, before anything is written; values that are not sealed pass through
//! at the cost of looking at their first bytes.

pub mod config;
mod envelope;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

pub use self::config::{ConfigError, Encryption};
pub use self::envelope::SealError;
use super::{Change, Changes, Committed, Encoded, Key, Op, Page, Record, Revision, Store, StoreError, StoreStats, Txn};

/// The engine, and what it is not shown.
#[derive(Debug)]
pub struct EncryptedStore {
    engine: Arc<dyn Store>,
    encryption: Arc<Encryption>,
}

impl EncryptedStore {
    /// Checks that everything stored can be read. Without a configuration, that nothing is sealed.
    pub async fn open(engine: Arc<dyn Store>, encryption: Encryption) -> Result<Self, StoreError> {
        let store = Self { engine, encryption: Arc::new(encryption) };
        store.list("", None, 0).await?;
        Ok(store)
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.engine.get(key).await?.map(|record| opened(&self.encryption, record)).transpose()
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        let mut page = self.engine.list(prefix, after, limit).await?;
        for record in &mut page.records {
            open_in_place(&self.encryption, &record.key, &mut record.value)?;
        }
        Ok(page)
    }

    async fn commit(&self, mut txn: Txn) -> Result<Committed, StoreError> {
        // What the caller is answered: the plain value of each `Put` that was sealed.
        let mut plain: Vec<Option<Encoded>> = Vec::new();
        for op in &mut txn.ops {
            if let Op::Put { key, value } = op {
                let sealed = self.encryption.seal(key, value)?;
                plain.push(sealed.map(|sealed| std::mem::replace(value, sealed)));
            }
        }
        match self.engine.commit(txn).await {
            Ok(mut committed) => {
                for (value, plain) in committed.values.iter_mut().zip(plain) {
                    if let Some(plain) = plain {
                        *value = plain.with_revision(committed.revision);
                    }
                }
                Ok(committed)
            }
            Err(StoreError::Precondition { key, actual: Some(record) }) => {
                Err(StoreError::Precondition { key, actual: Some(opened(&self.encryption, record)?) })
            }
            Err(error) => Err(error),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let encryption = Arc::clone(&self.encryption);
        let changes = self.engine.watch(prefix, after).await?;
        Ok(changes.map(move |batch| open_changes(&encryption, batch?)).boxed())
    }

    async fn history(&self, prefix: &str, after: Revision, up_to: Revision) -> Result<Vec<Change>, StoreError> {
        let changes = self.engine.history(prefix, after, up_to).await?;
        // A key that was taken away since takes the history that it sealed with it; the present state has been checked.
        open_changes(&self.encryption, changes).map_err(|error| match error {
            StoreError::Sealed { .. } => StoreError::Compacted { asked: after, oldest: up_to },
            other => other,
        })
    }

    async fn stale(&self, key: &Key) -> bool {
        matches!(self.engine.get(key).await, Ok(Some(record)) if self.encryption.stale(key, &record.value))
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.engine.writable()
    }

    fn revision(&self) -> Revision {
        self.engine.revision()
    }

    fn oldest(&self) -> Revision {
        self.engine.oldest()
    }

    async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        self.engine.backup(to).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.engine.close().await
    }

    fn stats(&self) -> StoreStats {
        self.engine.stats()
    }
}

fn opened(encryption: &Encryption, mut record: Record) -> Result<Record, StoreError> {
    open_in_place(encryption, &record.key, &mut record.value)?;
    Ok(record)
}

fn open_in_place(encryption: &Encryption, key: &Key, value: &mut Bytes) -> Result<(), StoreError> {
    if let Some(plain) = encryption.open(key, value)? {
        *value = plain;
    }
    Ok(())
}

fn open_changes(encryption: &Encryption, mut changes: Vec<Change>) -> Result<Vec<Change>, StoreError> {
    for change in &mut changes {
        open_in_place(encryption, &change.key, &mut change.value)?;
        if let Some(previous) = &mut change.previous {
            open_in_place(encryption, &change.key, previous)?;
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests;
