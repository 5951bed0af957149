//! A disk that stalls, fails or is full.

use std::ops::Bound;

use ::redb::{BackendError, StorageBackend};

use super::*;
use crate::server::health::{Check, Health};
use crate::store::redb::backend::Source;

/// A backend whose syncs can be held up, or fail, and that has no room for more writes than it is told.
#[derive(Debug)]
struct Moody {
    inner: Arc<dyn StorageBackend>,
    mood: Arc<Mood>,
}

#[derive(Debug)]
struct Mood {
    /// Held by a test while no sync may end.
    stall: Mutex<()>,
    syncing: std::sync::atomic::AtomicBool,
    fails: std::sync::atomic::AtomicBool,
    /// After so many reads, each fails.
    reads_left: std::sync::atomic::AtomicUsize,
    /// For more there is no room.
    writes_left: std::sync::atomic::AtomicUsize,
}

/// Counts down to an error that stays.
fn count(left: &std::sync::atomic::AtomicUsize, then: std::io::ErrorKind) -> Result<(), std::io::Error> {
    let one_less = |left: usize| if left == usize::MAX { Some(left) } else { left.checked_sub(1) };
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).map(drop).map_err(|_| then.into())
}

impl Default for Mood {
    fn default() -> Self {
        let (reads_left, writes_left) = (usize::MAX.into(), usize::MAX.into());
        Self { stall: Mutex::default(), syncing: false.into(), fails: false.into(), reads_left, writes_left }
    }
}

impl StorageBackend for Moody {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.inner.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        count(&self.mood.reads_left, std::io::ErrorKind::BrokenPipe)?;
        self.inner.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        count(&self.mood.writes_left, std::io::ErrorKind::StorageFull)?;
        self.inner.set_len(len)
    }
    fn close(&self) -> Result<(), std::io::Error> {
        self.inner.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.mood.syncing.store(true, Ordering::SeqCst);
        drop(self.mood.stall.lock());
        self.mood.syncing.store(false, Ordering::SeqCst);
        if self.mood.fails.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        count(&self.mood.writes_left, std::io::ErrorKind::StorageFull)?;
        self.inner.write(offset, data)
    }
}

/// What can be opened again and again.
fn source_on(inner: impl Fn() -> Arc<dyn StorageBackend> + Send + Sync + 'static) -> (Source, Arc<Mood>) {
    let mood = Arc::new(Mood::default());
    let own = Arc::clone(&mood);
    (Source::new(move || Moody { inner: inner(), mood: Arc::clone(&own) }), mood)
}

fn source() -> (Source, Arc<Mood>) {
    let memory = Arc::new(InMemoryBackend::new());
    source_on(move || memory.clone())
}

fn open(source: &Source) -> Arc<RedbStore> {
    let (disk, loaded) = disk::on_source(source.clone()).unwrap();
    let options = Options { full_disk_pause: Duration::ZERO, ..Options::default() };
    Arc::new(RedbStore::start(disk, loaded, options).unwrap())
}

fn moody() -> (Arc<RedbStore>, Arc<Mood>) {
    let (source, mood) = source();
    (open(&source), mood)
}

async fn names(store: &RedbStore) -> Vec<Key> {
    store.list("", None, 0).await.unwrap().records.into_iter().map(|record| record.key).collect()
}

/// Returns when the store accepts this.
async fn accepted(store: &RedbStore, txn: Txn) -> Committed {
    let trying = async {
        loop {
            if let Ok(committed) = store.commit(txn.clone()).await {
                return committed;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), trying).await.expect("it does not write again")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_met_a_full_disk_goes_on_when_there_is_room() {
    let (memory, mood) = source();
    meets_a_full_disk(&memory, &mood).await;
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(disk::FILE);
    let (file, mood) = source_on(move || {
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(&path);
        Arc::new(::redb::backends::FileBackend::new(file.unwrap()).unwrap())
    });
    meets_a_full_disk(&file, &mood).await;
}

async fn meets_a_full_disk(source: &Source, mood: &Mood) {
    let store = open(source);
    let relaxed = |txn: Txn| Txn { durability: wherry_api::resource::Durability::Relaxed, ..txn };
    store.commit(put("before", "1")).await.unwrap();
    let heartbeat = store.commit(relaxed(put("heartbeat", "1"))).await.unwrap().revision;
    mood.writes_left.store(0, Ordering::SeqCst);
    assert!(matches!(store.commit(put("refused", "1")).await, Err(StoreError::Full)));
    for txn in [put("refused", "2"), relaxed(put("heartbeat", "2"))] {
        assert!(matches!(store.commit(txn).await, Err(StoreError::Full)));
    }
    assert!(store.get(&key("before")).await.unwrap().is_some() && store.get(&key("refused")).await.unwrap().is_none());
    mood.writes_left.store(usize::MAX, Ordering::SeqCst);
    let after = accepted(&store, put("after", "1")).await.revision;
    assert!(after > heartbeat);
    store.commit(relaxed(put("heartbeat", "3"))).await.unwrap();
    let seen = store.history("", 0, store.revision()).await.unwrap();
    let seen: Vec<_> = seen.into_iter().map(|change| change.key).collect();
    assert_eq!(seen, ["before", "heartbeat", "after", "heartbeat"].map(key));
    store.close().await.unwrap();
    drop(store);
    let again = open(source);
    assert_eq!(names(&again).await, ["after", "before", "heartbeat"].map(key));
    assert!(again.revision() >= after);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_while_a_backup_reads_hears_what_it_waits_for_and_not_that_the_disk_is_full() {
    let (source, mood) = source();
    let store = open(&source);
    let disk = store.shared.disk().unwrap();
    // It is there before the file could be opened again.
    let reader = disk.read();
    mood.writes_left.store(0, Ordering::SeqCst);
    assert!(matches!(store.commit(put("refused", "1")).await, Err(StoreError::Full)));
    mood.writes_left.store(usize::MAX, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(20);
    for durability in [wherry_api::resource::Durability::Synced, wherry_api::resource::Durability::Relaxed] {
        loop {
            match store.commit(Txn { durability, ..put("refused", "2") }).await {
                Err(StoreError::InUse) => break,
                Err(StoreError::Full) if Instant::now() < deadline => {}
                other => panic!("{other:?}"),
            }
        }
    }
    drop(reader);
    accepted(&store, put("after", "1")).await;
}

/// Asks until it is so.
async fn until(what: impl AsyncFn() -> bool) {
    let asking = async {
        while !what().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect("it does not come about");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_finds_out_by_itself_that_there_is_room_and_opens_its_file_no_more() {
    let memory = Arc::new(InMemoryBackend::new());
    let opened = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let (source, mood) = source_on(move || {
        count.fetch_add(1, Ordering::SeqCst);
        memory.clone()
    });
    let store = open(&source);
    store.commit(put("before", "1")).await.unwrap();
    mood.writes_left.store(0, Ordering::SeqCst);
    assert!(matches!(store.commit(put("refused", "1")).await, Err(StoreError::Full)));
    assert!(matches!(store.writable(), Err(StoreError::Full)));
    mood.writes_left.store(usize::MAX, Ordering::SeqCst);
    until(async || store.writable().is_ok()).await;
    let before = opened.load(Ordering::SeqCst);
    let unmet = Txn { preconditions: vec![(key("before"), Precondition::Absent)], ..put("before", "2") };
    assert!(matches!(store.commit(unmet).await, Err(StoreError::Precondition { .. })));
    store.commit(put("after", "1")).await.unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), before);
    assert_eq!(names(&store).await, ["after", "before"].map(key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_not_ready_while_its_store_refuses_writes_and_not_alive_if_that_does_not_pass() {
    let (store, mood) = moody();
    let checked: Arc<dyn Store> = store.clone();
    let health = Health::new(Check::of_store(&checked).into());
    let code = async |path: &str| health.respond(path, "").await.unwrap().status().as_u16();
    let codes = async || [code("/readyz").await, code("/readyz/store").await, code("/livez").await];
    assert_eq!(codes().await, [200, 200, 200]);
    mood.writes_left.store(0, Ordering::SeqCst);
    assert!(store.commit(put("refused", "1")).await.is_err());
    assert_eq!(codes().await, [500, 200, 200]);
    mood.writes_left.store(usize::MAX, Ordering::SeqCst);
    until(async || codes().await == [200, 200, 200]).await;
    mood.fails.store(true, Ordering::SeqCst);
    assert!(store.commit(put("lost", "1")).await.is_err());
    assert_eq!(codes().await, [500, 500, 500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_batch_runs_out_of_room_it_did_not_happen_and_nothing_else_is_lost() {
    for writes in 0..1000 {
        let (source, mood) = source();
        let store = open(&source);
        store.commit(put("before", "1")).await.unwrap();
        mood.writes_left.store(writes, Ordering::SeqCst);
        let during = store.commit(put("during", &"x".repeat(100_000))).await;
        mood.writes_left.store(usize::MAX, Ordering::SeqCst);
        accepted(&store, put("after", "1")).await;
        assert_eq!(store.get(&key("during")).await.unwrap().is_some(), during.is_ok());
        store.close().await.unwrap();
        drop(store);
        let mut there = vec![key("after"), key("before")];
        there.extend(during.is_ok().then(|| key("during")));
        assert_eq!(names(&open(&source)).await, there, "after {writes} writes");
        if during.is_ok() {
            assert!(writes > 2, "some batches did run out of room");
            return;
        }
    }
    panic!("no batch had room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_finds_no_room_when_it_starts_says_so_and_nothing_is_taken_for_damage() {
    let (source, mood) = source();
    let store = open(&source);
    store.commit(put("before", "1")).await.unwrap();
    drop(store);
    for writes in 0..1000 {
        mood.writes_left.store(writes, Ordering::SeqCst);
        match disk::try_open(&source) {
            Err(fault) => assert!(fault.passes(), "after {writes} writes: {fault:?}"),
            Ok(()) => {
                mood.writes_left.store(usize::MAX, Ordering::SeqCst);
                assert_eq!(names(&open(&source)).await, [key("before")]);
                assert!(writes > 2, "some starts did run out of room");
                return;
            }
        }
    }
    panic!("no start had room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_acknowledged_while_a_sync_stalls_and_is_seen_before_it() {
    let (store, mood) = moody();
    let mut watch = store.watch("", 0).await.unwrap();
    let stall = mood.stall.lock();
    let synced = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(put("synced", "1")).await.unwrap().revision }
    });
    while !mood.syncing.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let relaxed = Txn { durability: wherry_api::resource::Durability::Relaxed, ..put("lease", "1") };
    // Polled once: it may not wait for anything.
    let heartbeat = futures::FutureExt::now_or_never(store.commit(relaxed)).expect("it waited").unwrap().revision;
    let visible = futures::FutureExt::now_or_never(store.get(&key("synced"))).unwrap().unwrap();
    assert!(visible.is_none(), "a write that is not durable was seen");
    drop(stall);
    let synced = synced.await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watch.next().await.unwrap().unwrap().into_iter().map(|c| c.revision));
    }
    assert_eq!(seen, [heartbeat, synced]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_conflicts_with_a_write_that_found_no_room() {
    let (store, mood) = moody();
    let stall = mood.stall.lock();
    let write = |txn: Txn| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(txn).await })
    };
    let first = write(put("a", "1"));
    while !mood.syncing.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let new = || Txn { preconditions: vec![(key("b"), Precondition::Absent)], ..put("b", &"x".repeat(1 << 20)) };
    let same_batch = [write(new()), write(new())];
    while store.shared.permits.available_permits() > QUEUE - 3 {
        std::thread::yield_now();
    }
    // Enough for the first.
    mood.writes_left.store(3, Ordering::SeqCst);
    drop(stall);
    first.await.unwrap().unwrap();
    for refused in same_batch {
        let refused = refused.await.unwrap();
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_write_reads_go_on_and_nothing_more_is_accepted() {
    let (store, mood) = moody();
    store.commit(put("a", "1")).await.unwrap();
    mood.fails.store(true, Ordering::SeqCst);
    assert!(matches!(store.commit(put("b", "1")).await, Err(StoreError::Engine(_))));
    assert!(store.get(&key("b")).await.unwrap().is_none());
    assert!(store.get(&key("a")).await.unwrap().is_some());
    mood.fails.store(false, Ordering::SeqCst);
    assert!(matches!(store.commit(put("b", "1")).await, Err(StoreError::Engine(_))));
    assert!(store.close().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_leaves_no_half() {
    let (store, mood) = moody();
    let large = "x".repeat(1 << 20);
    for i in 0..10 {
        store.commit(put(&i.to_string(), &large)).await.unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join(disk::FILE);
    // Some of the pages are not in the engine's cache.
    mood.reads_left.store(4, Ordering::SeqCst);
    assert!(matches!(store.backup(&copy).await, Err(StoreError::Engine(_))));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
