//! Removing images that no pod of the node needs, when its disk runs full: those that were not used for longest go first.
//!
//! What is removed was whole before: a reference is forgotten first, then what nothing else refers to is deleted. Nobody
//! pulls or loads an image meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_distribution::manifest::OciManifest;
use tokio::time::Instant;

use super::blobs::hex_part;
use super::known::Known;
use super::manifest::{self, Form};
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

/// What an image has on disk.
#[derive(Debug, Default)]
struct Content {
    /// Manifest, config and layers.
    blobs: HashSet<String>,
    /// The digest of its component.
    code: Option<String>,
    root: Option<PathBuf>,
}

/// One image, under all its names.
struct Candidate {
    names: Vec<Known>,
    last_used: Instant,
    content: Content,
}

impl ImageStore {
    /// Removes what is unused until enough is free; returns how many bytes that made. None, if an image is being pulled or
    /// loaded: then it is tried another time.
    pub(super) async fn collect(&self, unused: &Unused) -> u64 {
        let Ok(_alone) = self.inner.in_work.try_write() else { return 0 };
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
                || content.blobs.iter().any(|digest| self.inner.in_use(digest).is_some());
            if stays {
                kept.push(content);
            } else {
                candidates.push(Candidate { names, last_used, content });
            }
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.last_used));
        let mut freed = 0;
        while freed < unused.bytes
            && let Some(Candidate { names, content, .. }) = candidates.pop()
        {
            for known in &names {
                self.known.forget(&known.reference).await;
            }
            let others = || kept.iter().chain(candidates.iter().map(|candidate| &candidate.content));
            freed += self.inner.delete(&content, others).await;
        }
        freed
    }
}

impl Inner {
    /// What an image has on disk, as far as that can be read.
    async fn content(&self, manifest: &str) -> Content {
        let mut content = Content { blobs: [manifest.to_owned()].into(), ..Content::default() };
        let Ok(Some(bytes)) = self.blobs.read(manifest).await else { return content };
        let Ok(OciManifest::Image(image)) = manifest::parse(&bytes) else { return content };
        content.blobs.insert(image.config.digest.clone());
        content.blobs.extend(image.layers.iter().map(|layer| layer.digest.clone()));
        let Ok(config) = self.config(&image).await else { return content };
        match manifest::form(&image, &config) {
            Ok(Form::Artifact { layer }) => content.code = Some(layer.digest),
            Ok(Form::Files { config, .. }) => {
                let root = hex_part(manifest).ok().map(|hex| self.folder.join("roots").join(hex));
                let wasm = root.as_deref().and_then(|root| Self::entry(root, &config).ok());
                if let Some(wasm) = wasm {
                    content.code = tokio::fs::read(wasm).await.ok().map(|wasm| super::blobs::digest_of(&wasm));
                }
                content.root = root;
            }
            Ok(Form::Native { .. }) | Err(_) => {}
        }
        content
    }

    /// Deletes of an image what others do not have as well.
    async fn delete<'a, I: Iterator<Item = &'a Content>>(&self, content: &Content, others: impl Fn() -> I) -> u64 {
        let mut paths = Vec::new();
        for digest in &content.blobs {
            if !others().any(|other| other.blobs.contains(digest)) {
                paths.extend(self.blobs.path(digest).ok());
            }
        }
        if let Some(code) = &content.code
            && !others().any(|other| other.code.as_ref() == Some(code))
        {
            paths.extend(self.precompiler.files(code));
        }
        paths.extend(content.root.clone());
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
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::Arc;

    use bytes::Bytes;
    use kube::client::Body;

    use super::*;
    use crate::backend::wasm::Engine;
    use crate::image::package::Package;
    use crate::image::{Image, Images, PullPolicy, PullRequest};

    /// A client of a cluster's registry that has these images.
    fn registry(images: &[(&str, &Package)]) -> kube::Client {
        let mut files: HashMap<String, Bytes> = HashMap::new();
        for (name, image) in images {
            let at = |what: &str| format!("/v2/default/{name}/{what}");
            let config = crate::image::blobs::digest_of(&image.config);
            let wasm = crate::image::blobs::digest_of(&image.wasm);
            files.insert(at("manifests/latest"), image.manifest.clone());
            files.insert(at(&format!("blobs/{config}")), image.config.clone());
            files.insert(at(&format!("blobs/{wasm}")), image.wasm.clone());
        }
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let found = files.get(request.uri().path()).cloned();
            async move {
                let status = if found.is_some() { 200 } else { 404 };
                let body = Body::from(found.unwrap_or_default().to_vec());
                Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    /// A component that differs from those of other names.
    fn component(name: &str) -> Package {
        let text = format!(r#"(component (core module (func (export "{name}"))))"#);
        Package::of(wat::parse_str(text).unwrap()).unwrap()
    }

    fn name(image: &str) -> String {
        format!("wherry.local/default/{image}:latest")
    }

    async fn ensure(store: &ImageStore, image: &str) -> Arc<Image> {
        let policy = PullPolicy::IfNotPresent;
        let request =
            PullRequest { reference: name(image), policy, secrets: Vec::new(), namespace: "default".to_owned() };
        store.ensure(request).await.unwrap()
    }

    fn files(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
    }

    async fn here(store: &ImageStore) -> Vec<String> {
        let names = store.list().await.into_iter().flat_map(|image| image.names).filter(|name| !name.contains('@'));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_longest_unused_goes_first_and_what_pods_name_or_run_stays() {
        let folder = tempfile::tempdir().unwrap();
        let packages = ["named", "runs", "old", "newer"].map(|name| (name, component(name)));
        let client = registry(&packages.each_ref().map(|(name, package)| (*name, package)));
        let store = ImageStore::open(folder.path().to_owned(), Engine::new().unwrap(), client).unwrap();
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
        let package = component("same");
        let client = registry(&[("one", &package), ("other", &package)]);
        let store = ImageStore::open(folder.path().to_owned(), Engine::new().unwrap(), client).unwrap();
        drop(ensure(&store, "one").await);
        drop(ensure(&store, "other").await);
        let unused = Unused { wanted: [name("one")].into(), bytes: u64::MAX, idle: Duration::ZERO };
        assert_eq!(store.remove_unused(unused).await, 0);
        assert_eq!(ensure(&store, "one").await.reference, name("one"));
    }
}
