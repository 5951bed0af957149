//! The contract on both of redb's backends, and what only a file can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::store::contract::{Factory, delete, key, object, put};
use crate::store::{Op, Precondition};

mod faults;
mod power;

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
