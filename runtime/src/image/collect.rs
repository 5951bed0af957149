//! Removing what no image has, and images that no pod of the node needs, when its disk runs full: those that were not used
//! for longest go first.
//!
//! What is removed was whole before: a reference is forgotten first, then what nothing else refers to is deleted. Pulls and
//! loads under way keep what they [pinned](super::pins); with what they need next they wait until this is done.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_distribution::manifest::OciManifest;
use tokio::time::Instant;

use super::known::Known;
use super::manifest::{self, Form};
use super::pins::Still;
use super::reference;
use super::store::{ImageStore, Inner};

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
}

/// One image, under all its names.
struct Candidate {
    names: Vec<Known>,
    last_used: Instant,
    content: Content,
}

impl ImageStore {
    /// Removes what no image has, and then unused images until enough is free; returns how many bytes that made.
    pub(super) async fn collect(&self, unused: &Unused) -> u64 {
        let pinned = self.inner.pins.still().await;
        let wanted = unused.wanted.iter().filter_map(|text| reference::parse(text).ok());
        let wanted: HashSet<String> = wanted.map(|reference| reference.whole()).collect();
        let mut images: BTreeMap<String, Vec<Known>> = BTreeMap::new();
        for known in self.known.all() {
            images.entry(known.manifest.clone()).or_default().push(known);
        }
        let (mut kept, mut candidates) = (Vec::new(), Vec::new());
        for (manifest, names) in images {
            let content = self.inner.content(&manifest).await;
            let Some(last_used) = names.iter().map(|known| known.last_used).max() else { continue };
            let stays = names.iter().any(|known| wanted.contains(&known.reference))
                || last_used.elapsed() < unused.idle
                || content.blobs.iter().any(|digest| self.inner.is_needed(digest, &pinned));
            if stays {
                kept.push(content);
            } else {
                candidates.push(Candidate { names, last_used, content });
            }
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.last_used));
        let all = || kept.iter().chain(candidates.iter().map(|candidate| &candidate.content));
        let mut freed = self.inner.delete(&self.inner.everything(), all, &pinned).await;
        while freed < unused.bytes
            && let Some(Candidate { names, content, .. }) = candidates.pop()
        {
            for known in &names {
                self.known.forget(&known.reference).await;
            }
            let others = || kept.iter().chain(candidates.iter().map(|candidate| &candidate.content));
            freed += self.inner.delete(&content, others, &pinned).await;
        }
        freed
    }
}

impl Inner {
    /// Whether something under way, or a container that runs, needs what has this digest.
    fn is_needed(&self, digest: &str, pinned: &Still<'_>) -> bool {
        pinned.has(digest) || self.in_use(digest).is_some()
    }

    /// What an image has on disk, as far as that can be read.
    async fn content(&self, manifest: &str) -> Content {
        let mut content = Content { blobs: [manifest.to_owned()].into(), ..Content::default() };
        let Ok(Some(bytes)) = self.blobs.read(manifest).await else { return content };
        let Ok(OciManifest::Image(image)) = manifest::parse(&bytes) else { return content };
        content.blobs.extend(manifest::blobs(&image).map(|blob| blob.digest.clone()));
        let Ok(config) = self.config(&image).await else { return content };
        match manifest::form(&image, &config) {
            Ok(Form::Artifact { layer }) => drop(content.code.insert(layer.digest)),
            Ok(Form::Files { config, .. }) => {
                content.roots.insert(manifest.to_owned());
                let root = self.root_of(manifest).ok();
                if let Some(wasm) = root.and_then(|root| Self::entry(&root, &config).ok())
                    && let Ok(wasm) = tokio::fs::read(wasm).await
                {
                    content.code.insert(super::blobs::digest_of(&wasm));
                }
            }
            Ok(Form::Native { .. }) | Err(_) => {}
        }
        content
    }

    /// All that is on disk, whoever has it.
    fn everything(&self) -> Content {
        let roots = super::blobs::digests(&self.roots());
        Content { blobs: self.blobs.all(), code: self.precompiler.all(), roots }
    }

    /// Deletes what neither others have as well nor anybody needs now.
    async fn delete<'a, I: Iterator<Item = &'a Content>>(
        &self,
        content: &Content,
        others: impl Fn() -> I,
        pinned: &Still<'_>,
    ) -> u64 {
        let mut paths: Vec<PathBuf> = Vec::new();
        for digest in &content.blobs {
            if !others().any(|other| other.blobs.contains(digest)) && !self.is_needed(digest, pinned) {
                paths.extend(self.blobs.path(digest).ok());
            }
        }
        for digest in &content.code {
            if !others().any(|other| other.code.contains(digest)) && !self.is_needed(digest, pinned) {
                paths.extend(self.precompiler.files(digest));
            }
        }
        for digest in &content.roots {
            // Also of an image whose config cannot be read, and which is not known to have files.
            if !others().any(|other| other.blobs.contains(digest)) && !self.is_needed(digest, pinned) {
                paths.extend(self.root_of(digest).ok());
            }
        }
        let deleted = tokio::task::spawn_blocking(move || paths.iter().map(|path| remove(path)).sum());
        deleted.await.unwrap_or_default()
    }
}

/// Removes a file or a folder; the bytes that it had.
fn remove(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    if !metadata.is_dir() {
        return if std::fs::remove_file(path).is_ok() { metadata.len() } else { 0 };
    }
    let inside = std::fs::read_dir(path).into_iter().flatten().flatten();
    let freed = inside.map(|entry| remove(&entry.path())).sum();
    let _ = std::fs::remove_dir(path);
    freed
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{TestRegistry, component, files, name, pull};
    use super::*;
    use crate::image::package::Package;
    use crate::image::{Image, Images, PullPolicy};

    async fn ensure(store: &ImageStore, image: &str) -> Arc<Image> {
        pull(store, image, PullPolicy::IfNotPresent).await.unwrap()
    }

    async fn here(store: &ImageStore) -> Vec<String> {
        let names = store.list().await.into_iter().flat_map(|image| image.names).filter(|name| !name.contains('@'));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn package(name: &str) -> Package {
        Package::of(component(name)).unwrap()
    }

    /// Removes all that is not needed, but what `wanted` means.
    async fn remove_all(store: &ImageStore, wanted: &[&str]) -> u64 {
        let wanted = wanted.iter().map(|image| name(image)).collect();
        store.remove_unused(Unused { wanted, bytes: u64::MAX, idle: Duration::ZERO }).await
    }

    #[tokio::test]
    async fn the_longest_unused_goes_first_and_what_pods_name_or_run_stays() {
        let folder = tempfile::tempdir().unwrap();
        let registry = TestRegistry::default();
        for name in ["named", "runs", "old", "newer"] {
            registry.add_package(name, &package(name));
        }
        let store = registry.store(folder.path());
        drop(ensure(&store, "newer").await);
        drop(ensure(&store, "named").await);
        drop(ensure(&store, "old").await);
        let running = ensure(&store, "runs").await;
        drop(ensure(&store, "newer").await);
        let all = files(folder.path());
        assert_eq!(all, 4 * 5, "each has a reference, three blobs and code");

        let remove = |bytes, idle| {
            let unused = Unused { wanted: [name("named")].into(), bytes, idle };
            let store = &store;
            async move { store.remove_unused(unused).await }
        };
        assert_eq!(remove(u64::MAX, Duration::from_hours(1)).await, 0, "all were used a moment ago");
        assert!(remove(1, Duration::ZERO).await > 0);
        assert_eq!(here(&store).await, ["named", "newer", "runs"].map(name));
        assert_eq!(files(folder.path()), 3 * 5);
        remove(u64::MAX, Duration::ZERO).await;
        assert_eq!(here(&store).await, ["named", "runs"].map(name));
        drop(running);
        remove(u64::MAX, Duration::ZERO).await;
        assert_eq!(files(folder.path()), 5);
        ensure(&store, "old").await;
    }

    #[tokio::test]
    async fn what_another_image_has_too_stays_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (registry, package) = (TestRegistry::default(), package("same"));
        registry.add_package("one", &package);
        registry.add_package("other", &package);
        let store = registry.store(folder.path());
        drop(ensure(&store, "one").await);
        drop(ensure(&store, "other").await);
        assert_eq!(remove_all(&store, &["one"]).await, 0);
        assert_eq!(ensure(&store, "one").await.reference, name("one"));
    }

    #[tokio::test]
    async fn what_a_failed_pull_left_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let registry = TestRegistry::default();
        registry.add_files("broken", b"no Wasm");
        registry.add_package("good", &package("good"));
        let store = registry.store(folder.path());
        drop(ensure(&store, "good").await);
        pull(&store, "broken", PullPolicy::IfNotPresent).await.unwrap_err();
        assert_eq!(files(folder.path()), 5 + 3 + 1, "manifest, config, layer and its file");
        let unused = Unused { bytes: 1, ..Unused::default() };
        assert!(store.remove_unused(unused).await > 0);
        assert_eq!((files(folder.path()), here(&store).await), (5, vec![name("good")]));
        assert_eq!(std::fs::read_dir(folder.path().join("roots")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_pull_that_is_never_answered_keeps_what_it_has_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (registry, slow) = (TestRegistry::default(), package("slow"));
        registry.add_package("slow", &slow);
        registry.add_package("old", &package("old"));
        let store = registry.store(folder.path());
        drop(ensure(&store, "old").await);
        let leave = registry.hold(&slow.wasm);
        let pulling = tokio::spawn({
            let store = store.clone();
            async move { pull(&store, "slow", PullPolicy::IfNotPresent).await }
        });
        while !registry.was_asked_for(&slow.wasm) {
            tokio::task::yield_now().await;
        }
        assert!(remove_all(&store, &[]).await > 0);
        assert_eq!((files(folder.path()), here(&store).await), (2, vec![]), "its manifest and config");
        leave.add_permits(1);
        pulling.await.unwrap().unwrap();
        assert_eq!(files(folder.path()), 5);
    }

    #[tokio::test]
    async fn files_of_a_container_stay_though_its_image_s_name_means_another_now() {
        let folder = tempfile::tempdir().unwrap();
        let registry = TestRegistry::default();
        registry.add_files("app", &component("first"));
        let store = registry.store(folder.path());
        let runs = ensure(&store, "app").await;
        registry.add_files("app", &component("second"));
        drop(pull(&store, "app", PullPolicy::Always).await.unwrap());
        let roots = || std::fs::read_dir(folder.path().join("roots")).unwrap().count();
        remove_all(&store, &["app"]).await;
        assert_eq!(roots(), 2);
        drop(runs);
        assert!(remove_all(&store, &["app"]).await > 0);
        assert_eq!((roots(), files(folder.path())), (1, 6));
        assert_eq!(remove_all(&store, &["app"]).await, 0);
    }
}
