//! A cluster's registry for tests of the store.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::blobs::digest_of;
use super::package::Package;
use super::store::ImageStore;
use super::{Image, ImageError, Images, PullPolicy, PullRequest};
use crate::backend::wasm::Engine;

/// Answers what it has, and notes what it was asked for.
#[derive(Clone, Default)]
pub(super) struct TestRegistry(Arc<Contents>);

#[derive(Default)]
struct Contents {
    files: Mutex<HashMap<String, Bytes>>,
    asked: Mutex<Vec<String>>,
    /// A digest that is given out as often as there are permits.
    slow: Mutex<Option<(String, Arc<Semaphore>)>>,
}

impl TestRegistry {
    /// An image named `name`, of these blobs.
    pub(super) fn add(&self, name: &str, manifest: impl Into<Bytes>, blobs: impl IntoIterator<Item = Bytes>) {
        let at = |what: &str| format!("/v2/default/{name}/{what}");
        let mut files = self.0.files.lock();
        files.insert(at("manifests/latest"), manifest.into());
        files.extend(blobs.into_iter().map(|blob| (at(&format!("blobs/{}", digest_of(&blob))), blob)));
    }

    pub(super) fn add_package(&self, name: &str, package: &Package) {
        self.add(name, package.manifest.clone(), [package.config.clone(), package.wasm.clone()]);
    }

    /// A Docker-style image whose one layer is an archive of one component.
    pub(super) fn add_files(&self, name: &str, wasm: &[u8]) {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(wasm.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "app.wasm", wasm).unwrap();
        let layer = Bytes::from(archive.into_inner().unwrap());
        let config = json!({"os": "wasi", "architecture": "wasm", "config": {"Entrypoint": ["/app.wasm"]}});
        let config = Bytes::from(config.to_string());
        let manifest = json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        self.add(name, manifest.to_string(), [config, layer]);
    }

    /// Gives a blob out to nobody for now; returns what lets it.
    pub(super) fn hold(&self, blob: &[u8]) -> Arc<Semaphore> {
        let leave = Arc::new(Semaphore::new(0));
        *self.0.slow.lock() = Some((digest_of(blob), Arc::clone(&leave)));
        leave
    }

    /// Whether anybody asked for a blob.
    pub(super) fn was_asked_for(&self, blob: &[u8]) -> bool {
        let digest = digest_of(blob);
        self.0.asked.lock().iter().any(|path| path.ends_with(&digest))
    }

    pub(super) fn client(&self) -> kube::Client {
        let contents = Arc::clone(&self.0);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (contents, path) = (Arc::clone(&contents), request.uri().path().to_owned());
            async move {
                contents.asked.lock().push(path.clone());
                let slow = contents.slow.lock().clone().filter(|(digest, _)| path.ends_with(digest));
                if let Some((_, leave)) = slow {
                    leave.acquire().await.unwrap().forget();
                }
                let found = contents.files.lock().get(&path).cloned();
                let status = if found.is_some() { 200 } else { 404 };
                let body = Body::from(found.unwrap_or_default().to_vec());
                Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    pub(super) fn store(&self, folder: &Path) -> ImageStore {
        ImageStore::open(folder.to_owned(), Engine::new().unwrap(), self.client()).unwrap()
    }
}

/// How a manifest names a blob.
pub(super) fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest_of(blob), "size": blob.len()})
}

/// A component that differs from those of other names.
pub(super) fn component(name: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(component (core module (func (export "{name}"))))"#)).unwrap()
}

/// The name of an image in a pod.
pub(super) fn name(image: &str) -> String {
    format!("wherry.local/default/{image}:latest")
}

pub(super) async fn pull(store: &ImageStore, image: &str, policy: PullPolicy) -> Result<Arc<Image>, ImageError> {
    pull_for(store, "default", image, policy).await
}

pub(super) async fn pull_for(
    store: &ImageStore,
    namespace: &str,
    image: &str,
    policy: PullPolicy,
) -> Result<Arc<Image>, ImageError> {
    let request = PullRequest { reference: name(image), policy, secrets: Vec::new(), namespace: namespace.to_owned() };
    store.ensure(request).await
}

/// How many files there are.
pub(super) fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}
