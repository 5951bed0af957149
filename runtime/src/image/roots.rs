//! The unpacked file systems of Docker-style images, in `roots/` by the digest of their manifest.

use std::path::{Path, PathBuf};

use oci_distribution::manifest::OciDescriptor;

use super::ImageConfig;
use super::blobs::{self, BlobError, hex_part};
use super::pins::Pinned;
use super::store::{Inner, StoreError, fits};
use super::unpack::{self, UnpackError};

/// Makes the folder of unpacked images, and removes what was not unpacked to its end.
pub(super) fn open(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
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

impl Inner {
    /// The digest of the component in an image's files, and the component.
    pub(super) async fn wasm(root: PathBuf, config: &ImageConfig) -> Result<(String, Vec<u8>), StoreError> {
        let config = config.clone();
        let read = tokio::task::spawn_blocking(move || {
            let path = entry(&root, &config)?;
            let unreadable = |source| StoreError::Io { path: path.clone(), source };
            fits(path.metadata().map_err(unreadable)?.len())?;
            blobs::read(&path).map_err(unreadable)
        });
        read.await.map_err(|_| StoreError::Interrupted)?
    }

    pub(super) fn roots(&self) -> PathBuf {
        self.folder.join("roots")
    }

    /// Where the unpacked file system of an image is or would be.
    pub(super) fn root_of(&self, digest: &str) -> Result<PathBuf, BlobError> {
        Ok(self.roots().join(hex_part(digest)?))
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
            archives.push((self.blobs.path(&layer.digest)?, layer.media_type.clone()));
        }
        // It goes on to its end also when nobody waits any more.
        let (finished, pinned) = (root.clone(), pins.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let applied = apply(&archives, &partial, &finished);
            if partial.exists() {
                let _ = std::fs::remove_dir_all(&partial);
            }
            drop(pinned);
            applied
        });
        unpacked.await.map_err(|_| StoreError::Interrupted)??;
        Ok(root)
    }
}
