//! Blobs that are being sent: one file and one running digest each.
//!
//! An upload belongs to its repository; chunks follow one another without a gap. An upload that fails in the middle keeps
//! what arrived, so that a client can go on from there; one whose file could not be written, and one that nobody touched for
//! an hour, is dropped. They do not survive a restart. What must stay true: nobody waits for a chunk of another upload; a
//! file becomes a blob only if it has what the digest has seen, and nobody writes into it afterwards.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
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

/// Uploads of one user (service accounts of a namespace are one) at once, each an open file and a few hundred bytes: clients push a handful of layers in parallel.
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
        let path = self.disk.upload_path(&id);
        // Also a request that is given up meanwhile: whoever has made the file has it to remove.
        let making = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::create_new(&path)?;
            Ok::<_, io::Error>((file, Unfinished(Some(path))))
        });
        let (file, unfinished) = making.await??;
        let gone = CancellationToken::new();
        let upload =
            Upload { file: File::from_std(file), hasher: Sha256::new(), written: 0, closed: false, gone: gone.clone() };
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
        upload.follows(from)?;
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
    /// not. A last chunk that does not begin where the client says ends nothing.
    pub(crate) async fn finish(
        &self,
        repository: &Repository,
        id: &str,
        digest: &Digest,
        (from, body): (Option<u64>, Body),
        home: Home,
    ) -> Result<(), RegistryError> {
        let upload = self.find(repository, id)?;
        let mut upload = upload.lock().await;
        upload.follows(from)?;
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

    /// Takes a blob that comes with one request. However that ends, nothing is left of its upload: nobody else knows its name.
    pub(crate) async fn take_whole(
        &self,
        repository: &Repository,
        user: &str,
        digest: &Digest,
        body: Body,
        home: Home,
    ) -> Result<(), RegistryError> {
        let id = self.begin(repository.clone(), user).await?;
        let _of_request = OfRequest { uploads: self, id: &id };
        self.finish(repository, &id, digest, (None, body), home).await
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

/// An upload that ends with a request, also if that is given up.
struct OfRequest<'a> {
    uploads: &'a Uploads,
    id: &'a str,
}

impl Drop for OfRequest<'_> {
    fn drop(&mut self) {
        let slot = self.uploads.slots.lock().remove(self.id);
        drop(slot);
    }
}

impl Upload {
    /// Whether a chunk may begin there.
    fn follows(&self, from: Option<u64>) -> Result<(), RegistryError> {
        match from {
            Some(from) if from != self.written => Err(RegistryError::OutOfOrder { at: self.written }),
            _ => Ok(()),
        }
    }

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

fn removed(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "an abandoned upload could not be removed");
    }
}

#[cfg(test)]
mod tests;
