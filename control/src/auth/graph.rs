//! Which objects the pods of each node refer to, kept from the cache's changes.
//!
//! A question is a look into a map, however many pods there are. A pod is parsed when a node asks for something that none
//! of its known pods refers to, once per change of the pod: what a spec refers to only grows while the pod lives.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use wherry_api::resource::GroupResource;

use super::references::{self, Referenced};
use crate::cache::{Cache, Entry, Follow, Since};
use crate::store::Key;

/// The relations between nodes and what they may read.
pub(super) struct Graph {
    cache: Cache,
    state: Mutex<State>,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").finish_non_exhaustive()
    }
}

struct State {
    follow: Follow,
    /// Where each pod runs.
    places: HashMap<Key, Box<str>>,
    nodes: HashMap<Box<str>, Node>,
}

type Reference = (Referenced, Box<str>, Box<str>);

#[derive(Default)]
struct Node {
    /// Pods by what they refer to: kind, namespace, name.
    referrers: HashMap<Reference, HashSet<Key>>,
    references: HashMap<Key, Vec<Reference>>,
    /// Pods that were not looked into since they changed.
    unread: HashMap<Key, Arc<Entry>>,
}

impl Graph {
    pub(super) fn new(cache: Cache) -> Self {
        let follow = Follow::new(&GroupResource::new("", "pods"));
        Self { cache, state: Mutex::new(State { follow, places: HashMap::new(), nodes: HashMap::new() }) }
    }

    /// Whether a pod of the node refers to this object.
    pub(super) fn refers(&self, node: &str, kind: Referenced, namespace: &str, name: &str) -> bool {
        let mut state = self.state.lock();
        state.refresh(&self.cache);
        let Some(node) = state.nodes.get_mut(node) else { return false };
        let wanted = (kind, namespace.into(), name.into());
        if !node.referrers.contains_key(&wanted) {
            node.read();
        }
        node.referrers.contains_key(&wanted)
    }
}

impl State {
    fn refresh(&mut self, cache: &Cache) {
        let Since { afresh, changes } = cache.since(&mut self.follow);
        if afresh {
            self.places.clear();
            self.nodes.clear();
        }
        for (key, entry) in changes {
            self.change(key, entry);
        }
    }

    fn change(&mut self, key: Key, entry: Option<Arc<Entry>>) {
        let place = entry.as_ref().map(|entry| entry.meta.field("spec.nodeName")).filter(|node| !node.is_empty());
        if let Some(before) = self.places.get(&key).filter(|before| place != Some(&***before)).cloned() {
            self.places.remove(&key);
            if let Some(node) = self.nodes.get_mut(&before) {
                node.forget(&key);
                if node.is_empty() {
                    self.nodes.remove(&before);
                }
            }
        }
        if let (Some(place), Some(entry)) = (place, &entry) {
            self.places.insert(key.clone(), place.into());
            self.nodes.entry(place.into()).or_default().unread.insert(key, Arc::clone(entry));
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.references.is_empty()
    }

    fn forget(&mut self, key: &Key) {
        self.unread.remove(key);
        for reference in self.references.remove(key).unwrap_or_default() {
            if let Some(pods) = self.referrers.get_mut(&reference) {
                pods.remove(key);
                if pods.is_empty() {
                    self.referrers.remove(&reference);
                }
            }
        }
    }

    fn read(&mut self) {
        for (key, entry) in std::mem::take(&mut self.unread) {
            self.forget(&key);
            let namespace = &entry.meta.namespace;
            let all = references::all(&entry.bytes);
            let all: Vec<Reference> = all.into_iter().map(|(kind, name)| (kind, (**namespace).into(), name)).collect();
            for reference in &all {
                self.referrers.entry(reference.clone()).or_default().insert(key.clone());
            }
            self.references.insert(key, all);
        }
    }
}
