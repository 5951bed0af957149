//! The unpacked file systems of Docker-style images, in `roots/` by the digest of their manifest. Beside each is a note of the
//! digest of its component: the name of its code, which a collection so need not read the component for.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_distribution::manifest::OciDescriptor;

use super::ImageConfig;
use super::blobs::{self, BlobError, hex_part};
use super::pins::Pinned;
use super::store::{Inner, StoreError, fits};
use super::unpack::{self, OWNER, UnpackError};

/// Makes the folder of unpacked images, and removes what was not unpacked to its end.
pub(super) fn open(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            remove(&entry.path());
        }
    }
    Ok(())
}

/// Removes a file or a folder, also one that a layer has closed to its owner; the bytes that it had.
pub(super) fn remove(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    if !metadata.is_dir() {
        return if std::fs::remove_file(path).is_ok() { metadata.len() } else { 0 };
    }
    if metadata.permissions().mode() & OWNER != OWNER {
        let _ = std::fs::set_permissions(path, Permissions::from_mode(OWNER));
    }
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
    let freed = inside.map(|entry| remove(&entry.path())).sum();
    let _ = std::fs::remove_dir(path);
    freed
}

/// The component in an image's files.
fn entry(root: &Path, config: &ImageConfig) -> Result<PathBuf, StoreError> {
    let named = config.entrypoint.first().or(config.cmd.first());
    named
        .and_then(|name| unpack::find(root, name).ok())
        .filter(|path| path.is_file())
        .ok_or_else(|| StoreError::Entrypoint(config.entrypoint.clone()))
}

/// Unpacks layers into `partial`, which becomes `root`.
fn apply(layers: &[(PathBuf, String)], partial: &Path, root: &Path) -> Result<(), UnpackError> {
    std::fs::create_dir_all(partial)?;
    let mut left = unpack::LARGEST_ROOT;
    for (blob, media_type) in layers {
        unpack::layer(blob, media_type, partial, &mut left)?;
    }
    if !root.exists() {
        std::fs::rename(partial, root)?;
    }
    Ok(())
}

/// Notes the digest of an image's component. Without a note, it is read once more.
fn keep(note: &Path, digest: &str) {
    if std::fs::read(note).is_ok_and(|noted| noted == digest.as_bytes()) {
        return;
    }
    let partial = note.with_file_name(format!(".{:x}", rand::random::<u64>()));
    if let Err(error) = std::fs::write(&partial, digest).and_then(|()| std::fs::rename(&partial, note)) {
        tracing::debug!(%error, path = %note.display(), "the digest of an image's component cannot be noted");
        let _ = std::fs::remove_file(&partial);
    }
}

impl Inner {
    /// The digest of the component in an image's files, and the component.
    pub(super) async fn wasm(&self, manifest: &str, config: &ImageConfig) -> Result<(String, Vec<u8>), StoreError> {
        let (root, note, config) = (self.root_of(manifest)?, self.note_of(manifest)?, config.clone());
        let read = tokio::task::spawn_blocking(move || {
            let path = entry(&root, &config)?;
            let unreadable = |source| StoreError::Io { path: path.clone(), source };
            fits(path.metadata().map_err(unreadable)?.len())?;
            let (digest, wasm) = blobs::read(&path).map_err(unreadable)?;
            keep(&note, &digest);
            Ok((digest, wasm))
        });
        read.await.map_err(|_| StoreError::Interrupted)?
    }

    /// The digest of the component in an image's files.
    pub(super) async fn component(&self, manifest: &str, config: &ImageConfig) -> Result<String, StoreError> {
        let path = self.note_of(manifest)?;
        match tokio::fs::read_to_string(&path).await {
            Ok(digest) if hex_part(&digest).is_ok() => Ok(digest),
            Err(source) if !matches!(source.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => {
                Err(StoreError::Io { path, source })
            }
            // It was unpacked by an earlier version, or the note was not written to its end.
            Ok(_) | Err(_) => Ok(self.wasm(manifest, config).await?.0),
        }
    }

    pub(super) fn roots(&self) -> PathBuf {
        self.folder.join("roots")
    }

    /// Where the unpacked file system of an image is or would be.
    pub(super) fn root_of(&self, digest: &str) -> Result<PathBuf, BlobError> {
        Ok(self.roots().join(hex_part(digest)?))
    }

    /// Where the digest of its component is.
    pub(super) fn note_of(&self, digest: &str) -> Result<PathBuf, BlobError> {
        Ok(self.roots().join(format!("{}-component", hex_part(digest)?)))
    }

    /// The unpacked file system of an image, made once.
    pub(super) async fn root(
        &self,
        digest: &str,
        layers: &[OciDescriptor],
        pins: &Pinned,
    ) -> Result<PathBuf, StoreError> {
        let root = self.root_of(digest)?;
        if root.exists() {
            return Ok(root);
        }
        let partial = self.roots().join(format!(".{:x}", rand::random::<u64>()));
        let mut archives = Vec::new();
        for layer in layers {
            if !self.blobs.has(&layer.digest) {
                return Err(StoreError::Missing);
            }
            archives.push((self.blobs.path(&layer.digest)?, layer.media_type.clone()));
        }
        // It goes on to its end also when nobody waits any more.
        let (finished, pinned) = (root.clone(), pins.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let applied = apply(&archives, &partial, &finished);
            remove(&partial);
            drop(pinned);
            applied
        });
        unpacked.await.map_err(|_| StoreError::Interrupted)??;
        Ok(root)
    }
}
