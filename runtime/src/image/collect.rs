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
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::super::blobs::digest_of;
    use super::super::testing::{TestRegistry, component, files, name, pull};
    use super::*;
    use crate::image::package::Package;
    use crate::image::{Image, ImageError, Images, PullPolicy};

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
        assert_eq!(files(folder.path()), 5 + 3 + 2, "manifest, config, layer, its file and the digest of that");
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
        let roots = || super::super::blobs::digests(&folder.path().join("roots")).len();
        remove_all(&store, &["app"]).await;
        assert_eq!(roots(), 2);
        drop(runs);
        assert!(remove_all(&store, &["app"]).await > 0);
        assert_eq!((roots(), files(folder.path())), (1, 7));
        assert_eq!(remove_all(&store, &["app"]).await, 0);
    }

    #[tokio::test]
    async fn no_component_is_read_to_tell_what_an_image_has() {
        let folder = tempfile::tempdir().unwrap();
        let (registry, wasm) = (TestRegistry::default(), component("app"));
        registry.add_files("app", &wasm);
        let store = registry.store(folder.path());
        drop(ensure(&store, "app").await);
        let in_roots = || std::fs::read_dir(folder.path().join("roots")).unwrap().map(|entry| entry.unwrap().path());
        let (root, note) = (in_roots().find(|path| path.is_dir()), in_roots().find(|path| path.is_file()));
        let (root, note) = (root.unwrap(), note.unwrap());
        // As an earlier version left it.
        std::fs::remove_file(&note).unwrap();
        assert_eq!(remove_all(&store, &["app"]).await, 0);
        assert_eq!(std::fs::read_to_string(note).unwrap(), digest_of(&wasm));
        // Who reads this waits for ever.
        std::fs::remove_file(root.join("app.wasm")).unwrap();
        fifo(&root.join("app.wasm"));
        let removed = tokio::time::timeout(Duration::from_secs(60), remove_all(&store, &["app"])).await;
        assert_eq!((removed, files(folder.path())), (Ok(0), 7), "its code stayed, too");
    }

    #[tokio::test]
    async fn an_image_starts_before_what_goes_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let registry = TestRegistry::default();
        registry.add_files("goes", &component("goes"));
        let store = registry.store(folder.path());
        drop(ensure(&store, "goes").await);
        let (all, mut contents) = (files(folder.path()), Contents::new());
        let unused = Unused { bytes: u64::MAX, ..Unused::default() };
        let removed = store.remove_image(&unused, &HashSet::new(), &mut contents).await.unwrap().unwrap();
        assert_eq!((files(folder.path()), here(&store).await), (all - 1, vec![]), "its reference went alone");
        assert_eq!(removed.aside.len(), 3 + 2 + 1, "blobs, files with their digest, and code");
        drop(ensure(&store, "goes").await);
        assert_eq!(store.compiled(), 2, "nothing of it was there any more");
        assert!(delete(removed.aside).await > 0);
        assert_eq!(files(folder.path()), all);
    }

    #[tokio::test]
    async fn what_was_not_deleted_to_its_end_goes_when_the_store_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let registry = TestRegistry::default();
        registry.add_files("goes", &component("goes"));
        let store = registry.store(folder.path());
        drop(ensure(&store, "goes").await);
        let unused = Unused { bytes: u64::MAX, ..Unused::default() };
        store.remove_image(&unused, &HashSet::new(), &mut Contents::new()).await.unwrap().unwrap();
        drop(store);
        assert!(files(folder.path()) > 0);
        drop(registry.store(folder.path()));
        assert_eq!(files(folder.path()), 0);
    }

    /// Puts something else where a blob is; returns the blob.
    fn swap(folder: &Path, blob: &[u8], make: impl FnOnce(&Path)) -> (PathBuf, Vec<u8>) {
        let path = folder.join("blobs").join(digest_of(blob).replace("sha256:", ""));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        make(&path);
        (path, bytes)
    }

    #[tokio::test]
    async fn nothing_goes_while_it_cannot_be_read_what_an_image_has() {
        let folder = tempfile::tempdir().unwrap();
        let (registry, wanted) = (TestRegistry::default(), package("wanted"));
        registry.add_package("wanted", &wanted);
        registry.add_package("other", &package("other"));
        let store = registry.store(folder.path());
        drop(ensure(&store, "wanted").await);
        drop(ensure(&store, "other").await);
        for blob in [&wanted.manifest, &wanted.config] {
            let (path, bytes) = swap(folder.path(), blob, |path| std::fs::create_dir(path).unwrap());
            assert_eq!((remove_all(&store, &["wanted"]).await, files(folder.path())), (0, 2 * 5 - 1));
            std::fs::remove_dir(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        assert!(remove_all(&store, &["wanted"]).await > 0);
        assert_eq!(files(folder.path()), 5);
        pull(&store, "wanted", PullPolicy::Never).await.unwrap();
        assert_eq!(store.compiled(), 2, "its code stayed, too");
    }

    #[tokio::test]
    async fn an_image_starts_while_it_is_read_what_others_have() {
        let folder = tempfile::tempdir().unwrap();
        let (registry, old) = (TestRegistry::default(), package("old"));
        registry.add_package("old", &old);
        registry.add_package("starts", &package("starts"));
        let store = registry.store(folder.path());
        drop(ensure(&store, "old").await);
        let (path, bytes) = swap(folder.path(), &old.config, fifo);
        let collecting = tokio::spawn({
            let store = store.clone();
            async move { remove_all(&store, &["starts"]).await }
        });
        let mut written = opened(path).await;
        let started = tokio::time::timeout(Duration::from_secs(60), ensure(&store, "starts")).await;
        assert!(started.is_ok() && !collecting.is_finished());
        written.write_all(&bytes).unwrap();
        drop(written);
        assert!(collecting.await.unwrap() > 0);
        assert_eq!((files(folder.path()), here(&store).await), (5, vec![name("starts")]));
    }

    #[tokio::test]
    async fn what_is_unpacked_for_nobody_any_more_is_kept_meanwhile_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let registry = TestRegistry::default();
        registry.add_files("app", &component("app"));
        let store = registry.store(folder.path());
        drop(ensure(&store, "app").await);
        let roots = folder.path().join("roots");
        std::fs::remove_dir_all(&roots).unwrap();
        std::fs::create_dir(&roots).unwrap();
        let blobs = std::fs::read_dir(folder.path().join("blobs")).unwrap().map(|blob| blob.unwrap().path());
        let layer = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let digest = format!("sha256:{}", layer.file_name().unwrap().to_str().unwrap());
        std::fs::remove_file(&layer).unwrap();
        fifo(&layer);
        let starting = tokio::spawn({
            let store = store.clone();
            async move { ensure(&store, "app").await }
        });
        let mut written = opened(layer).await;
        starting.abort();
        assert!(starting.await.unwrap_err().is_cancelled());
        assert!(store.inner.pins.still().await.has(&digest));
        written.write_all(&[0xff; 1024]).unwrap();
        drop(written);
        while store.inner.pins.still().await.has(&digest) {
            tokio::task::yield_now().await;
        }
        assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_has_gone_is_not_present_for_who_never_pulls() {
        let folder = tempfile::tempdir().unwrap();
        let (registry, package) = (TestRegistry::default(), package("gone"));
        registry.add_package("gone", &package);
        let store = registry.store(folder.path());
        drop(ensure(&store, "gone").await);
        for blob in [&package.wasm, &package.manifest] {
            let code = std::fs::read_dir(folder.path().join("compiled")).unwrap();
            code.for_each(|file| std::fs::remove_file(file.unwrap().path()).unwrap());
            swap(folder.path(), blob, |_| {});
            let error = pull(&store, "gone", PullPolicy::Never).await.unwrap_err();
            assert!(matches!(error, ImageError::NeverPull { .. }), "{error}");
        }
    }

    /// A file that can be read as far as it is written meanwhile.
    fn fifo(path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    /// Its end to write into, as soon as somebody reads.
    async fn opened(path: PathBuf) -> std::fs::File {
        let open = move || std::fs::OpenOptions::new().write(true).open(path).unwrap();
        tokio::time::timeout(Duration::from_secs(60), tokio::task::spawn_blocking(open)).await.unwrap().unwrap()
    }
}
