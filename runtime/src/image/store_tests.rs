//! What the store refuses to fetch, and what it finds when it is opened.

use bytes::Bytes;
use serde_json::{Value, json};

use super::package::Package;
use super::store::ImageStore;
use super::testing::{TestRegistry, component, descriptor, files, pull, pull_for};
use super::{ImageError, PullPolicy, manifest};
use crate::backend::wasm::Engine;

/// Pulls an image whose config and layers are said to be of these sizes; the error, and whether its layer was asked for.
async fn refused(config: (&str, &[u8], u64), layers: (&str, &[u64])) -> (String, bool) {
    let folder = tempfile::tempdir().unwrap();
    let (registry, layer) = (TestRegistry::default(), Bytes::from(component("large")));
    let sized = |media_type: &str, blob: &[u8], size: u64| {
        let mut descriptor = descriptor(media_type, blob);
        descriptor["size"] = json!(size);
        descriptor
    };
    let (kind, bytes, size) = config;
    let layers: Vec<Value> = layers.1.iter().map(|size| sized(layers.0, &layer, *size)).collect();
    let manifest = json!({"schemaVersion": 2, "config": sized(kind, bytes, size), "layers": layers});
    registry.add("large", manifest.to_string(), [Bytes::copy_from_slice(bytes), layer.clone()]);
    let error = pull(&registry.store(folder.path()), "large", PullPolicy::IfNotPresent).await.unwrap_err();
    assert!(matches!(error, ImageError::Inspect { .. }), "{error}");
    assert!(files(folder.path()) <= 2, "the manifest, and a config that is small");
    (error.to_string(), registry.was_asked_for(&layer) || (size > 4 << 20 && registry.was_asked_for(bytes)))
}

#[tokio::test]
async fn nothing_is_fetched_of_an_image_that_says_to_be_too_large() {
    const OCI: &str = "application/vnd.oci.image.config.v1+json";
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    let wasi: &[u8] = br#"{"os":"wasi","architecture":"wasm"}"#;
    let most = i64::MAX as u64;
    let small = wasi.len() as u64;
    let cases = [
        ((OCI, wasi, most), (TAR, &[1][..]), "the image's config is larger than 4194304 bytes"),
        ((manifest::WASM_CONFIG, wasi, small), (manifest::WASM_LAYER, &[most][..]), "larger than the 128 MiB"),
        ((OCI, wasi, small), (TAR, &[most, most, most][..]), "layers are larger than the 4294967296 bytes"),
    ];
    for (config, layers, told) in cases {
        let (error, asked) = refused(config, layers).await;
        assert!(error.contains(told) && !asked, "{error}, {asked}");
    }
}

#[tokio::test]
async fn what_was_not_unpacked_to_its_end_goes_when_the_store_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("roots/.1f");
    std::fs::create_dir_all(half.join("bin")).unwrap();
    std::fs::write(half.join("bin/app.wasm"), b"half").unwrap();
    let _store = TestRegistry::default().store(folder.path());
    assert!(!half.exists());
}

#[tokio::test]
async fn a_namespace_that_waits_for_the_compiler_holds_up_no_other_and_has_one_component_in_memory() {
    let (folder, registry, engine) = (tempfile::tempdir().unwrap(), TestRegistry::default(), Engine::new().unwrap());
    let names = ["one", "two", "files", "more"];
    for name in names {
        if name == "files" {
            registry.add_files(name, &component(name));
        } else {
            registry.add_package(name, &Package::of(component(name)).unwrap());
        }
    }
    let store = ImageStore::open(folder.path().to_owned(), engine.clone(), registry.client()).unwrap();
    engine.occupy("busy");
    let ask = |name: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { pull_for(&store, "busy", name, PullPolicy::IfNotPresent).await })
    };
    let first = ask("one");
    let all = async {
        while engine.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let others = ["two", "files", "more"].map(ask);
        // Each has a manifest, a config and a layer.
        while files(&folder.path().join("blobs")) < 3 * names.len() {
            tokio::task::yield_now().await;
        }
        assert_eq!(engine.waiting(), 1);
        for name in ["one", "two", "files"] {
            pull_for(&store, "other", name, PullPolicy::IfNotPresent).await.unwrap();
        }
        first.await.unwrap().unwrap();
        assert_eq!(store.compiled(), 3);
        others.iter().for_each(tokio::task::JoinHandle::abort);
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.unwrap();
}
