//! Content-addressed files: a blob is under its digest once all of it has arrived and its digest is right, never before.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::source::{BlobStream, SourceError};

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("{path} cannot be read or written")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("digest mismatch: what the registry sent for {expected} is {actual}; the image is corrupt")]
    Digest { expected: String, actual: String },
    #[error("blob {digest} is longer than the {size} bytes that its manifest says")]
    TooLong { digest: String, size: u64 },
    #[error("{0:?} is not a sha256 digest")]
    Unsupported(String),
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// The folder of blobs.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
}

/// `sha256:…` of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The hexadecimal part of a sha256 digest, checked so that it is safe as a file name.
pub fn hex_part(digest: &str) -> Result<&str, BlobError> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .ok_or_else(|| BlobError::Unsupported(digest.to_owned()))
}

/// A file's digest, and the file. Blocks.
pub(super) fn read(path: &Path) -> io::Result<(String, Vec<u8>)> {
    let bytes = std::fs::read(path)?;
    Ok((digest_of(&bytes), bytes))
}

/// The digests by which entries of a folder are named, or begin.
pub(super) fn digests(folder: &Path) -> HashSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let digest = |name: &str| format!("sha256:{}", name.split('-').next().unwrap_or_default());
    let digests = entries.map(|entry| digest(&entry.file_name().to_string_lossy()));
    digests.filter(|digest| hex_part(digest).is_ok()).collect()
}

impl Blobs {
    /// Opens the folder and removes what an interrupted download left.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { folder })
    }

    /// Where a blob is or would be.
    pub fn path(&self, digest: &str) -> Result<PathBuf, BlobError> {
        Ok(self.folder.join(hex_part(digest)?))
    }

    pub fn has(&self, digest: &str) -> bool {
        self.path(digest).is_ok_and(|path| path.exists())
    }

    /// The digests of all that are here.
    pub(super) fn all(&self) -> HashSet<String> {
        digests(&self.folder)
    }

    /// A small blob's bytes, verified again: what the disk did to them is found before it runs.
    pub async fn read(&self, digest: &str) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.path(digest)?;
        let from = path.clone();
        match tokio::task::spawn_blocking(move || read(&from)).await.unwrap_or_else(|lost| Err(lost.into())) {
            Ok((actual, bytes)) if actual == digest => Ok(Some(bytes)),
            Ok((actual, _)) => Err(BlobError::Digest { expected: digest.to_owned(), actual }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Io { path, source }),
        }
    }

    /// Stores bytes under their digest.
    pub async fn put(&self, bytes: Bytes) -> Result<String, BlobError> {
        let digest = digest_of(&bytes);
        if !self.has(&digest) {
            let size = bytes.len() as u64;
            self.fetch(&digest, size, futures::stream::once(async { Ok(bytes) }).boxed()).await?;
        }
        Ok(digest)
    }

    /// Stores a stream that must have this digest and at most this size.
    pub async fn fetch(&self, digest: &str, size: u64, stream: BlobStream) -> Result<(), BlobError> {
        let path = self.path(digest)?;
        let partial = self.folder.join(format!(".{}.{:x}", hex_part(digest)?, rand::random::<u64>()));
        let written = write(&partial, digest, size, stream).await;
        let done = match written {
            Ok(()) => tokio::fs::rename(&partial, &path).await.map_err(|source| BlobError::Io { path, source }),
            Err(error) => Err(error),
        };
        if done.is_err() {
            let _ = tokio::fs::remove_file(&partial).await;
        }
        done
    }

    /// Removes a blob that turned out damaged, so that the next pull fetches it again.
    pub async fn discard(&self, digest: &str) {
        if let Ok(path) = self.path(digest) {
            let _ = tokio::fs::remove_file(path).await;
        }
    }
}

async fn write(path: &Path, digest: &str, size: u64, mut stream: BlobStream) -> Result<(), BlobError> {
    let failed = |source| BlobError::Io { path: path.to_owned(), source };
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut hash = Sha256::new();
    let mut received = 0u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        received += chunk.len() as u64;
        if received > size {
            return Err(BlobError::TooLong { digest: digest.to_owned(), size });
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(failed)?;
    }
    let actual = format!("sha256:{}", hex(&hash.finalize()));
    if actual != digest {
        return Err(BlobError::Digest { expected: digest.to_owned(), actual });
    }
    // Tells how the last write went, which a sync does not.
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_have_its_digest_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().join("blobs")).unwrap();
        let digest = digest_of(b"right");
        let wrong = futures::stream::once(async { Ok(Bytes::from_static(b"wrong")) }).boxed();
        assert!(matches!(blobs.fetch(&digest, 5, wrong).await, Err(BlobError::Digest { .. })));
        let long = futures::stream::once(async { Ok(Bytes::from_static(b"right and more")) }).boxed();
        assert!(matches!(blobs.fetch(&digest, 5, long).await, Err(BlobError::TooLong { .. })));
        assert!(!blobs.has(&digest));
        assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
        assert_eq!(blobs.put(Bytes::from_static(b"right")).await.unwrap(), digest);
        assert_eq!(blobs.read(&digest).await.unwrap().unwrap(), b"right");
    }

    #[tokio::test]
    async fn a_blob_whose_last_write_finds_no_room_is_not_stored() {
        // A write is told to be done before the disk has it, and so fails at the next.
        let all = futures::stream::once(async { Ok(Bytes::from_static(b"last")) }).boxed();
        let written = write(Path::new("/dev/full"), &digest_of(b"last"), 4, all).await;
        let full = |source: &io::Error| source.kind() == io::ErrorKind::StorageFull;
        assert!(matches!(&written, Err(BlobError::Io { source, .. }) if full(source)), "{written:?}");
    }

    #[tokio::test]
    async fn damage_on_disk_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path().to_owned()).unwrap();
        let digest = blobs.put(Bytes::from_static(b"good")).await.unwrap();
        std::fs::write(blobs.path(&digest).unwrap(), b"bad").unwrap();
        assert!(matches!(blobs.read(&digest).await, Err(BlobError::Digest { .. })));
    }

    #[test]
    fn a_digest_cannot_name_another_file() {
        for digest in ["sha256:../../etc/passwd", "sha256:", "md5:00", "sha256:ABC"] {
            assert!(hex_part(digest).is_err(), "{digest}");
        }
    }
}
