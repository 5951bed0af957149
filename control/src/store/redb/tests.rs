//! The contract on both of redb's backends, and what only a file can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ::redb::{BackendError, StorageBackend};
use proptest::prelude::*;

use super::backend::Source;
use super::*;
use crate::store::contract::{Factory, delete, key, object, put};
use crate::store::{Op, Precondition};

fn short() -> Options {
    Options { memory_history_bytes: 8 << 10, disk_history_bytes: 32 << 10, ..Options::default() }
}

struct InMemory;

impl Factory for InMemory {
    fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(RedbStore::in_memory().unwrap())
    }
    fn short_history(&self) -> Arc<dyn Store> {
        Arc::new(RedbStore::in_memory_with(short()).unwrap())
    }
    fn reopen(&self) -> Option<Arc<dyn Store>> {
        None
    }
    fn after_crash(&self) -> Option<Arc<dyn Store>> {
        None
    }
}

struct InFile(tempfile::TempDir);

impl InFile {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn dir(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Factory for InFile {
    fn fresh(&self) -> Arc<dyn Store> {
        Arc::new(RedbStore::open(&self.dir()).unwrap())
    }
    fn short_history(&self) -> Arc<dyn Store> {
        Arc::new(RedbStore::open_with(&self.dir(), short()).unwrap())
    }
    fn reopen(&self) -> Option<Arc<dyn Store>> {
        Some(self.fresh())
    }
    /// What is in the file at this moment is what a killed process leaves.
    fn after_crash(&self) -> Option<Arc<dyn Store>> {
        let copy = self.0.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(self.dir().join(disk::FILE), copy.join(disk::FILE)).unwrap();
        Some(Arc::new(RedbStore::open(&copy).unwrap()))
    }
}

mod in_memory {
    crate::store::contract::suite!(super::InMemory);
}

mod in_file {
    crate::store::contract::suite!(super::InFile::new());
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let place = InFile::new();
    let _held = place.fresh();
    assert!(matches!(RedbStore::open(&place.dir()), Err(StoreError::Locked { .. })));
}

#[test]
fn a_new_directory_and_its_file_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = InFile::new();
    drop(place.fresh());
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(place.dir()), mode(place.dir().join(disk::FILE))), (0o700, 0o600));
}

#[test]
fn a_file_of_a_newer_format_is_refused_and_left_alone() {
    let place = InFile::new();
    drop(place.fresh());
    let file = place.dir().join(disk::FILE);
    let db = ::redb::Database::open(&file).unwrap();
    let txn = db.begin_write().unwrap();
    let meta = ::redb::TableDefinition::<&str, &[u8]>::new("meta");
    txn.open_table(meta).unwrap().insert("format", 9u32.to_le_bytes().as_slice()).unwrap();
    txn.commit().unwrap();
    drop(db);
    let refused = RedbStore::open(&place.dir());
    assert!(matches!(refused, Err(StoreError::Newer { found: 9, known: 1, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_an_error_that_names_it() {
    let place = InFile::new();
    let store = place.fresh();
    for i in 0..50 {
        store.commit(put(&i.to_string(), &"x".repeat(5000))).await.unwrap();
    }
    drop(store);
    let file = place.dir().join(disk::FILE);
    let good = std::fs::read(&file).unwrap();
    let mut wrong_magic = good.clone();
    wrong_magic[..64].fill(0x55);
    let mut wrong_root = good.clone();
    wrong_root[64..320].fill(0xAA);
    for bad in [b"not a database".to_vec(), good[..5000].to_vec(), wrong_magic, wrong_root] {
        std::fs::write(&file, bad).unwrap();
        let refused = RedbStore::open(&place.dir());
        assert!(matches!(&refused, Err(StoreError::Damaged { path, .. }) if path.contains(disk::FILE)), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_while_it_runs_opens_as_a_store() {
    let place = InFile::new();
    let store = place.fresh();
    store.commit(put("a", "1")).await.unwrap();
    let relaxed = Txn { durability: wherry_api::resource::Durability::Relaxed, ..put("b", "2") };
    store.commit(relaxed).await.unwrap();
    let copy = place.0.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    store.backup(&copy.join(disk::FILE)).await.unwrap();
    assert!(store.backup(&copy.join(disk::FILE)).await.is_err(), "an existing file is kept");
    store.commit(put("c", "3")).await.unwrap();
    let copied = RedbStore::open(&copy).unwrap().list("", None, 0).await.unwrap();
    assert_eq!(copied.records.iter().map(|r| r.key.clone()).collect::<Vec<_>>(), [key("a"), key("b")]);
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

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_share_commits() {
    let store = Arc::new(RedbStore::in_memory().unwrap());
    let writes = (0..500).map(|i| {
        let store = Arc::clone(&store);
        async move { store.commit(put(&i.to_string(), "x")).await.unwrap() }
    });
    futures::future::join_all(writes).await;
    let stats = store.stats();
    assert_eq!((stats.transactions, stats.records), (500, 500));
    assert!(stats.batches < 100, "{stats:?}");
}

/// The memory stage alone, as it is while the writer waits for the disk.
fn core_in_flight() -> Core {
    let mut core = Core::new(Head::new(), 10, 0, Vec::new(), &Options::default());
    core.in_flight = Some(core::InFlight { first: 12, keys: [key("claimed")].into() });
    core
}

#[test]
fn a_relaxed_write_does_not_wait_for_the_batch_in_flight() {
    let mut core = core_in_flight();
    let done = core.apply_relaxed(put("lease", "1"), 0);
    assert!(matches!(done, Ok((11, _))));
    assert_eq!(core.head.get(&key("lease")).map(|slot| slot.revision), Some(11));
    let gap_used_up = core.apply_relaxed(put("lease", "2"), 0);
    assert!(matches!(gap_used_up, Err(Refused::Busy(_))));
}

#[test]
fn a_relaxed_write_waits_if_the_batch_in_flight_has_its_key() {
    let mut core = core_in_flight();
    assert!(matches!(core.apply_relaxed(put("claimed", "1"), 0), Err(Refused::Busy(_))));
    let mut depends = put("other", "1");
    depends.preconditions.push((key("claimed"), Precondition::Absent));
    assert!(matches!(core.apply_relaxed(depends, 0), Err(Refused::Busy(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn relaxed_writes_reach_the_disk_by_themselves() {
    let store = RedbStore::in_memory().unwrap();
    let relaxed = Txn { durability: wherry_api::resource::Durability::Relaxed, ..put("a", "2") };
    store.commit(relaxed).await.unwrap();
    let written = async {
        while store.stats().unwritten > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
}

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
    mood.writes_left.store(0, Ordering::SeqCst);
    assert!(matches!(store.commit(put("refused", "1")).await, Err(StoreError::Full)));
    mood.writes_left.store(usize::MAX, Ordering::SeqCst);
    let disk = store.shared.disk().unwrap();
    let reader = disk.read();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    for durability in [wherry_api::resource::Durability::Synced, wherry_api::resource::Durability::Relaxed] {
        loop {
            match store.commit(Txn { durability, ..put("refused", "2") }).await {
                Err(StoreError::InUse) => break,
                Err(StoreError::Full) if std::time::Instant::now() < deadline => {}
                other => panic!("{other:?}"),
            }
        }
    }
    drop(reader);
    accepted(&store, put("after", "1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_open_again_is_not_opened_anew_for_what_writes_nothing() {
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
    mood.writes_left.store(usize::MAX, Ordering::SeqCst);
    let before = opened.load(Ordering::SeqCst);
    for _ in 0..5 {
        let unmet = Txn { preconditions: vec![(key("before"), Precondition::Absent)], ..put("before", "2") };
        assert!(matches!(store.commit(unmet).await, Err(StoreError::Precondition { .. })));
    }
    assert_eq!(opened.load(Ordering::SeqCst) - before, 1);
    store.commit(put("after", "1")).await.unwrap();
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happened, the disk's backward history replays to what the watch showed live.
    #[test]
    fn history_from_disk_equals_what_happened(
        steps in prop::collection::vec((0u8..6, 0u8..3, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let nothing_in_memory = Options { memory_history_bytes: 0, ..Options::default() };
            let all = RedbStore::in_memory().unwrap();
            let disk = RedbStore::in_memory_with(nothing_in_memory).unwrap();
            for (step, (name, action, relaxed, pair)) in steps.into_iter().enumerate() {
                let name = name.to_string();
                let mut txn = if action == 0 { delete(&name) } else { put(&name, &step.to_string()) };
                if pair {
                    txn.ops.push(Op::Put { key: key("pair"), value: object(&step.to_string()) });
                }
                if relaxed {
                    txn.durability = wherry_api::resource::Durability::Relaxed;
                }
                all.commit(txn.clone()).await.unwrap();
                disk.commit(txn).await.unwrap();
            }
            let changes = |mut changes: Vec<Change>| {
                for change in &mut changes {
                    change.revision = 0;
                }
                let strip = |v: &bytes::Bytes| String::from_utf8_lossy(v).split("\"data\"").last().map(str::to_owned);
                changes.iter().map(|c| (c.key.clone(), c.kind, strip(&c.value), c.previous.as_ref().map(strip)))
                    .collect::<Vec<_>>()
            };
            let expected = changes(all.history("", 0, all.revision()).await.unwrap());
            prop_assert_eq!(changes(disk.history("", 0, disk.revision()).await.unwrap()), expected);
            Ok(())
        })?;
    }
}
