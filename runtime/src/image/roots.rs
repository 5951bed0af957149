//! The unpacked file systems of Docker-style images, in `roots/` by the digest of their manifest.

use std::path::{Path, PathBuf};

use oci_distribution::manifest::OciDescriptor;

use super::ImageConfig;
use super::blobs::{BlobError, hex_part};
use super::store::{Inner, StoreError};
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

impl Inner {
    /// The component in an image's files.
    pub(super) fn entry(root: &Path, config: &ImageConfig) -> Result<PathBuf, StoreError> {
        let named = config.entrypoint.first().or(config.cmd.first());
        named
            .and_then(|name| unpack::find(root, name).ok())
            .filter(|path| path.is_file())
            .ok_or_else(|| StoreError::Entrypoint(config.entrypoint.clone()))
    }

    pub(super) fn roots(&self) -> PathBuf {
        self.folder.join("roots")
    }

    /// Where the unpacked file system of an image is or would be.
    pub(super) fn root_of(&self, digest: &str) -> Result<PathBuf, BlobError> {
        Ok(self.roots().join(hex_part(digest)?))
    }

    /// The unpacked file system of an image, made once.
    pub(super) async fn root(&self, digest: &str, layers: &[OciDescriptor]) -> Result<PathBuf, StoreError> {
        let root = self.root_of(digest)?;
        if root.exists() {
            return Ok(root);
        }
        let partial = self.roots().join(format!(".{:x}", rand::random::<u64>()));
        let mut archives = Vec::new();
        for layer in layers {
            archives.push((self.blobs.path(&layer.digest)?, layer.media_type.clone()));
        }
        let (into, finished) = (partial.clone(), root.clone());
        let unpacked = tokio::task::spawn_blocking(move || -> Result<(), UnpackError> {
            std::fs::create_dir_all(&into)?;
            let mut left = unpack::LARGEST_ROOT;
            for (blob, media_type) in archives {
                unpack::layer(&blob, &media_type, &into, &mut left)?;
            }
            if !finished.exists() {
                std::fs::rename(&into, &finished)?;
            }
            Ok(())
        })
        .await
        .map_err(|_| StoreError::Interrupted)?;
        if partial.exists() {
            let _ = tokio::fs::remove_dir_all(&partial).await;
        }
        unpacked?;
        Ok(root)
    }
}
