//! What every engine must do, as tests over a factory of it.
//!
//! An engine's test module makes a [`Factory`] and calls [`suite!`]. The tests wait on conditions with a deadline; they see
//! the store through its trait alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use wherry_api::resource::Durability;

use super::{Change, ChangeKind, Changes, Committed, Encoded, Key, Op, Precondition, Revision, Store, StoreError, Txn};

/// Long enough for any condition here on a slow machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// Makes stores of one engine.
pub(crate) trait Factory: Send + Sync {
    /// An empty store.
    fn fresh(&self) -> Arc<dyn Store>;
    /// An empty store that keeps little history (some kilobytes).
    fn short_history(&self) -> Arc<dyn Store>;
    /// The store that `fresh` made, opened again after it was closed; `None` if the engine does not outlive it.
    fn reopen(&self) -> Option<Arc<dyn Store>>;
    /// The store as a crash at this moment leaves it, while the other one still runs.
    fn after_crash(&self) -> Option<Arc<dyn Store>>;
}

pub(crate) fn key(name: &str) -> Key {
    Key::from_stored(&format!("core/things/default/{name}"))
}

/// An object with a payload.
pub(crate) fn object(payload: &str) -> Encoded {
    let head = r#"{"metadata":{"resourceVersion":""#;
    let bytes = format!(r#"{head}"}},"data":"{payload}"}}"#).into_bytes();
    Encoded { bytes, splice: head.len() }
}

pub(crate) fn put(name: &str, payload: &str) -> Txn {
    Txn { ops: vec![Op::Put { key: key(name), value: object(payload) }], ..Txn::default() }
}

pub(crate) fn delete(name: &str) -> Txn {
    Txn { ops: vec![Op::Delete { key: key(name) }], ..Txn::default() }
}

fn when(mut txn: Txn, name: &str, precondition: Precondition) -> Txn {
    txn.preconditions.push((key(name), precondition));
    txn
}

fn relaxed(mut txn: Txn) -> Txn {
    txn.durability = Durability::Relaxed;
    txn
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("this did not happen in time")
}

async fn commit(store: &Arc<dyn Store>, txn: Txn) -> Committed {
    soon(store.commit(txn)).await.unwrap()
}

/// The next `count` changes.
async fn changes(watch: &mut Changes, count: usize) -> Vec<Change> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(soon(watch.next()).await.expect("the watch ended").unwrap());
    }
    assert_eq!(seen.len(), count);
    seen
}

async fn everything(store: &Arc<dyn Store>) -> BTreeMap<String, (Bytes, Revision)> {
    let page = store.list("", None, 0).await.unwrap();
    page.records.into_iter().map(|r| (r.key.as_str().to_owned(), (r.value, r.revision))).collect()
}

pub(crate) async fn a_write_is_read_back_with_its_revision_spliced_in(f: &dyn Factory) {
    let store = f.fresh();
    let made = commit(&store, put("a", "x")).await;
    let read = store.get(&key("a")).await.unwrap().unwrap();
    assert_eq!((read.revision, &read.value), (made.revision, &made.values[0]));
    let text = format!(r#"{{"metadata":{{"resourceVersion":"{}"}},"data":"x"}}"#, made.revision);
    assert_eq!(read.value, text);
    assert_eq!(store.revision(), made.revision);
    commit(&store, delete("a")).await;
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
}

pub(crate) async fn preconditions_decide_and_say_what_is_there(f: &dyn Factory) {
    let store = f.fresh();
    let first = commit(&store, when(put("a", "1"), "a", Precondition::Absent)).await.revision;
    let refused = store.commit(when(put("a", "2"), "a", Precondition::Absent)).await;
    let Err(StoreError::Precondition { key: at, actual: Some(actual) }) = refused else { panic!("{refused:?}") };
    assert_eq!((at, actual.revision), (key("a"), first));
    let second = commit(&store, when(put("a", "2"), "a", Precondition::At(first))).await.revision;
    assert!(second > first);
    for stale in [when(put("a", "3"), "a", Precondition::At(first)), when(delete("a"), "a", Precondition::At(first))] {
        assert!(matches!(store.commit(stale).await, Err(StoreError::Precondition { actual: Some(_), .. })));
    }
    let absent = store.commit(when(put("b", "3"), "b", Precondition::At(second))).await;
    assert!(matches!(absent, Err(StoreError::Precondition { actual: None, .. })));
    commit(&store, when(delete("a"), "a", Precondition::At(second))).await;
}

pub(crate) async fn a_transaction_happens_in_one_revision_or_not_at_all(f: &dyn Factory) {
    let store = f.fresh();
    let before = commit(&store, put("a", "1")).await.revision;
    let mut both = put("b", "1");
    both.ops.extend(delete("a").ops);
    let refused = store.commit(when(both.clone(), "c", Precondition::At(9))).await;
    assert!(matches!(refused, Err(StoreError::Precondition { .. })));
    assert_eq!((store.revision(), everything(&store).await.len()), (before, 1));
    let mut watch = store.watch("", before).await.unwrap();
    let done = commit(&store, both).await.revision;
    let batch = soon(watch.next()).await.unwrap().unwrap();
    assert!(batch.iter().all(|c| c.revision == done) && batch.len() == 2);
}

pub(crate) async fn lists_are_ordered_pages_of_a_prefix(f: &dyn Factory) {
    let store = f.fresh();
    for name in ["c", "a", "b", "d"] {
        commit(&store, put(name, name)).await;
    }
    let other = Key::from_stored("core/thingsX/default/a");
    commit(&store, Txn { ops: vec![Op::Put { key: other, value: object("") }], ..Txn::default() }).await;
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = store.list("core/things/", after.as_ref(), 3).await.unwrap();
        assert_eq!(page.revision, store.revision());
        after = page.records.last().map(|r| r.key.clone());
        names.extend(page.records.into_iter().map(|r| r.key));
        if !page.more {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c", "d"].map(key));
}

pub(crate) async fn a_watch_shows_each_change_once_in_order_with_what_was_before(f: &dyn Factory) {
    let store = f.fresh();
    let start = store.revision();
    let mut live = store.watch("core/things/", start).await.unwrap();
    commit(&store, put("a", "1")).await;
    commit(&store, relaxed(put("a", "2"))).await;
    commit(&store, put("b", "1")).await;
    commit(&store, delete("a")).await;
    let mut late = store.watch("core/things/", start).await.unwrap();
    for watch in [&mut live, &mut late] {
        let seen = changes(watch, 4).await;
        let kinds: Vec<_> = seen.iter().map(|c| c.kind).collect();
        assert_eq!(kinds, [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Created, ChangeKind::Deleted]);
        assert!(seen.windows(2).all(|pair| pair[0].revision < pair[1].revision));
        assert_eq!(seen[0].previous, None);
        assert_eq!(seen[1].previous.as_ref(), Some(&seen[0].value));
        assert_eq!(seen[3].value, seen[1].value);
    }
}

pub(crate) async fn many_writers_of_one_key_have_one_winner(f: &dyn Factory) {
    let store = f.fresh();
    let mut at = commit(&store, put("a", "0")).await.revision;
    for _ in 0..3 {
        let tries = (0..32).map(|i| {
            let store = Arc::clone(&store);
            let txn = when(put("a", &i.to_string()), "a", Precondition::At(at));
            let txn = if i % 2 == 0 { relaxed(txn) } else { txn };
            tokio::spawn(async move { store.commit(txn).await })
        });
        let mut won = Vec::new();
        for result in futures::future::join_all(tries).await {
            match result.unwrap() {
                Ok(done) => won.push(done.revision),
                Err(StoreError::Precondition { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won.len(), 1);
        at = won[0];
    }
}

pub(crate) async fn concurrent_writes_all_happen_and_the_watch_replays_to_the_list(f: &dyn Factory) {
    let store = f.fresh();
    let start = store.revision();
    let mut watch = store.watch("", start).await.unwrap();
    let writers = (0..20).map(|w| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for i in 0..10 {
                let txn = if i % 4 == 3 { delete(&format!("{w}-{}", i - 1)) } else { put(&format!("{w}-{i}"), "x") };
                let txn = if (w + i) % 3 == 0 { relaxed(txn) } else { txn };
                store.commit(txn).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers).await.into_iter().for_each(|done| done.unwrap());
    let mut replayed = BTreeMap::new();
    let seen = changes(&mut watch, 200).await;
    assert!(seen.windows(2).all(|pair| pair[0].revision < pair[1].revision));
    for change in seen {
        let name = change.key.as_str().to_owned();
        match change.kind {
            ChangeKind::Deleted => drop(replayed.remove(&name)),
            _ => drop(replayed.insert(name, (change.value, change.revision))),
        }
    }
    assert_eq!(replayed, everything(&store).await);
}

pub(crate) async fn a_deletion_of_nothing_changes_nothing(f: &dyn Factory) {
    let store = f.fresh();
    let before = commit(&store, put("a", "1")).await.revision;
    commit(&store, delete("b")).await;
    assert_eq!(store.revision(), before);
}

pub(crate) async fn a_watch_that_falls_behind_the_history_ends_with_compacted(f: &dyn Factory) {
    let store = f.short_history();
    let start = store.revision();
    let mut slow = store.watch("", start).await.unwrap();
    let payload = "x".repeat(2000);
    for i in 0..200 {
        commit(&store, put(&format!("{}", i % 3), &payload)).await;
    }
    assert!(store.oldest() > start);
    assert!(matches!(soon(slow.next()).await, Some(Err(StoreError::Compacted { .. }))));
    assert!(soon(slow.next()).await.is_none());
    assert!(matches!(store.watch("", start).await, Err(StoreError::Compacted { .. })));
    assert!(matches!(store.history("", start, store.revision()).await, Err(StoreError::Compacted { .. })));
    let mut fine = store.watch("", store.revision()).await.unwrap();
    commit(&store, put("a", "1")).await;
    changes(&mut fine, 1).await;
}

pub(crate) async fn records_expire_as_deletions(f: &dyn Factory) {
    let store = f.fresh();
    let mut watch = store.watch("", store.revision()).await.unwrap();
    let brief = Txn { expires_after: Some(1), ..relaxed(put("a", "1")) };
    commit(&store, brief).await;
    let seen = changes(&mut watch, 2).await;
    assert_eq!((seen[1].kind, &seen[1].value), (ChangeKind::Deleted, &seen[0].value));
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
}

pub(crate) async fn a_later_write_without_expiry_keeps_the_record(f: &dyn Factory) {
    let store = f.fresh();
    let brief = |name| Txn { expires_after: Some(1), ..put(name, "1") };
    commit(&store, brief("a")).await;
    commit(&store, put("a", "2")).await;
    let mut watch = store.watch("", store.revision()).await.unwrap();
    commit(&store, brief("b")).await;
    let seen = changes(&mut watch, 2).await;
    assert_eq!((seen[1].kind, &seen[1].key), (ChangeKind::Deleted, &key("b")));
    assert!(store.get(&key("a")).await.unwrap().is_some());
}

pub(crate) async fn everything_is_there_after_close_and_a_watch_goes_on(f: &dyn Factory) {
    let store = f.fresh();
    let start = store.revision();
    commit(&store, put("a", "1")).await;
    let middle = commit(&store, put("b", "1")).await.revision;
    commit(&store, put("a", "2")).await;
    commit(&store, delete("b")).await;
    commit(&store, relaxed(put("c", "relaxed"))).await;
    let expected = everything(&store).await;
    let replay = store.history("", start, store.revision()).await.unwrap();
    let last = store.revision();
    soon(store.close()).await.unwrap();
    assert!(matches!(store.commit(put("d", "")).await, Err(StoreError::Closed)));
    assert!(matches!(store.commit(relaxed(put("d", ""))).await, Err(StoreError::Closed)));
    let Some(again) = f.reopen() else { return };
    assert_eq!((again.revision(), everything(&again).await), (last, expected));
    let show = |changes: &[Change]| format!("{changes:?}");
    let mut watch = again.watch("", start).await.unwrap();
    assert_eq!(show(&changes(&mut watch, replay.len()).await), show(&replay));
    let mut watch = again.watch("", middle).await.unwrap();
    let seen = changes(&mut watch, 3).await;
    assert_eq!(seen[0].previous.as_ref().map(|v| v.ends_with(b"\"data\":\"1\"}")), Some(true));
    let next = commit(&again, put("d", "1")).await.revision;
    assert!(next > last);
    assert_eq!(changes(&mut watch, 1).await[0].revision, next);
}

pub(crate) async fn what_is_acknowledged_while_it_closes_is_there_afterwards(f: &dyn Factory) {
    let store = f.fresh();
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for i in 0.. {
                    let name = format!("{w}-{i}");
                    match store.commit(relaxed(put(&name, "x"))).await {
                        Ok(_) => acknowledged.push(name),
                        Err(StoreError::Closed) => break,
                        Err(other) => panic!("{other}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    for i in 0..5 {
        commit(&store, put("synced", &i.to_string())).await;
    }
    soon(store.close()).await.unwrap();
    let acknowledged = soon(futures::future::join_all(writers)).await;
    let Some(again) = f.reopen() else { return };
    for name in acknowledged.into_iter().flat_map(|done| done.unwrap()) {
        assert!(again.get(&key(&name)).await.unwrap().is_some(), "{name} was lost");
    }
}

pub(crate) async fn what_was_acknowledged_as_synced_survives_a_crash(f: &dyn Factory) {
    let store = f.fresh();
    commit(&store, put("a", "1")).await;
    let durable = commit(&store, put("b", "1")).await.revision;
    let seen = commit(&store, relaxed(put("c", "1"))).await.revision;
    let Some(again) = f.after_crash() else { return };
    assert!(again.get(&key("a")).await.unwrap().is_some());
    assert_eq!(again.get(&key("b")).await.unwrap().unwrap().revision, durable);
    let next = commit(&again, put("d", "1")).await.revision;
    assert!(next > seen, "a revision that was shown is not given out again");
    let resumed = again.watch("", seen).await.map(drop);
    if again.get(&key("c")).await.unwrap().is_none() {
        assert!(matches!(resumed, Err(StoreError::Compacted { .. })), "a lost write was seen: list again");
    }
}

pub(crate) async fn a_watch_ends_when_the_store_closes(f: &dyn Factory) {
    let store = f.fresh();
    let mut watch = store.watch("", store.revision()).await.unwrap();
    commit(&store, put("a", "1")).await;
    soon(store.close()).await.unwrap();
    changes(&mut watch, 1).await;
    assert!(soon(watch.next()).await.is_none());
}

/// One test per claim, for the engine that `$factory` makes.
macro_rules! suite {
    ($factory:expr) => {
        $crate::store::contract::suite!(@ $factory,
            a_write_is_read_back_with_its_revision_spliced_in,
            preconditions_decide_and_say_what_is_there,
            a_transaction_happens_in_one_revision_or_not_at_all,
            lists_are_ordered_pages_of_a_prefix,
            a_watch_shows_each_change_once_in_order_with_what_was_before,
            many_writers_of_one_key_have_one_winner,
            concurrent_writes_all_happen_and_the_watch_replays_to_the_list,
            a_deletion_of_nothing_changes_nothing,
            a_watch_that_falls_behind_the_history_ends_with_compacted,
            records_expire_as_deletions,
            a_later_write_without_expiry_keeps_the_record,
            everything_is_there_after_close_and_a_watch_goes_on,
            what_is_acknowledged_while_it_closes_is_there_afterwards,
            what_was_acknowledged_as_synced_survives_a_crash,
            a_watch_ends_when_the_store_closes,
        );
    };
    (@ $factory:expr, $($claim:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $claim() {
            crate::store::contract::$claim(&$factory).await;
        }
    )*};
}
pub(crate) use suite;
