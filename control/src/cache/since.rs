//! What changed in one resource since its last look: for readers inside the server that keep an index of their own.
//!
//! An index that is brought up to date with [`Cache::since`] before it is asked sees every acknowledged write, without a
//! task that follows and without looking at what has not changed.

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
#[derive(Debug)]
pub(crate) enum Since {
    Nothing,
    /// In order; an object without an entry is gone.
    Changed(Vec<(Key, Option<Arc<Entry>>)>),
    /// Everything there is, because the changes are no longer kept.
    All(Vec<Arc<Entry>>),
}

impl Cache {
    /// What changed after the reader's last look, which is moved up to now.
    pub(crate) fn since(&self, follow: &mut Follow) -> Since {
        let state = self.inner.state.read();
        let (Some(shard), now) = (state.shards.get(&follow.shard), state.revision) else { return Since::Nothing };
        let seen = follow.seen.replace(now);
        match seen.and_then(|seen| shard.events_after(seen)) {
            Some(events) if events.is_empty() => Since::Nothing,
            Some(events) => {
                let changes = events.iter().filter_map(|update| Some((update.key()?.clone(), update.new.clone())));
                Since::Changed(changes.collect())
            }
            None => Since::All(shard.objects.values().cloned().collect()),
        }
    }
}
