//! What changed in one resource since its last look: for readers inside the server that keep an index of their own.
//!
//! An index that is brought up to date with [`Cache::since`] before it is asked sees every acknowledged write, without a
//! task that follows and without looking at what has not changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use wherry_api::resource::GroupResource;

use super::{Cache, Entry, shard_name};
use crate::store::{Key, Revision};

/// A reader's place in the changes of one resource.
#[derive(Debug)]
pub(crate) struct Follow {
    shard: Box<str>,
    /// `None`: nothing has been seen yet.
    seen: Option<Revision>,
}

impl Follow {
    pub(crate) fn new(resource: &GroupResource) -> Self {
        Self { shard: shard_name(resource), seen: None }
    }
}

/// What a reader has not seen yet.
#[derive(Debug, Default)]
pub(crate) struct Since {
    /// Whether what the reader knows is to be forgotten: the changes are everything there is, because those that came
    /// between are no longer kept.
    pub(crate) afresh: bool,
    /// In order; an object without an entry is gone.
    pub(crate) changes: Vec<(Key, Option<Arc<Entry>>)>,
}

impl Since {
    pub(crate) fn is_empty(&self) -> bool {
        !self.afresh && self.changes.is_empty()
    }

    /// Brings what was read of each object up to date, under the name that its key gives it. What cannot be read is not known.
    pub(crate) fn read_into<N: Ord, T>(
        self,
        known: &mut BTreeMap<N, T>,
        name: impl Fn(Key) -> N,
        read: impl Fn(&Entry) -> Option<T>,
    ) {
        if self.afresh {
            known.clear();
        }
        for (key, entry) in self.changes {
            match entry.and_then(|entry| read(&entry)) {
                Some(object) => drop(known.insert(name(key), object)),
                None => drop(known.remove(&name(key))),
            }
        }
    }
}

impl Cache {
    /// What changed after the reader's last look, which is moved up to now.
    pub(crate) fn since(&self, follow: &mut Follow) -> Since {
        let state = self.inner.state.read();
        let (Some(shard), now) = (state.shards.get(&follow.shard), state.revision) else { return Since::default() };
        let seen = follow.seen.replace(now);
        match seen.and_then(|seen| shard.events_after(seen)) {
            Some(events) => {
                let changes = events.iter().filter_map(|update| Some((update.key()?.clone(), update.new.clone())));
                Since { afresh: false, changes: changes.collect() }
            }
            None => {
                let present = shard.objects.values().map(|entry| (entry.key.clone(), Some(Arc::clone(entry))));
                Since { afresh: true, changes: present.collect() }
            }
        }
    }
}
