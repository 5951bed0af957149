//! Work that several want at once is done once, and goes on when nobody waits for it any more: the next finds what came of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use super::store::StoreError;

type Outcome<T> = Result<Arc<T>, Arc<StoreError>>;
pub(super) type Joined<T> = Shared<BoxFuture<'static, Outcome<T>>>;

/// What is under way, by everything that distinguishes it; it leaves when it ends. Cheap to clone.
pub(super) struct UnderWay<K, T>(Arc<Mutex<HashMap<K, Joined<T>>>>);

impl<K, T> Clone for UnderWay<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for UnderWay<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> UnderWay<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Send + Sync + 'static,
{
    /// Joins what is under way, or starts it.
    pub(super) fn join(&self, key: K, work: impl Future<Output = Outcome<T>> + Send + 'static) -> Joined<T> {
        let mut under_way = self.0.lock();
        if let Some(running) = under_way.get(&key) {
            return running.clone();
        }
        let (this, done) = (self.clone(), key.clone());
        let task = tokio::spawn(async move {
            // Also if it panics: the next begins anew.
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            this.0.lock().remove(&done);
            outcome.unwrap_or_else(|_| Err(Arc::new(StoreError::Interrupted)))
        });
        let joined = async move { task.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Interrupted))) };
        let joined = joined.boxed().shared();
        under_way.insert(key, joined.clone());
        joined
    }
}
