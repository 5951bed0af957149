//! Removing what no image has, and images that no pod of the node needs, when its disk runs full: those that were not used
//! for longest go first.
//!
//! What is removed was whole before: a reference is forgotten first, then what nothing else refers to is deleted. Pulls and
//! loads under way keep what they [pinned](super::pins); with what they need next they wait while it is decided what goes and that
//! loses its name, but neither while it is read what images have nor while gigabytes are deleted. Nothing goes as long as
//! it cannot be read what an image has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oci_distribution::manifest::OciManifest;
use tokio::time::Instant;

use super::blobs::BlobError;
use super::known::Known;
use super::manifest::{self, Form};
use super::pins::Still;
use super::store::{ImageStore, Inner, StoreError};
use super::{reference, roots};
use crate::fault;

/// Which images are to go.
#[derive(Clone, Debug, Default)]
pub struct Unused {
    /// References that pods of the node name, as they write them: what these mean stays.
    pub wanted: HashSet<String>,
    /// How many bytes are to be free again.
    pub bytes: u64,
    /// For how long an image was not used at least: the pod that it was pulled for may not be known yet.
    pub idle: Duration,
}

/// What an image, or the whole store, has on disk, by digest.
#[derive(Debug, Default)]
struct Content {
    /// Manifest, config and layers.
    blobs: HashSet<String>,
    /// Its component, compiled.
    code: HashSet<String>,
    /// Its files, by its manifest.
    roots: HashSet<String>,
    /// All of an image was there and could be told.
    whole: bool,
}

/// One image, under all its names.
struct OnDisk {
    names: Vec<Known>,
    last_used: Instant,
    content: Arc<Content>,
}

/// What was read of images, by their manifests.
type Contents = HashMap<String, Arc<Content>>;

/// What is in the store no more.
#[derive(Debug, Default)]
struct Removed {
    /// Bytes that are free already.
    freed: u64,
    /// What has lost its name, and is to be deleted.
    aside: Vec<PathBuf>,
}

impl ImageStore {
    /// Removes what no image has, and then unused images until enough is free; returns how many bytes that made.
    pub(super) async fn collect(&self, unused: &Unused) -> u64 {
        let wanted = unused.wanted.iter().filter_map(|text| reference::parse(text).ok());
        let wanted: HashSet<String> = wanted.map(|reference| reference.whole()).collect();
        let (mut contents, mut freed) = (Contents::new(), 0);
        let mut removed = self.remove_nobodys(&mut contents).await.map(Some);
        loop {
            match removed {
                Ok(Some(Removed { freed: bytes, aside })) => freed += bytes + delete(aside).await,
                Ok(None) => return freed,
                Err(error) => {
                    let error = fault::with_causes(&error);
                    tracing::warn!(error, "no image is removed, since it cannot be read what all of them have");
                    return freed;
                }
            }
            if freed >= unused.bytes {
                return freed;
            }
            removed = self.remove_image(unused, &wanted, &mut contents).await;
        }
    }

    /// Takes out of the store what no image has.
    async fn remove_nobodys(&self, contents: &mut Contents) -> Result<Removed, StoreError> {
        let (images, pinned) = self.look(contents).await?;
        let all = images.iter().map(|image| image.content.as_ref());
        Ok(self.inner.remove(&self.inner.everything(), all, &pinned).await)
    }

    /// Takes the longest unused image out of the store; `None`: all others are needed.
    async fn remove_image(
        &self,
        unused: &Unused,
        wanted: &HashSet<String>,
        contents: &mut Contents,
    ) -> Result<Option<Removed>, StoreError> {
        let (mut images, pinned) = self.look(contents).await?;
        let candidates = images.iter().enumerate().filter(|(_, image)| {
            !image.names.iter().any(|known| wanted.contains(&known.reference))
                && image.last_used.elapsed() >= unused.idle
                && !image.content.blobs.iter().any(|digest| self.inner.is_needed(digest, &pinned))
        });
        let Some((first, _)) = candidates.min_by_key(|(_, image)| image.last_used) else { return Ok(None) };
        let OnDisk { names, content, .. } = images.swap_remove(first);
        for known in &names {
            self.known.forget(&known.reference).await;
        }
        let others = images.iter().map(|image| image.content.as_ref());
        Ok(Some(self.inner.remove(&content, others, &pinned).await))
    }

    /// All images, and what is pinned then. Nobody waits while it is read what they have, but for what changed meanwhile.
    async fn look(&self, contents: &mut Contents) -> Result<(Vec<OnDisk>, Still<'_>), StoreError> {
        loop {
            let pinned = self.inner.pins.still().await;
            let mut images: BTreeMap<String, Vec<Known>> = BTreeMap::new();
            for known in self.known.all() {
                images.entry(known.manifest.clone()).or_default().push(known);
            }
            let new: Vec<String> =
                images.keys().filter(|manifest| !contents.contains_key(*manifest)).cloned().collect();
            if new.is_empty() {
                let mut found = Vec::with_capacity(images.len());
                for (manifest, names) in images {
                    let content = match contents.get(&manifest) {
                        Some(content) if content.whole => Arc::clone(content),
                        // What was missing may have come.
                        _ => Arc::new(self.inner.content(&manifest).await?),
                    };
                    let Some(last_used) = names.iter().map(|known| known.last_used).max() else { continue };
                    found.push(OnDisk { names, last_used, content });
                }
                return Ok((found, pinned));
            }
            drop(pinned);
            for manifest in new {
                let content = self.inner.content(&manifest).await?;
                contents.insert(manifest, Arc::new(content));
            }
        }
    }
}

/// What was read, unless it is missing or damaged. That it is one of these is known for sure: else it is an error.
fn there<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(found) => Ok(Some(found)),
        // Files in an image's root are as it wants to have them.
        Err(StoreError::Io { source, .. })
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
        {
            Ok(None)
        }
        Err(error @ (StoreError::Io { .. } | StoreError::Blob(BlobError::Io { .. }) | StoreError::Interrupted)) => {
            Err(error)
        }
        Err(_) => Ok(None),
    }
}

impl Inner {
    /// Whether something under way, or a container that runs, needs what has this digest.
    fn is_needed(&self, digest: &str, pinned: &Still<'_>) -> bool {
        pinned.has(digest) || self.in_use(digest).is_some()
    }

    /// What an image has on disk, as far as that is there.
    async fn content(&self, manifest: &str) -> Result<Content, StoreError> {
        let mut content = Content { blobs: [manifest.to_owned()].into(), ..Content::default() };
        let Some(bytes) = there(self.read(manifest).await)? else { return Ok(content) };
        let Ok(OciManifest::Image(image)) = manifest::parse(&bytes) else { return Ok(content) };
        content.blobs.extend(manifest::blobs(&image).map(|blob| blob.digest.clone()));
        let Some(config) = there(self.config(&image).await)? else { return Ok(content) };
        match manifest::form(&image, &config) {
            Ok(Form::Artifact { layer }) => drop(content.code.insert(layer.digest)),
            Ok(Form::Files { config, .. }) => {
                content.roots.insert(manifest.to_owned());
                let Some(digest) = there(self.component(manifest, &config).await)? else { return Ok(content) };
                content.code.insert(digest);
            }
            Ok(Form::Native { .. }) | Err(_) => {}
        }
        content.whole = true;
        Ok(content)
    }

    /// All that is on disk, whoever has it.
    fn everything(&self) -> Content {
        let roots = super::blobs::digests(&self.roots());
        Content { blobs: self.blobs.all(), code: self.precompiler.all(), roots, whole: true }
    }

    /// Takes what neither others have as well nor anybody needs now out of the store.
    async fn remove<'a>(
        &self,
        content: &Content,
        others: impl Iterator<Item = &'a Content>,
        pinned: &Still<'_>,
    ) -> Removed {
        let (mut blobs, mut code) = (HashSet::new(), HashSet::new());
        for other in others {
            blobs.extend(other.blobs.iter().map(String::as_str));
            code.extend(other.code.iter().map(String::as_str));
        }
        let mut paths: Vec<PathBuf> = Vec::new();
        let goes = |digest: &&String| !blobs.contains(digest.as_str()) && !self.is_needed(digest, pinned);
        for digest in content.blobs.iter().filter(goes) {
            paths.extend(self.blobs.path(digest).ok());
        }
        // Also those of an image whose config cannot be read, and which is not known to have files.
        for digest in content.roots.iter().filter(goes) {
            paths.extend(self.root_of(digest).ok());
            paths.extend(self.note_of(digest).ok());
        }
        for digest in &content.code {
            if !code.contains(digest.as_str()) && !self.is_needed(digest, pinned) {
                paths.extend(self.precompiler.files(digest));
            }
        }
        tokio::task::spawn_blocking(move || set_aside(&paths)).await.unwrap_or_default()
    }
}

/// Takes files and folders their names, which takes as long for a large one as for a small one. What is called so goes also when
/// the store is opened.
fn set_aside(paths: &[PathBuf]) -> Removed {
    let mut removed = Removed::default();
    for path in paths {
        let aside = path.with_file_name(format!(".{:x}", rand::random::<u64>()));
        match std::fs::rename(path, &aside) {
            Ok(()) => removed.aside.push(aside),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A full disk may have no room for another name.
            Err(_) => removed.freed += roots::remove(path),
        }
    }
    removed
}

/// Deletes what was set aside; the bytes that it had.
async fn delete(aside: Vec<PathBuf>) -> u64 {
    let deleted = tokio::task::spawn_blocking(move || aside.iter().map(|path| roots::remove(path)).sum());
    deleted.await.unwrap_or_default()
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
