//! A machine that loses its power: of what was written after the last sync, any part may be on the disk.

use ::redb::StorageBackend;
use ::redb::backends::InMemoryBackend;

use super::*;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A backend that keeps, for each sync, what the disk may hold if the power fails instead.
#[derive(Debug, Default)]
struct Cut {
    state: Mutex<State>,
    /// What writers were told, in this order.
    acknowledged: Arc<Mutex<Vec<Key>>>,
    disks: Arc<Mutex<Vec<Disk>>>,
}

#[derive(Debug, Default)]
struct State {
    /// What is read.
    file: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    chance: u64,
}

#[derive(Debug)]
struct Disk {
    bytes: Vec<u8>,
    /// How many writes had been acknowledged.
    acknowledged: usize,
}

impl State {
    /// One of two, by Knuth's generator.
    fn toss(&mut self) -> bool {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 63 == 1
    }

    /// What was synced, with some of the sectors that were not.
    fn torn(&mut self) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        bytes.resize(self.file.len(), 0);
        for (at, data) in std::mem::take(&mut self.unsynced) {
            for (n, sector) in data.chunks(SECTOR).enumerate() {
                let from = at + n * SECTOR;
                if self.toss() {
                    bytes[from..from + sector.len()].copy_from_slice(sector);
                }
            }
        }
        bytes
    }
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let at = usize::try_from(offset).unwrap();
    at..at + length
}

impl StorageBackend for Cut {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.state.lock().file.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        out.copy_from_slice(&self.state.lock().file[range(offset, out.len())]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.state.lock().file.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> Result<(), std::io::Error> {
        let acknowledged = self.acknowledged.lock().len();
        let mut state = self.state.lock();
        self.disks.lock().push(Disk { bytes: state.torn(), acknowledged });
        state.synced = state.file.clone();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let mut state = self.state.lock();
        state.file[range(offset, data.len())].copy_from_slice(data);
        state.unsynced.push((range(offset, 0).start, data.to_vec()));
        Ok(())
    }
}

fn open(backend: impl StorageBackend, quiet: Duration) -> RedbStore {
    let (disk, loaded) = disk::on(backend).unwrap();
    RedbStore::start(disk, loaded, Options { quiet, ..Options::default() }).unwrap()
}

/// Syncs of one commit, when every commit comes after such a pause.
async fn syncs(quiet: Duration) -> usize {
    let cut = Cut::default();
    let (acknowledged, disks) = (Arc::clone(&cut.acknowledged), Arc::clone(&cut.disks));
    let store = Arc::new(open(cut, quiet));
    let opened = disks.lock().len();
    let writers = (0..4).map(|writer| {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        async move {
            for n in 0..10 {
                let name = format!("{writer}-{n}");
                store.commit(put(&name, &"x".repeat(500 * (n + 1)))).await.unwrap();
                acknowledged.lock().push(key(&name));
            }
        }
    });
    futures::future::join_all(writers).await;
    let disks = std::mem::take(&mut *disks.lock()).split_off(opened);
    let syncs = disks.len() / usize::try_from(store.stats().batches).unwrap();
    let acknowledged = acknowledged.lock().clone();
    for (n, Disk { bytes, acknowledged: told }) in disks.into_iter().enumerate() {
        let memory = InMemoryBackend::new();
        memory.set_len(bytes.len() as u64).unwrap();
        memory.write(0, &bytes).unwrap();
        let store = open(memory, quiet);
        for key in acknowledged.iter().take(told) {
            assert!(store.get(key).await.unwrap().is_some(), "{key:?} at sync {n}");
        }
        store.commit(put("after", "x")).await.unwrap();
    }
    syncs
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_whatever_of_the_rest_is() {
    assert_eq!(syncs(Duration::MAX).await, 1, "in a busy stretch");
    assert_eq!(syncs(Duration::ZERO).await, 2, "after a pause");
}
