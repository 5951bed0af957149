//! A typed cache of one kind that shows a process its own writes.
//!
//! Fed by a watch; a component that has written an object hands the server's answer to [`Store::observe`] or
//! [`Store::forget`], so that the next reconcile sees it even if the watch is behind: nobody creates twice. Versions only
//! move forward. Writers take turns and call the handlers in the order of the changes; readers wait for a map lookup at most.
//! A handler must be quick and must not write to a store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use either::Either;
use kube::Resource;
use kube::runtime::watcher;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use wherry_api::lenient::Lenient;

use super::kinds::Kind;
use super::{Key, controller_of, uid, version};

/// What happened to one object; at least one side is there.
#[derive(Debug)]
pub struct Change<'a, K> {
    pub old: Option<&'a Arc<K>>,
    pub new: Option<&'a Arc<K>>,
}

impl<'a, K> Change<'a, K> {
    /// The newest state there is.
    pub fn latest(&self) -> Option<&'a Arc<K>> {
        self.new.or(self.old)
    }

    /// Both states.
    pub fn sides(&self) -> impl Iterator<Item = &'a Arc<K>> {
        self.old.into_iter().chain(self.new)
    }
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// Readers' and observers' side of the cache; clones share it.
pub struct Store<K>(Arc<Inner<K>>);

struct Inner<K> {
    state: RwLock<State<K>>,
    /// Held while a change is made and told: handlers see changes in order. One entry per subscriber, all made at start.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// By the uid of the controlling owner; `""` for objects without one.
    owned: HashMap<Box<str>, BTreeSet<Key>>,
    /// By [`Kind::group`].
    grouped: HashMap<Box<str>, BTreeSet<Key>>,
    /// uids that this process deleted and whose DELETED event is still to come; emptied by every relist.
    removed: HashSet<Box<str>>,
    /// The version up to which the watch has told everything: an answer to a write that is no newer, about an object that is
    /// not here, is about one that has gone since.
    told: u64,
    relist: Option<Relist>,
    /// What was written, at this version, while a list came that does not show it: if the watch tells of later things first, it
    /// was deleted before the list was made.
    doubtful: HashMap<Key, u64>,
}

/// A list that is being received: what it showed, and what this process wrote meanwhile.
#[derive(Default)]
struct Relist {
    seen: HashSet<Key>,
    written: HashMap<Key, u64>,
    /// The latest version that it showed.
    latest: u64,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("objects", &self.0.state.read().objects.len()).finish_non_exhaustive()
    }
}

impl<K> Default for State<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            owned: HashMap::new(),
            grouped: HashMap::new(),
            removed: HashSet::new(),
            told: 0,
            relist: None,
            doubtful: HashMap::new(),
        }
    }
}

impl<K: Kind> Default for Store<K> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: RwLock::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        }))
    }
}

impl<K: Kind> Store<K> {
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.0.state.read().objects.get(key).cloned()
    }

    /// All objects in key order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.state.read().objects.values().cloned().collect()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.0.state.read().objects.keys().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.0.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects of one namespace for which `keep` holds, in key order.
    pub fn namespace(&self, namespace: &str, keep: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let state = self.0.state.read();
        let first = Key::new(namespace, "");
        let rest = state.objects.range(first..).take_while(|(key, _)| &*key.namespace == namespace);
        rest.filter(|(_, object)| keep(object)).map(|(_, object)| object.clone()).collect()
    }

    /// What the object with this uid controls; `""`: what nobody controls.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.0.state.read();
        state.pick(state.owned.get(uid))
    }

    /// What belongs to this group: see [`Kind::group`].
    pub fn grouped_by(&self, group: &str) -> Vec<Arc<K>> {
        let state = self.0.state.read();
        state.pick(state.grouped.get(group))
    }

    /// Returns when the first list is complete.
    pub async fn synced(&self) {
        // The sender lives in the store itself, so waiting cannot fail.
        let _ = self.0.synced.subscribe().wait_for(|done| *done).await;
    }

    /// Calls `handler` for every object there is, then for every change.
    pub fn subscribe(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.0.handlers.lock();
        for object in self.list() {
            handler(&Change { old: None, new: Some(&object) });
        }
        handlers.push(Box::new(handler));
    }

    /// Takes over the server's answer to a write of this process.
    pub fn observe(&self, mut object: K) -> Arc<K> {
        object.trim();
        let object = Arc::new(object);
        let handlers = self.0.handlers.lock();
        let old = {
            let mut state = self.0.state.write();
            if state.has_gone(&*object) {
                return object;
            }
            if let Some(relist) = &mut state.relist {
                relist.written.insert(Key::of(&*object), version(&*object));
            }
            state.put(object.clone())
        };
        if let Ok(old) = old {
            tell(&handlers, old.as_ref(), Some(&object));
        }
        object
    }

    /// Takes over the server's answer to a delete of `object` by this process.
    pub fn forget<S>(&self, object: &K, answer: Either<K, S>) {
        match answer {
            Either::Left(left) if left.meta().deletion_timestamp.is_some() && version(&left) > version(object) => {
                self.observe(left);
            }
            _ => self.forget_now(object),
        }
    }

    /// Takes note that `object` is gone.
    pub fn forget_now(&self, object: &K) {
        let handlers = self.0.handlers.lock();
        let old = {
            let mut state = self.0.state.write();
            let key = Key::of(object);
            if state.objects.get(&key).is_none_or(|present| uid(&**present) != uid(object)) {
                return;
            }
            state.removed.insert(uid(object).into());
            state.take(&key)
        };
        tell(&handlers, old.as_ref(), None);
    }

    /// One event of the watch that feeds this store.
    pub fn watched(&self, event: watcher::Event<Lenient<K>>) {
        match event {
            watcher::Event::Init => self.0.state.write().relist = Some(Relist::default()),
            watcher::Event::InitApply(Lenient::Read(object)) | watcher::Event::Apply(Lenient::Read(object)) => {
                self.applied(object);
            }
            // What was known of it stays.
            watcher::Event::InitApply(unreadable) | watcher::Event::Apply(unreadable) => {
                let handlers = self.0.handlers.lock();
                let gone = self.0.state.write().told_of(&unreadable);
                tell_gone(&handlers, &gone);
            }
            watcher::Event::Delete(object) => self.deleted(&object),
            watcher::Event::InitDone => self.relisted(),
        }
    }

    fn applied(&self, mut object: K) {
        object.trim();
        let object = Arc::new(object);
        let handlers = self.0.handlers.lock();
        let (gone, old) = {
            let mut state = self.0.state.write();
            (state.told_of(&*object), state.put(object.clone()))
        };
        tell_gone(&handlers, &gone);
        if let Ok(old) = old {
            tell(&handlers, old.as_ref(), Some(&object));
        }
    }

    fn deleted(&self, object: &Lenient<K>) {
        let handlers = self.0.handlers.lock();
        let gone = {
            let mut state = self.0.state.write();
            state.removed.remove(uid(object));
            let mut gone = state.told_until(&Key::of(object), version(object));
            let key = Key::of(object);
            if state.objects.get(&key).is_some_and(|present| uid(&**present) == uid(object)) {
                gone.extend(state.take(&key));
            }
            gone
        };
        tell_gone(&handlers, &gone);
    }

    fn relisted(&self) {
        let handlers = self.0.handlers.lock();
        let gone: Vec<Arc<K>> = {
            let mut state = self.0.state.write();
            state.removed.clear();
            let relist = state.relist.take().unwrap_or_default();
            let unseen = relist.written.into_iter().filter(|(key, _)| !relist.seen.contains(key));
            state.doubtful = unseen.filter(|(_, written)| *written > relist.latest).collect();
            let keep = |key: &Key| relist.seen.contains(key) || state.doubtful.contains_key(key);
            let keys: Vec<Key> = state.objects.keys().filter(|key| !keep(key)).cloned().collect();
            keys.iter().filter_map(|key| state.take(key)).collect()
        };
        tell_gone(&handlers, &gone);
        self.0.synced.send_replace(true);
    }
}

/// Nothing changed: the object is not newer than what is known.
struct Stale;

impl<K: Kind> State<K> {
    fn pick(&self, keys: Option<&BTreeSet<Key>>) -> Vec<Arc<K>> {
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    /// The watch, or the list that begins it, shows an object. Returns what has gone, as that tells.
    fn told_of(&mut self, object: &impl Resource) -> Vec<Arc<K>> {
        let (key, version) = (Key::of(object), version(object));
        let Some(relist) = &mut self.relist else { return self.told_until(&key, version) };
        relist.latest = relist.latest.max(version);
        relist.seen.insert(key);
        Vec::new()
    }

    /// The watch has told everything until this version, at which it tells of `key`.
    fn told_until(&mut self, key: &Key, version: u64) -> Vec<Arc<K>> {
        self.told = self.told.max(version);
        self.doubtful.remove(key);
        let gone: Vec<Key> = self.doubtful.extract_if(|_, written| *written < version).map(|(key, _)| key).collect();
        gone.iter().filter_map(|key| self.take(key)).collect()
    }

    /// Whether the object that a write was answered with has gone since.
    fn has_gone(&self, object: &K) -> bool {
        let present = self.objects.get(&Key::of(object)).is_some_and(|present| uid(&**present) == uid(object));
        !present && (1..=self.told).contains(&version(object))
    }

    /// Inserts the object and returns the one that it replaced.
    fn put(&mut self, object: Arc<K>) -> Result<Option<Arc<K>>, Stale> {
        let key = Key::of(&*object);
        let known = self.objects.get(&key).map(|present| version(&**present));
        if self.removed.contains(uid(&*object)) || known.is_some_and(|known| known >= version(&*object) && known > 0) {
            return Err(Stale);
        }
        let old = self.take(&key);
        self.owned.entry(owner(&*object).into()).or_default().insert(key.clone());
        if let Some(group) = object.group() {
            self.grouped.entry(group.into()).or_default().insert(key.clone());
        }
        self.objects.insert(key, object);
        Ok(old)
    }

    fn take(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        unlink(&mut self.owned, owner(&*old), key);
        if let Some(group) = old.group() {
            unlink(&mut self.grouped, group, key);
        }
        Some(old)
    }
}

fn owner<K: Kind>(object: &K) -> &str {
    controller_of(object.meta()).map_or("", |reference| &reference.uid)
}

fn unlink(index: &mut HashMap<Box<str>, BTreeSet<Key>>, value: &str, key: &Key) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

fn tell<K>(handlers: &[Handler<K>], old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
    for handler in handlers {
        handler(&Change { old, new });
    }
}

fn tell_gone<K>(handlers: &[Handler<K>], gone: &[Arc<K>]) {
    for old in gone {
        tell(handlers, Some(old), None);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;
    use wherry_api::lenient::Unreadable;

    use super::*;

    fn pod(name: &str, uid: &str, version: u64, owner: Option<&str>) -> Pod {
        let owners: Vec<_> = owner
            .map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name, "uid": uid,
            "resourceVersion": version.to_string(), "ownerReferences": owners}}))
        .expect("a pod")
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|p| p.metadata.name.as_deref()).collect()
    }

    #[test]
    fn an_own_write_is_seen_at_once_and_an_older_event_does_not_undo_it() {
        let store = Store::<Pod>::default();
        store.observe(pod("a", "1", 7, Some("rs")));
        store.watched(watcher::Event::Apply(Lenient::Read(pod("a", "1", 5, None))));
        assert_eq!(names(&store.owned_by("rs")), ["a"]);
        store.watched(watcher::Event::Apply(Lenient::Read(pod("a", "1", 9, None))));
        assert!(store.owned_by("rs").is_empty());
        assert_eq!(names(&store.owned_by("")), ["a"]);
    }

    #[test]
    fn a_forgotten_object_does_not_come_back_with_a_late_event() {
        let store = Store::<Pod>::default();
        let one = pod("a", "1", 5, None);
        store.observe(one.clone());
        store.forget_now(&one);
        store.watched(watcher::Event::Apply(Lenient::Read(pod("a", "1", 6, None))));
        assert!(store.is_empty());
        store.watched(watcher::Event::Delete(Lenient::Read(pod("a", "1", 8, None))));
        store.watched(watcher::Event::Apply(Lenient::Read(pod("a", "2", 9, None))));
        assert_eq!(store.len(), 1, "a successor of the same name is another object");
    }

    #[test]
    fn an_answer_that_comes_after_the_objects_end_does_not_bring_it_back() {
        let store = Store::<Pod>::default();
        store.watched(watcher::Event::Apply(Lenient::Read(pod("a", "1", 5, None))));
        store.watched(watcher::Event::Delete(Lenient::Read(pod("a", "1", 8, None))));
        store.observe(pod("a", "1", 5, None));
        assert!(store.is_empty());
        store.observe(pod("b", "2", 9, None));
        assert_eq!(names(&store.list()), ["b"], "what the watch has yet to tell of is taken over");
    }

    #[test]
    fn a_relist_drops_what_is_gone_but_not_what_was_written_meanwhile() {
        let store = Store::<Pod>::default();
        store.observe(pod("old", "1", 1, None));
        store.watched(watcher::Event::Init);
        store.observe(pod("mine", "2", 20, None));
        store.watched(watcher::Event::InitApply(Lenient::Read(pod("listed", "3", 3, None))));
        store.watched(watcher::Event::InitDone);
        assert_eq!(names(&store.list()), ["listed", "mine"]);
    }

    #[test]
    fn what_was_written_and_deleted_while_a_list_came_does_not_stay() {
        let store = Store::<Pod>::default();
        store.watched(watcher::Event::Init);
        store.observe(pod("before", "1", 5, None));
        store.observe(pod("doubtful", "2", 9, None));
        store.observe(pod("later", "3", 12, None));
        store.watched(watcher::Event::InitApply(Lenient::Read(pod("listed", "4", 7, None))));
        store.watched(watcher::Event::InitDone);
        assert_eq!(names(&store.list()), ["doubtful", "later", "listed"], "the list is later than the first");
        store.watched(watcher::Event::Apply(Lenient::Read(pod("later", "3", 12, None))));
        assert_eq!(names(&store.list()), ["later", "listed"], "its event would have come first");
        store.watched(watcher::Event::Apply(Lenient::Read(pod("new", "5", 20, None))));
        assert_eq!(names(&store.list()), ["later", "listed", "new"]);
    }

    #[test]
    fn a_subscriber_hears_the_present_first_and_each_change_once() {
        let store = Store::<Pod>::default();
        store.observe(pod("a", "1", 1, None));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        store.subscribe(move |change| log.lock().push((change.old.is_some(), change.new.is_some())));
        store.observe(pod("a", "1", 2, None));
        store.watched(watcher::Event::Apply(Lenient::Read(pod("a", "1", 2, None))));
        store.watched(watcher::Event::Delete(Lenient::Read(pod("a", "1", 3, None))));
        assert_eq!(*heard.lock(), [(false, true), (true, true), (true, false)]);
    }

    #[test]
    fn what_cannot_be_read_hides_nothing_and_is_no_loss() {
        let store = Store::<Pod>::default();
        let bad = |name: &str, version: u64| {
            let meta = pod(name, name, version, None).metadata;
            Lenient::Unreadable(Box::new(Unreadable { meta, why: "it is bad".to_owned() }))
        };
        for (name, version) in [("a", 1), ("b", 2), ("c", 3)] {
            store.observe(pod(name, name, version, None));
        }
        store.watched(watcher::Event::Init);
        store.watched(watcher::Event::InitApply(bad("a", 4)));
        store.watched(watcher::Event::InitApply(bad("new", 5)));
        store.watched(watcher::Event::InitApply(Lenient::Read(pod("b", "b", 2, None))));
        store.watched(watcher::Event::InitDone);
        assert_eq!(names(&store.list()), ["a", "b"], "it is there as it was");
        store.watched(watcher::Event::Apply(bad("b", 6)));
        store.watched(watcher::Event::Delete(bad("a", 7)));
        assert_eq!(names(&store.list()), ["b"]);
        store.watched(watcher::Event::Apply(Lenient::Read(pod("new", "new", 8, None))));
        assert_eq!(names(&store.list()), ["b", "new"]);
    }
}
