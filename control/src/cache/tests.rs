//! The cache over the in-memory store, with the real kinds and selectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use futures::StreamExt;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::store::redb::{Options, RedbStore};
use crate::store::{Committed, Encoded, Op, Txn};

const DEADLINE: Duration = Duration::from_secs(20);

struct Place {
    store: Arc<dyn Store>,
    cache: Cache,
    pods: Arc<Descriptor>,
}

async fn place() -> Place {
    place_with(RedbStore::in_memory().unwrap()).await
}

async fn place_with(store: RedbStore) -> Place {
    let store: Arc<dyn Store> = Arc::new(store);
    let registry = Registry::builtin();
    let pods = Arc::clone(registry.by_group_resource("", "pods").unwrap());
    let cache = Cache::start(Arc::clone(&store), &registry).await.unwrap();
    Place { store, cache, pods }
}

fn encode(value: &serde_json::Value) -> Encoded {
    let bytes = value.to_string().into_bytes();
    let mark = br#""resourceVersion":""#;
    let splice = bytes.windows(mark.len()).position(|w| w == mark).unwrap() + mark.len();
    Encoded { bytes, splice }
}

fn pod(namespace: &str, name: &str, app: &str, node: &str) -> serde_json::Value {
    json!({
        "metadata": {"labels": {"app": app}, "name": name, "namespace": namespace, "resourceVersion": "", "uid": name},
        "spec": {"nodeName": node},
    })
}

impl Place {
    fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(&self.pods.group_resource(), namespace, name)
    }

    fn put_op(&self, namespace: &str, name: &str, app: &str, node: &str) -> Op {
        Op::Put { key: self.key(namespace, name), value: encode(&pod(namespace, name, app, node)) }
    }

    async fn txn(&self, ops: Vec<Op>) -> Committed {
        let done = self.store.commit(Txn { ops, ..Txn::default() }).await.unwrap();
        self.reached(done.revision).await;
        done
    }

    async fn put(&self, namespace: &str, name: &str, app: &str, node: &str) -> Revision {
        self.txn(vec![self.put_op(namespace, name, app, node)]).await.revision
    }

    async fn delete(&self, namespace: &str, name: &str) -> Revision {
        self.txn(vec![Op::Delete { key: self.key(namespace, name) }]).await.revision
    }

    async fn reached(&self, revision: Revision) {
        tokio::time::timeout(DEADLINE, self.cache.reached(revision)).await.unwrap();
    }

    fn filter(&self, namespace: Option<&str>, labels: &str, fields: &str) -> Filter {
        Filter {
            namespace: namespace.map(str::to_owned),
            labels: LabelSelector::parse(labels).unwrap(),
            fields: FieldSelector::parse(&self.pods, fields).unwrap(),
        }
    }

    async fn watch(&self, filter: Filter, after: Option<Revision>) -> Events {
        self.cache.watch(&self.pods, filter, after).await.unwrap()
    }

    async fn names(&self, filter: &Filter, at: At) -> Vec<String> {
        let list = self.cache.list(&self.pods, filter, at, None, 0).await.unwrap();
        list.entries.iter().map(|e| e.meta.name.to_string()).collect()
    }
}

async fn next(events: &mut Events) -> Result<Event, CacheError> {
    tokio::time::timeout(DEADLINE, events.next()).await.expect("no event in time").expect("the watch ended")
}

fn show(event: &Event) -> String {
    match event {
        Event::Added(entry) => format!("+{}", entry.meta.name),
        Event::Modified { new: entry, .. } => format!("~{}", entry.meta.name),
        Event::Deleted { last, .. } => format!("-{}", last.meta.name),
        Event::Progress(_) => "progress".to_owned(),
    }
}

async fn take(events: &mut Events, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(show(&next(events).await.unwrap()));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_write_is_read_and_its_bytes_are_the_stores() {
    let place = place().await;
    let done = place.txn(vec![place.put_op("ns", "a", "x", "n1")]).await;
    let entry = place.cache.get(&place.pods.group_resource(), "ns", "a").unwrap();
    assert_eq!((entry.revision, &entry.bytes), (done.revision, &done.values[0]));
    assert_eq!(entry.bytes.as_ptr(), done.values[0].as_ptr());
    assert_eq!(entry.meta.field("spec.nodeName"), "n1");
    assert!(place.cache.get(&place.pods.group_resource(), "ns", "b").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_before_the_start_is_loaded() {
    let place = place().await;
    place.put("ns", "a", "x", "n1").await;
    let again = Cache::start(Arc::clone(&place.store), &Registry::builtin()).await.unwrap();
    assert!(again.get(&place.pods.group_resource(), "ns", "a").is_some());
    assert_eq!(again.revision(), place.cache.revision());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_filter_by_namespace_labels_and_fields() {
    let place = place().await;
    place.put("ns", "a", "x", "n1").await;
    place.put("ns", "b", "y", "n1").await;
    place.put("ns2", "c", "x", "n2").await;
    for (namespace, labels, fields, expected) in [
        (None, "", "", "a b c"),
        (Some("ns"), "", "", "a b"),
        (None, "app=x", "", "a c"),
        (None, "app!=x", "spec.nodeName=n1", "b"),
        (Some("ns2"), "", "metadata.name=c", "c"),
        (Some("n"), "", "", ""),
    ] {
        let filter = place.filter(namespace, labels, fields);
        assert_eq!(place.names(&filter, At::Latest).await.join(" "), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_come_from_one_snapshot() {
    let place = place().await;
    for name in ["a", "b", "c", "d", "e"] {
        place.put("ns", name, "x", "n1").await;
    }
    let all = Filter::default();
    let first = place.cache.list(&place.pods, &all, At::Latest, None, 2).await.unwrap();
    assert_eq!((first.entries.len(), first.remaining), (2, Some(3)));
    place.delete("ns", "c").await;
    place.put("ns", "bb", "x", "n1").await;
    let at = At::Exact(first.revision);
    let second = place.cache.list(&place.pods, &all, at, first.next.as_ref(), 2).await.unwrap();
    let third = place.cache.list(&place.pods, &all, at, second.next.as_ref(), 2).await.unwrap();
    let names: Vec<_> = second.entries.iter().chain(&third.entries).map(|e| &*e.meta.name).collect();
    assert_eq!((names, third.next, third.revision), (vec!["c", "d", "e"], None, first.revision));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_revision_is_shown_exactly_without_having_been_listed() {
    let place = place().await;
    place.put("ns", "a", "x", "n1").await;
    let then = place.put("ns", "b", "x", "n1").await;
    place.delete("ns", "a").await;
    place.put("ns", "b", "y", "n1").await;
    assert_eq!(place.names(&Filter::default(), At::Exact(then)).await, ["a", "b"]);
    assert_eq!(place.names(&place.filter(None, "app=x", ""), At::Exact(then)).await, ["a", "b"]);
}

#[tokio::test]
async fn a_revision_that_does_not_come_is_too_large() {
    let place = place().await;
    let list = place.cache.list(&place.pods, &Filter::default(), At::NotOlderThan(99_999_999), None, 0).await;
    assert!(matches!(list, Err(CacheError::TooLarge { asked: 99_999_999, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_enters_or_leaves_the_filter_is_added_or_deleted() {
    let place = place().await;
    let mut x = place.watch(place.filter(None, "app=x", ""), Some(place.cache.revision())).await;
    let mut n1 = place.watch(place.filter(None, "", "spec.nodeName=n1"), Some(place.cache.revision())).await;
    let mut other = place.watch(place.filter(Some("other"), "", ""), Some(place.cache.revision())).await;
    place.put("ns", "a", "x", "").await;
    place.put("ns", "a", "x", "n1").await;
    place.put("ns", "a", "y", "n1").await;
    place.put("ns", "a", "x", "n2").await;
    let deletion = place.delete("ns", "a").await;
    assert_eq!(take(&mut x, 4).await, ["+a", "~a", "-a", "+a"]);
    assert_eq!(take(&mut n1, 3).await, ["+a", "~a", "-a"]);
    let Event::Deleted { last, revision } = next(&mut x).await.unwrap() else { panic!("no deletion") };
    assert_eq!(revision, deletion);
    let shown = deleted_bytes(&last, revision);
    let object: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(object["metadata"]["resourceVersion"], deletion.to_string());
    place.put("other", "b", "x", "n3").await;
    assert_eq!(take(&mut other, 1).await, ["+b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_without_a_revision_begins_with_the_state_and_its_progress() {
    let place = place().await;
    place.put("ns", "a", "x", "n1").await;
    let shown = place.put("ns", "b", "y", "n1").await;
    let mut events = place.watch(place.filter(None, "app=x", ""), None).await;
    assert_eq!(take(&mut events, 1).await, ["+a"]);
    let Event::Progress(revision) = next(&mut events).await.unwrap() else { panic!("no progress") };
    assert_eq!(revision, shown);
    place.put("ns", "c", "x", "n1").await;
    assert_eq!(take(&mut events, 1).await, ["+c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_before_the_cache_started_is_served_from_the_stores_history() {
    let place = place().await;
    let start = place.cache.revision();
    place.put("ns", "a", "x", "n1").await;
    place.put("ns", "a", "y", "n1").await;
    place.put("ns", "b", "x", "n1").await;
    place.delete("ns", "b").await;
    let again = Cache::start(Arc::clone(&place.store), &Registry::builtin()).await.unwrap();
    let filter = place.filter(Some("ns"), "app=x", "");
    let mut events = again.watch(&place.pods, filter, Some(start)).await.unwrap();
    assert_eq!(take(&mut events, 4).await, ["+a", "-a", "+b", "-b"]);
    let done = place.put("ns", "c", "x", "n1").await;
    let added = next(&mut events).await.unwrap();
    assert_eq!((show(&added), added.revision()), ("+c".to_owned(), done));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_revision_that_is_gone_has_expired() {
    let tiny = Options { memory_history_bytes: 0, disk_history_bytes: 0, ..Options::default() };
    let place = place_with(RedbStore::in_memory_with(tiny).unwrap()).await;
    let start = place.put("ns", "a", "x", "n1").await;
    place.put("ns", "a", "y", "n1").await;
    let again = Cache::start(Arc::clone(&place.store), &Registry::builtin()).await.unwrap();
    let gone = again.watch(&place.pods, Filter::default(), Some(start - 1)).await.map(drop);
    assert!(matches!(gone, Err(CacheError::Expired { .. })), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_dropped_as_too_slow() {
    let place = place().await;
    let mut slow = place.watch(Filter::default(), Some(place.cache.revision())).await;
    for _ in 0..5 {
        let ops = (0..1000).map(|i| place.put_op("ns", &format!("p{i}"), "x", "n1")).collect();
        place.txn(ops).await;
    }
    let dropped = async {
        while place.cache.stats().dropped_watchers == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, dropped).await.unwrap();
    for _ in 0..watchers::QUEUE {
        next(&mut slow).await.unwrap();
    }
    assert!(matches!(next(&mut slow).await, Err(CacheError::TooSlow)));
    assert!(slow.next().await.is_none());
    assert_eq!(place.cache.stats().watchers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_by_interval_and_before_the_end() {
    let place = place().await;
    let revision = place.put("ns", "a", "x", "n1").await;
    let often = WatchOptions { progress_interval: Duration::from_millis(5), until: None };
    let watch = place.cache.watch_with(&place.pods, Filter::default(), Some(revision), often).await;
    let progress = next(&mut watch.unwrap()).await.unwrap();
    assert_eq!((show(&progress), progress.revision()), ("progress".to_owned(), revision));
    let until = Some(tokio::time::Instant::now() + Duration::from_millis(5));
    let ends = WatchOptions { until, ..WatchOptions::default() };
    let mut watch = place.cache.watch_with(&place.pods, Filter::default(), None, ends).await.unwrap();
    assert_eq!(take(&mut watch, 3).await, ["+a", "progress", "progress"]);
    assert!(watch.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_end_and_the_cache_says_so_when_the_store_closes() {
    let place = place().await;
    let mut watch = place.watch(Filter::default(), Some(place.cache.revision())).await;
    assert!(place.cache.following());
    place.store.close().await.unwrap();
    assert!(tokio::time::timeout(DEADLINE, watch.next()).await.unwrap().is_none());
    let stopped = async {
        while place.cache.following() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, stopped).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_a_thousand_watchers_as_one_object() {
    let place = place().await;
    let mut watches = Vec::new();
    for i in 0..1000 {
        let filter = place.filter(None, "", &if i < 500 { format!("spec.nodeName=n{i}") } else { String::new() });
        watches.push(place.watch(filter, Some(place.cache.revision())).await);
    }
    place.put("ns", "a", "x", "n7").await;
    let Event::Added(first) = next(&mut watches[7]).await.unwrap() else { panic!("not added") };
    for watch in &mut watches[500..] {
        let Event::Added(entry) = next(watch).await.unwrap() else { panic!("not added") };
        assert!(Arc::ptr_eq(&entry, &first));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// After any transactions the cache has what the store has, and a watch replays to what a list shows.
    #[test]
    fn the_cache_equals_the_store_and_its_watch_replays_to_its_list(
        steps in prop::collection::vec(
            (prop::collection::vec((0u8..5, 0u8..4, 0u8..3), 1..4), any::<bool>()), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let place = place().await;
            let filter = place.filter(None, "app=x1", "");
            let mut watch = place.watch(filter.clone(), Some(place.cache.revision())).await;
            for (ops, relaxed) in steps {
                let ops = ops.into_iter().map(|(name, action, app)| {
                    let name = format!("p{name}");
                    match action {
                        0 => Op::Delete { key: place.key("ns", &name) },
                        _ => place.put_op("ns", &name, &format!("x{app}"), "n"),
                    }
                });
                let mut txn = Txn { ops: ops.collect(), ..Txn::default() };
                if relaxed {
                    txn.durability = wherry_api::resource::Durability::Relaxed;
                }
                place.store.commit(txn).await.unwrap();
            }
            let last = place.put("ns", "end", "x1", "n").await;
            let list = place.cache.list(&place.pods, &Filter::default(), At::Latest, None, 0).await.unwrap();
            let cached: Vec<_> = list.entries.iter().map(|e| (e.key.clone(), e.bytes.clone(), e.revision)).collect();
            let stored = place.store.list("core/pods/", None, 0).await.unwrap();
            let stored: Vec<_> = stored.records.into_iter().map(|r| (r.key, r.value, r.revision)).collect();
            prop_assert_eq!(cached, stored);

            let mut replayed = BTreeMap::new();
            loop {
                let event = next(&mut watch).await.unwrap();
                match &event {
                    Event::Added(entry) => {
                        prop_assert!(replayed.insert(entry.key.clone(), entry.bytes.clone()).is_none());
                    }
                    Event::Modified { new: entry, .. } => {
                        prop_assert!(replayed.insert(entry.key.clone(), entry.bytes.clone()).is_some());
                    }
                    Event::Deleted { last, .. } => prop_assert!(replayed.remove(&last.key).is_some()),
                    Event::Progress(_) => continue,
                }
                if event.revision() == last {
                    break;
                }
            }
            let list = place.cache.list(&place.pods, &filter, At::Latest, None, 0).await.unwrap();
            let listed: BTreeMap<_, _> = list.entries.iter().map(|e| (e.key.clone(), e.bytes.clone())).collect();
            prop_assert_eq!(replayed, listed);
            Ok(())
        })?;
    }
}
