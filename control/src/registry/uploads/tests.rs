//! Uploads that are slow, that fail, and that are given up.

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
        self.uploads.finish(&self.repository, &self.id, &Digest::of(whole), (None, body), home).await
    }

    fn blob(&self, whole: &[u8]) -> Option<Vec<u8>> {
        std::fs::read(self.uploads.disk.blob_path(&Digest::of(whole))).ok()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("uploads")).unwrap().count()
    }

    async fn no_file_is_left(&self) {
        let gone = async {
            while self.files() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nobody would remove it");
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
    assert!(matches!(&failed, Err(RegistryError::Io(error)) if error.kind() == io::ErrorKind::StorageFull));
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
    assert!(matches!(&failed, Err(RegistryError::Io(error)) if error.kind() == io::ErrorKind::StorageFull));
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
    begun.no_file_is_left().await;
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

#[test]
fn who_leaves_while_an_upload_begins_leaves_no_file() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).max_blocking_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let begun = Begun::new().await;
        begun.uploads.cancel(&begun.repository, &begun.id).await.unwrap();
        for _ in 0..5_000 {
            let mut beginning = Box::pin(begun.uploads.begin(begun.repository.clone(), "somebody"));
            // One whose file was made at once is no case.
            if let std::task::Poll::Ready(begun_at_once) = futures::poll!(beginning.as_mut()) {
                begun.uploads.cancel(&begun.repository, &begun_at_once.unwrap()).await.unwrap();
            }
        }
        // Both threads that make files have come to the end of what they were told.
        let both = Arc::new(std::sync::Barrier::new(2));
        let end = [0, 1].map(|_| {
            let both = Arc::clone(&both);
            tokio::task::spawn_blocking(move || both.wait())
        });
        futures::future::join_all(end).await;
        begun.no_file_is_left().await;
    });
}
