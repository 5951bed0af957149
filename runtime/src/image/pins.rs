//! What the pulls and loads under way need of the disk, by digest: it stays while images are removed, however long they take.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(super) struct Pins {
    counts: Mutex<HashMap<String, usize>>,
    /// Held for a moment by who pins something, and by who removes images until that is done: nothing is pinned meanwhile.
    adding: tokio::sync::Mutex<()>,
}

/// What one pull or load needs, until it is dropped.
#[derive(Debug)]
pub(super) struct Pinned {
    pins: Arc<Pins>,
    digests: Vec<String>,
}

/// All that is pinned. No more is as long as this is held.
#[derive(Debug)]
pub(super) struct Still<'a> {
    digests: HashSet<String>,
    _adding: tokio::sync::MutexGuard<'a, ()>,
}

impl Pins {
    pub(super) fn begin(self: &Arc<Self>) -> Pinned {
        Pinned { pins: Arc::clone(self), digests: Vec::new() }
    }

    pub(super) async fn still(&self) -> Still<'_> {
        let adding = self.adding.lock().await;
        Still { digests: self.counts.lock().keys().cloned().collect(), _adding: adding }
    }
}

impl Pinned {
    /// Pins before it is looked whether it is here.
    pub(super) async fn add(&mut self, digests: impl IntoIterator<Item = &str>) {
        let _adding = self.pins.adding.lock().await;
        let mut counts = self.pins.counts.lock();
        for digest in digests {
            *counts.entry(digest.to_owned()).or_default() += 1;
            self.digests.push(digest.to_owned());
        }
    }
}

/// For what goes on when the first is dropped. It waits for nobody: all of it is pinned.
impl Clone for Pinned {
    fn clone(&self) -> Self {
        let mut counts = self.pins.counts.lock();
        for digest in &self.digests {
            *counts.entry(digest.clone()).or_default() += 1;
        }
        Self { pins: Arc::clone(&self.pins), digests: self.digests.clone() }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut counts = self.pins.counts.lock();
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

impl Still<'_> {
    pub(super) fn has(&self, digest: &str) -> bool {
        self.digests.contains(digest)
    }
}
