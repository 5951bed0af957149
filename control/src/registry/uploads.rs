//! Blobs that are being sent: one file and one running digest each.
//!
//! An upload belongs to its repository; chunks follow one another without a gap. An upload that fails in the middle keeps
//! what arrived, so that a client can go on from there; one whose file could not be written, and one that nobody touched for
//! an hour, is dropped. They do not survive a restart. What must stay true: nobody waits for a chunk of another upload; a
//! file becomes a blob only if it has what the digest has seen, and nobody writes into it afterwards.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::digest::Digest;
use super::disk::Disk;
use super::error::RegistryError;
use super::homes::Home;
use super::route::Repository;
use crate::server::body::Body;

/// Uploads of one user at once, each an open file and a few hundred bytes: clients push a handful of layers in parallel.
const MAX_OF_USER: usize = 64;
/// Uploads of all users.
const MAX_UPLOADS: usize = 1024;
/// An upload that nobody touched for this long is dropped when another begins.
const IDLE: Duration = Duration::from_hours(1);
/// After so many bytes, of all uploads together, the disk is looked at again.
const STEP: u64 = 1 << 20;
/// The largest blob. Components are megabytes; native images have layers of gigabytes.
pub(crate) const MAX_BLOB: u64 = 8 << 30;

/// One upload; locked while a chunk is written, so that two requests cannot interleave.
struct Upload {
    file: File,
    hasher: Sha256,
    written: u64,
    /// Nothing more is taken: the file is a blob, or what it has is not known.
    closed: bool,
    /// Nor is anything after its slot has gone: nobody counts it any more.
    gone: CancellationToken,
}

struct Slot {
    repository: Repository,
    user: String,
    touched: Instant,
    file: Unfinished,
    /// A request that is about it has another one of these.
    upload: Arc<AsyncMutex<Upload>>,
    _gone: DropGuard,
}

impl Slot {
    fn is_idle(&self) -> bool {
        self.touched.elapsed() > IDLE && Arc::strong_count(&self.upload) == 1
    }
}

/// All uploads of a registry.
pub(crate) struct Uploads {
    disk: Disk,
    slots: Mutex<HashMap<String, Slot>>,
    /// Bytes that all of them have written since one looked at the disk.
    unseen: AtomicU64,
}

impl Uploads {
    pub(crate) fn new(disk: Disk) -> Self {
        Self { disk, slots: Mutex::new(HashMap::new()), unseen: AtomicU64::new(0) }
    }

    /// Begins an upload; the answer is its name.
    pub(crate) async fn begin(&self, repository: Repository, user: &str) -> Result<String, RegistryError> {
        self.drop_idle().await;
        // Asked again below, with the lock held: here it saves a refused one the file.
        Self::room(&self.slots.lock(), user)?;
        let id = format!("{:032x}", rand::random::<u128>());
        let unfinished = Unfinished(Some(self.disk.upload_path(&id)));
        let file = File::create_new(self.disk.upload_path(&id)).await?;
        let gone = CancellationToken::new();
        let upload = Upload { file, hasher: Sha256::new(), written: 0, closed: false, gone: gone.clone() };
        let slot = Slot {
            repository,
            user: user.to_owned(),
            touched: Instant::now(),
            file: unfinished,
            upload: Arc::new(AsyncMutex::new(upload)),
            _gone: gone.drop_guard(),
        };
        let refused = {
            let mut slots = self.slots.lock();
            match Self::room(&slots, user) {
                Ok(()) => {
                    slots.insert(id.clone(), slot);
                    return Ok(id);
                }
                Err(refused) => refused,
            }
        };
        slot.file.discard().await;
        Err(refused)
    }

    /// Whether a user may begin another one.
    fn room(slots: &HashMap<String, Slot>, user: &str) -> Result<(), RegistryError> {
        let own = slots.values().filter(|slot| slot.user == user).count();
        if own >= MAX_OF_USER {
            return Err(RegistryError::TooManyUploads { limit: MAX_OF_USER });
        }
        if slots.len() >= MAX_UPLOADS { Err(RegistryError::NoRoom) } else { Ok(()) }
    }

    async fn drop_idle(&self) {
        self.drop_those(Slot::is_idle).await;
    }

    /// Gives up what is being sent to a namespace: none of it can be finished any more.
    pub(super) async fn forget(&self, namespace: &str) {
        self.drop_those(|slot| slot.repository.namespace == namespace).await;
    }

    async fn drop_those(&self, gone: impl Fn(&Slot) -> bool) {
        let gone: Vec<Slot> = {
            let mut slots = self.slots.lock();
            slots.extract_if(|_, slot| gone(slot)).map(|(_, slot)| slot).collect()
        };
        for slot in gone {
            slot.file.discard().await;
        }
    }

    /// Where blobs are being sent to.
    pub(super) fn repositories(&self) -> HashSet<Repository> {
        self.slots.lock().values().map(|slot| slot.repository.clone()).collect()
    }

    fn find(&self, repository: &Repository, id: &str) -> Result<Arc<AsyncMutex<Upload>>, RegistryError> {
        let mut slots = self.slots.lock();
        match slots.get_mut(id).filter(|slot| slot.repository == *repository) {
            Some(slot) => {
                slot.touched = Instant::now();
                Ok(Arc::clone(&slot.upload))
            }
            None => Err(RegistryError::UploadUnknown),
        }
    }

    /// How many bytes have arrived.
    pub(crate) async fn written(&self, repository: &Repository, id: &str) -> Result<u64, RegistryError> {
        Ok(self.find(repository, id)?.lock().await.written)
    }

    /// Appends a chunk; `from` is where the client says that it begins. The answer is where the next one must.
    pub(crate) async fn append(
        &self,
        repository: &Repository,
        id: &str,
        from: Option<u64>,
        body: Body,
    ) -> Result<u64, RegistryError> {
        let upload = self.find(repository, id)?;
        let mut upload = upload.lock().await;
        if from.is_some_and(|from| from != upload.written) {
            return Err(RegistryError::OutOfOrder { at: upload.written });
        }
        self.take(id, &mut upload, body).await?;
        Ok(upload.written)
    }

    /// Takes a chunk. An upload whose file cannot be written, or takes the last room, is given up.
    async fn take(&self, id: &str, upload: &mut Upload, body: Body) -> Result<(), RegistryError> {
        let taken = upload.take(&self.disk, &self.unseen, body).await;
        // The hour begins anew, however long that took.
        let gone = match self.slots.lock().entry(id.to_owned()) {
            Entry::Occupied(slot) if upload.closed => Some(slot.remove()),
            Entry::Occupied(mut slot) => {
                slot.get_mut().touched = Instant::now();
                None
            }
            // Somebody has given it up meanwhile.
            Entry::Vacant(_) => return taken.and(Err(RegistryError::UploadUnknown)),
        };
        if let Some(slot) = gone {
            slot.file.discard().await;
        }
        taken
    }

    /// Ends an upload: what arrived becomes a blob if it has the digest and its namespace is still there, and is dropped if
    /// not.
    pub(crate) async fn finish(
        &self,
        repository: &Repository,
        id: &str,
        digest: &Digest,
        body: Body,
        home: Home,
    ) -> Result<(), RegistryError> {
        let upload = self.find(repository, id)?;
        let mut upload = upload.lock().await;
        self.take(id, &mut upload, body).await?;
        let slot = self.remove(repository, id)?;
        // Those who wait for their turn write into no blob.
        upload.closed = true;
        let actual = Digest::finish(upload.hasher.clone());
        let synced = upload.file.sync_all().await;
        let kept = if let Err(error) = synced {
            Err(error.into())
        } else if actual == *digest {
            let (disk, path) = (self.disk.clone(), self.disk.upload_path(id));
            let (repository, digest) = (repository.clone(), digest.clone());
            let keep = move || home.within(|| disk.keep(&path, &repository, &digest));
            tokio::task::spawn_blocking(keep).await?
        } else {
            Err(RegistryError::Mismatch { expected: digest.clone(), actual })
        };
        match &kept {
            Ok(()) => slot.file.kept(),
            Err(_) => slot.file.discard().await,
        }
        kept
    }

    /// Gives an upload up.
    pub(crate) async fn cancel(&self, repository: &Repository, id: &str) -> Result<(), RegistryError> {
        self.remove(repository, id)?.file.discard().await;
        Ok(())
    }

    fn remove(&self, repository: &Repository, id: &str) -> Result<Slot, RegistryError> {
        self.find(repository, id)?;
        self.slots.lock().remove(id).ok_or(RegistryError::UploadUnknown)
    }
}

impl Upload {
    async fn take(&mut self, disk: &Disk, unseen: &AtomicU64, mut body: Body) -> Result<(), RegistryError> {
        if self.closed {
            return Err(RegistryError::UploadUnknown);
        }
        let gone = self.gone.clone();
        while let Some(frame) = gone.run_until_cancelled(body.frame()).await.ok_or(RegistryError::UploadUnknown)? {
            let Ok(data) = frame.map_err(RegistryError::Body)?.into_data() else { continue };
            let written = self.written + data.len() as u64;
            if written > MAX_BLOB {
                return Err(RegistryError::BlobTooLarge { limit: MAX_BLOB });
            }
            if !looked(unseen, data.len() as u64, disk)? {
                self.closed = true;
                return Err(RegistryError::Full);
            }
            // Until file and digest have the same again, also if the client goes in between.
            self.closed = true;
            self.file.write_all(&data).await?;
            self.hasher.update(&data);
            self.written = written;
            self.closed = false;
        }
        // What was written last is on its way: only now its errors are told.
        let flushed = self.file.flush().await;
        self.closed = flushed.is_err();
        Ok(flushed?)
    }
}

/// Looks at the disk when it is time to. `false`: what is left of it is not for uploads.
fn looked(unseen: &AtomicU64, bytes: u64, disk: &Disk) -> Result<bool, RegistryError> {
    if unseen.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) < STEP {
        return Ok(true);
    }
    unseen.store(0, Ordering::Relaxed);
    Ok(disk.has_room()?)
}

/// The file of an upload, which goes with it unless it has become a blob: also if the request that ends it is given up.
struct Unfinished(Option<PathBuf>);

impl Unfinished {
    /// It is where it belongs.
    fn kept(mut self) {
        self.0 = None;
    }

    /// Removes it; why is what its client is told.
    async fn discard(mut self) {
        if let Some(path) = self.0.take() {
            removed(tokio::fs::remove_file(path).await);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(path) = self.0.take() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(|| removed(std::fs::remove_file(path)))),
            Err(_) => removed(std::fs::remove_file(path)),
        }
    }
}

fn removed(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "an abandoned upload could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::SinkExt;
    use futures::channel::mpsc as chunks;

    use super::super::homes::{Homes, Life, Namespaces};
    use super::*;
    use crate::server::body;

    #[tokio::test]
    async fn who_sends_slowly_delays_no_other_upload_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Arc::new(Uploads::new(Disk::open(dir.path()).unwrap()));
        let repository = Repository::parse("web/app").unwrap();
        let slow = uploads.begin(repository.clone(), "slow").await.unwrap();
        let left = uploads.begin(repository.clone(), "slow").await.unwrap();
        let (mut sender, body) = chunks::channel::<Result<Bytes, body::BoxError>>(0);
        let sending = tokio::spawn({
            let (uploads, repository, slow) = (Arc::clone(&uploads), repository.clone(), slow.clone());
            async move { uploads.append(&repository, &slow, None, body::stream(body)).await }
        });
        sender.send(Ok(Bytes::from_static(b"ab"))).await.unwrap();
        sender.feed(Ok(Bytes::from_static(b"cd"))).await.unwrap();
        for slot in uploads.slots.lock().values_mut() {
            slot.touched = Instant::now().checked_sub(IDLE * 2).unwrap();
        }
        let begun = uploads.begin(repository.clone(), "other");
        tokio::time::timeout(Duration::from_secs(10), begun).await.expect("nobody waits for the slow one").unwrap();
        drop(sender);
        assert_eq!(sending.await.unwrap().unwrap(), 4);
        assert_eq!(uploads.written(&repository, &slow).await.unwrap(), 4, "it was not idle");
        assert!(matches!(uploads.written(&repository, &left).await, Err(RegistryError::UploadUnknown)));
        assert!(!dir.path().join("uploads").join(&left).exists());
    }

    /// Uploads in a directory, one of which somebody has begun.
    struct Begun {
        dir: tempfile::TempDir,
        uploads: Uploads,
        repository: Repository,
        id: String,
    }

    impl Begun {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let uploads = Uploads::new(Disk::open(dir.path()).unwrap());
            let repository = Repository::parse("web/app").unwrap();
            let id = uploads.begin(repository.clone(), "somebody").await.unwrap();
            Self { dir, uploads, repository, id }
        }

        async fn append(&self, data: impl Into<Bytes>) -> Result<u64, RegistryError> {
            self.uploads.append(&self.repository, &self.id, None, body::full(data)).await
        }

        async fn finish(&self, whole: &[u8], body: Body) -> Result<(), RegistryError> {
            let home = Homes::new(Arc::new(Everywhere)).open("web")?;
            self.uploads.finish(&self.repository, &self.id, &Digest::of(whole), body, home).await
        }

        fn blob(&self, whole: &[u8]) -> Option<Vec<u8>> {
            std::fs::read(self.uploads.disk.blob_path(&Digest::of(whole))).ok()
        }

        fn files(&self) -> usize {
            std::fs::read_dir(self.dir.path().join("uploads")).unwrap().count()
        }
    }

    struct Everywhere;

    impl Namespaces for Everywhere {
        fn life(&self, _: &str) -> Life {
            Life::Alive("1".into())
        }
    }

    #[tokio::test]
    async fn an_upload_whose_write_failed_is_given_up_and_never_becomes_a_blob() {
        let begun = Begun::new().await;
        begun.append("abc").await.unwrap();
        let full = File::options().write(true).open("/dev/full").await.unwrap();
        let upload = begun.uploads.find(&begun.repository, &begun.id).unwrap();
        let file = std::mem::replace(&mut upload.lock().await.file, full);
        let failed = begun.append("def").await;
        assert!(matches!(&failed, Err(RegistryError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull));
        assert_eq!(begun.files(), 0, "what it took is free for others");
        // There is room again.
        upload.lock().await.file = file;
        let finished = begun.finish(b"abcdef", body::empty()).await;
        assert!(matches!(finished, Err(RegistryError::UploadUnknown)), "{finished:?}");
        assert_eq!(begun.blob(b"abcdef"), None);
    }

    #[tokio::test]
    async fn an_upload_that_takes_the_last_room_is_given_up() {
        let mut begun = Begun::new().await;
        begun.append(vec![b'x'; 1 << 20]).await.unwrap();
        begun.uploads.disk.reserve = u64::MAX;
        begun.append("little").await.unwrap();
        assert!(matches!(begun.append(vec![b'x'; 1 << 20]).await, Err(RegistryError::Full)));
        assert_eq!(begun.files(), 0);
    }

    #[tokio::test]
    async fn what_all_uploads_write_together_leaves_the_room_that_is_reserved() {
        let mut begun = Begun::new().await;
        let mut others = Vec::new();
        for _ in 0..8 {
            others.push(begun.uploads.begin(begun.repository.clone(), "somebody").await.unwrap());
        }
        begun.uploads.disk.reserve = u64::MAX;
        let mut refused = 0;
        for id in &others {
            let chunk = body::full(vec![b'x'; 256 << 10]);
            let answer = begun.uploads.append(&begun.repository, id, None, chunk).await;
            refused += usize::from(matches!(answer, Err(RegistryError::Full)));
        }
        assert_eq!(refused, 2, "one of each four, which together have written as much as is looked at");
    }

    #[tokio::test]
    async fn an_upload_that_failed_and_whose_file_is_gone_says_why_it_failed() {
        let begun = Begun::new().await;
        let full = File::options().write(true).open("/dev/full").await.unwrap();
        let upload = begun.uploads.find(&begun.repository, &begun.id).unwrap();
        upload.lock().await.file = full;
        std::fs::remove_dir_all(begun.dir.path().join("uploads")).unwrap();
        let failed = begun.append("abc").await;
        assert!(matches!(&failed, Err(RegistryError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull));
    }

    #[tokio::test]
    async fn who_leaves_while_an_upload_ends_leaves_no_file() {
        let begun = Begun::new().await;
        begun.append("abc").await.unwrap();
        let mut finishing = Box::pin(begun.finish(b"other", body::empty()));
        while !begun.uploads.slots.lock().is_empty() {
            assert!(futures::poll!(finishing.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
        drop(finishing);
        let gone = async {
            while begun.files() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nobody would remove it");
    }

    #[tokio::test]
    async fn a_chunk_of_an_upload_that_is_given_up_ends_with_it() {
        let begun = Begun::new().await;
        let (mut sender, body) = chunks::channel::<Result<Bytes, body::BoxError>>(0);
        let mut appending = Box::pin(begun.uploads.append(&begun.repository, &begun.id, None, body::stream(body)));
        assert!(futures::poll!(appending.as_mut()).is_pending());
        begun.uploads.cancel(&begun.repository, &begun.id).await.unwrap();
        let appended = tokio::time::timeout(Duration::from_secs(10), appending).await.expect("its client still sends");
        assert!(matches!(appended, Err(RegistryError::UploadUnknown)), "{appended:?}");
        assert!(sender.send(Ok(Bytes::from_static(b"more"))).await.is_err());
    }

    #[tokio::test]
    async fn who_writes_beside_the_end_of_an_upload_writes_into_no_blob() {
        let begun = Begun::new().await;
        let (mut sender, body) = chunks::channel::<Result<Bytes, body::BoxError>>(0);
        let mut finishing = Box::pin(begun.finish(b"abc", body::stream(body)));
        assert!(futures::poll!(finishing.as_mut()).is_pending());
        let mut beside = Box::pin(begun.append("def"));
        assert!(futures::poll!(beside.as_mut()).is_pending(), "it has found the upload, and waits for its turn");
        let send = async move { sender.send(Ok(Bytes::from_static(b"abc"))).await };
        let (sent, finished, appended) = tokio::join!(send, finishing, beside);
        sent.unwrap();
        finished.unwrap();
        assert!(matches!(appended, Err(RegistryError::UploadUnknown)), "{appended:?}");
        assert_eq!(begun.blob(b"abc").as_deref(), Some(&b"abc"[..]));
    }
}
