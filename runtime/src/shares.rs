//! Each namespace's share of what the node has for all.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// The shares that somebody holds.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Shares {
    /// A namespace's share, of so many places when nobody held it before.
    pub(crate) fn of(&self, namespace: &str, places: usize) -> Arc<Semaphore> {
        let mut shares = self.0.lock();
        shares.retain(|_, share| share.strong_count() > 0);
        let known = shares.get(namespace).and_then(Weak::upgrade);
        let share = known.unwrap_or_else(|| Arc::new(Semaphore::new(places)));
        shares.insert(namespace.to_owned(), Arc::downgrade(&share));
        share
    }
}
