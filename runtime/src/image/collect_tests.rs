//! What a collection removes, what it keeps, and who waits for it meanwhile.

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
