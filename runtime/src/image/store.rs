//! The node's image store: resolves a reference, pulls what is missing, verifies, unpacks, compiles, and keeps it all so
//! that a node that starts without a network runs its pods from its own disk.
//!
//! Below its folder: `blobs/` by digest, `references/` (which manifest a reference meant when it was last pulled, and for
//! whom), `roots/` (unpacked Docker-style images), `compiled/`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use oci_distribution::Reference;
use oci_distribution::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::blobs::{BlobError, Blobs};
use super::credentials::{Credentials, PullSecret};
use super::joined::UnderWay;
use super::known::{GivenTo, Known, KnownImages};
use super::manifest::{self, Form, ManifestError, size, total};
use super::pins::{Pinned, Pins};
use super::precompile::{PrecompileError, Precompiler};
use super::source::{Cluster, Registry, Source, SourceError};
use super::turns::Turns;
use super::unpack::{self, UnpackError};
use super::{
    Image, ImageConfig, ImageError, ImageKind, ImageSummary, Images, PullPolicy, PullRequest, Unused, WasmImage,
    reference, roots,
};
use crate::backend::wasm::Engine;
use crate::fault;

/// Blobs of one image that are fetched at once.
const BLOBS_AT_ONCE: usize = 4;
/// Bytes of a component at most, which is read into memory and compiled. One that brings an interpreter of Python or JavaScript
/// has 20 MB.
const LARGEST_COMPONENT: u64 = 128 << 20;

/// Bytes of an image's config at most.
const LARGEST_CONFIG: u64 = 4 * 1024 * 1024;

/// Why an image is not ready; becomes an [`ImageError`] with the reference's name.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Precompile(#[from] PrecompileError),
    #[error("the image's entrypoint does not name a .wasm file in it (entrypoint {0:?})")]
    Entrypoint(Vec<String>),
    #[error(transparent)]
    Credentials(#[from] super::credentials::CredentialsError),
    #[error("{path} cannot be read or written")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the image's config is larger than {LARGEST_CONFIG} bytes")]
    Config,
    #[error("the image's layers are larger than the {} bytes that it may unpack to", unpack::LARGEST_ROOT)]
    Layers,
    #[error("a part of the image is not on the node's disk")]
    Missing,
    #[error("the pull was interrupted")]
    Interrupted,
}

impl StoreError {
    /// Whether the image is here but cannot be used, rather than not here.
    fn is_about_content(&self) -> bool {
        use StoreError as E;
        matches!(self, E::Manifest(_) | E::Unpack(_) | E::Precompile(_) | E::Entrypoint(_) | E::Config | E::Layers)
    }
}

/// Refuses a component that is too large to be read and compiled.
pub(super) fn fits(bytes: u64) -> Result<(), PrecompileError> {
    if bytes > LARGEST_COMPONENT {
        let message =
            format!("the component is larger than the {} MiB that this node compiles", LARGEST_COMPONENT >> 20);
        return Err(PrecompileError::Rejected(message));
    }
    Ok(())
}

pub(super) struct Inner {
    pub(super) folder: PathBuf,
    pub(super) blobs: Blobs,
    pub(super) precompiler: Precompiler,
    client: kube::Client,
    /// Components in use, by digest: one per image however many pods run it.
    loaded: Mutex<HashMap<String, Weak<WasmImage>>>,
    /// Held while a namespace loads or compiles a component: a thousand pods that start at once load it once. None waits for
    /// another namespace, which may have much to compile before.
    loading: Turns,
    /// Held while an image is unpacked.
    unpacking: Turns,
    pub(super) pins: Arc<Pins>,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    pub(super) inner: Arc<Inner>,
    fetching: UnderWay<PullKey, Fetched>,
    /// Pulls, each for a namespace.
    pulling: UnderWay<(String, PullKey), Image>,
    pub(super) known: KnownImages,
}

/// What a registry gave of an image.
struct Fetched {
    digest: String,
    manifest: OciImageManifest,
    size: u64,
    given_to: GivenTo,
    pins: Pinned,
}

/// Two requests are one to the registry only if they would send the same credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PullKey {
    reference: String,
    always: bool,
    secrets: Vec<PullSecret>,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore").field("folder", &self.inner.folder).finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens the store below `folder`. `client` reaches the cluster's own registry.
    pub fn open(folder: PathBuf, engine: Engine, client: kube::Client) -> std::io::Result<Self> {
        let blobs = Blobs::open(folder.join("blobs"))?;
        let precompiler = Precompiler::open(engine, folder.join("compiled"))?;
        let known = KnownImages::open(folder.join("references"))?;
        roots::open(&folder.join("roots"))?;
        let (loaded, loading, unpacking, pins) = Default::default();
        let inner = Arc::new(Inner { folder, blobs, precompiler, client, loaded, loading, unpacking, pins });
        let (fetching, pulling) = Default::default();
        Ok(Self { inner, fetching, pulling, known })
    }

    /// How many components were compiled since the start.
    pub fn compiled(&self) -> u64 {
        self.inner.precompiler.compiled()
    }

    /// What is here of a reference that the pod may use: with `Always`, a tag means what the registry says now.
    fn usable(&self, request: &PullRequest, reference: &Reference) -> Option<Known> {
        if request.policy == PullPolicy::Always && reference.digest().is_none() {
            return None;
        }
        // A pull will say what is wrong with a Secret.
        let logins = Credentials::of_secrets(&request.secrets).map(|all| all.matching(reference)).unwrap_or_default();
        self.known.get(reference).filter(|known| known.given_to.allows(reference, &logins))
    }

    /// The image as it is on disk.
    async fn local(&self, asked: &PullRequest, name: &Reference, known: &Known) -> Result<Arc<Image>, StoreError> {
        let mut pins = self.inner.pins.begin();
        pins.add([known.manifest.as_str()]).await;
        let bytes = self.inner.blobs.read(&known.manifest).await?.ok_or(StoreError::Missing)?;
        let OciManifest::Image(manifest) = manifest::parse(&bytes)? else { return Err(StoreError::Missing) };
        pins.add(manifest::blobs(&manifest).map(|blob| blob.digest.as_str())).await;
        self.inner.prepare(asked, name, &known.manifest, &manifest, &mut pins).await.map(Arc::new)
    }

    async fn fetch(&self, request: &PullRequest, reference: &Reference) -> Result<Fetched, StoreError> {
        let mut pins = self.inner.pins.begin();
        let source = self.inner.source(request, reference)?;
        let (digest, manifest) = self.inner.resolve(source.as_ref(), reference, &mut pins).await?;
        let size = self.inner.fetch_all(source.as_ref(), reference, &manifest, &mut pins).await?;
        let given_to = source.given_to(reference).await;
        Ok(Fetched { digest, manifest, size, given_to, pins })
    }

    /// Makes ready what is fetched, and remembers it.
    async fn pulled(
        &self,
        request: &PullRequest,
        reference: &Reference,
        fetched: &Fetched,
    ) -> Result<Image, StoreError> {
        let Fetched { digest, manifest, size, given_to, pins } = fetched;
        let image = self.inner.prepare(request, reference, digest, manifest, &mut pins.clone()).await?;
        let (size, given_to, last_used) = (*size, given_to.clone(), Instant::now());
        let (reference, manifest) = (reference.whole(), digest.clone());
        self.known.remember(Known { reference, manifest, size, given_to, last_used }).await?;
        Ok(image)
    }

    /// Joins a pull of the same thing that is under way, or starts one. It goes on when nobody waits any more: the next
    /// attempt finds its blobs. What is fetched is fetched once for all namespaces.
    async fn pull(&self, request: &PullRequest, reference: Reference) -> Result<Arc<Image>, Arc<StoreError>> {
        let key = PullKey {
            reference: request.reference.clone(),
            always: request.policy == PullPolicy::Always,
            secrets: request.secrets.clone(),
        };
        let (store, namespace, request, of_all) =
            (self.clone(), request.namespace.clone(), request.clone(), key.clone());
        let pull = async move {
            let (all, asked, name) = (store.clone(), request.clone(), reference.clone());
            let fetch = async move { all.fetch(&asked, &name).await.map(Arc::new).map_err(Arc::new) };
            let fetched = store.fetching.join(of_all, fetch).await?;
            store.pulled(&request, &reference, &fetched).await.map(Arc::new).map_err(Arc::new)
        };
        self.pulling.join((namespace, key), pull).await
    }
}

impl Inner {
    fn source(&self, request: &PullRequest, reference: &Reference) -> Result<Box<dyn Source>, StoreError> {
        if reference::is_cluster(reference) {
            return Ok(Box::new(Cluster::new(self.client.clone())));
        }
        Ok(Box::new(Registry::new(Credentials::of_secrets(&request.secrets)?)))
    }

    /// The manifest for this machine, verified and stored.
    async fn resolve(
        &self,
        source: &dyn Source,
        reference: &Reference,
        pins: &mut Pinned,
    ) -> Result<(String, OciImageManifest), StoreError> {
        let bytes = source.manifest(reference).await?;
        let digest = self.verified(reference.digest(), bytes.clone(), pins).await?;
        match manifest::parse(&bytes)? {
            OciManifest::Image(manifest) => Ok((digest, manifest)),
            OciManifest::ImageIndex(index) => {
                let chosen = manifest::choose(&index)?;
                let bytes = source.manifest(&reference.clone_with_digest(chosen.clone())).await?;
                let digest = self.verified(Some(&chosen), bytes.clone(), pins).await?;
                match manifest::parse(&bytes)? {
                    OciManifest::Image(manifest) => Ok((digest, manifest)),
                    OciManifest::ImageIndex(_) => {
                        Err(ManifestError::Platform("an image".into(), "a nested index".into()).into())
                    }
                }
            }
        }
    }

    async fn verified(&self, expected: Option<&str>, bytes: Bytes, pins: &mut Pinned) -> Result<String, StoreError> {
        let actual = super::blobs::digest_of(&bytes);
        match expected {
            Some(expected) if expected != actual => {
                Err(BlobError::Digest { expected: expected.to_owned(), actual }.into())
            }
            _ => {
                pins.add([actual.as_str()]).await;
                Ok(self.blobs.put(bytes).await?)
            }
        }
    }

    /// Fetches what is missing of a manifest's blobs, and nothing of what would be too large to use; returns the image's size.
    /// Layers of native images are Docker's to fetch.
    async fn fetch_all(
        &self,
        source: &dyn Source,
        reference: &Reference,
        manifest: &OciImageManifest,
        pins: &mut Pinned,
    ) -> Result<u64, StoreError> {
        pins.add(manifest::blobs(manifest).map(|blob| blob.digest.as_str())).await;
        if size(&manifest.config) > LARGEST_CONFIG {
            return Err(StoreError::Config);
        }
        if manifest::is_artifact(manifest) {
            fits(total(&manifest.layers))?;
        }
        self.fetch(source, reference, &manifest.config).await?;
        let config = self.config(manifest).await?;
        let layers: &[OciDescriptor] = match manifest::form(manifest, &config)? {
            Form::Native { .. } => &[],
            Form::Artifact { .. } | Form::Files { .. } => &manifest.layers,
        };
        if total(layers) > unpack::LARGEST_ROOT {
            return Err(StoreError::Layers);
        }
        let mut fetches = Vec::with_capacity(layers.len());
        for layer in layers {
            fetches.push(self.fetch(source, reference, layer).boxed());
        }
        let fetched: Vec<Result<(), StoreError>> =
            futures::stream::iter(fetches).buffer_unordered(BLOBS_AT_ONCE).collect().await;
        fetched.into_iter().collect::<Result<(), _>>()?;
        Ok(total([&manifest.config].into_iter().chain(layers)))
    }

    async fn fetch(&self, source: &dyn Source, reference: &Reference, blob: &OciDescriptor) -> Result<(), StoreError> {
        if self.blobs.has(&blob.digest) {
            return Ok(());
        }
        let stream = source.blob(reference, blob).await?;
        Ok(self.blobs.fetch(&blob.digest, size(blob), stream).await?)
    }

    pub(super) async fn config(&self, manifest: &OciImageManifest) -> Result<Vec<u8>, StoreError> {
        if size(&manifest.config) > LARGEST_CONFIG {
            return Err(StoreError::Config);
        }
        self.read(&manifest.config.digest).await
    }

    /// A blob that must be here. A damaged one is discarded, so that the next attempt fetches it again.
    pub(super) async fn read(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        let read = self.blobs.read(digest).await;
        if matches!(read, Err(BlobError::Digest { .. })) {
            self.blobs.discard(digest).await;
        }
        read?.ok_or(StoreError::Missing)
    }

    /// Makes an image in hand of what is on disk.
    async fn prepare(
        &self,
        request: &PullRequest,
        reference: &Reference,
        digest: &str,
        manifest: &OciImageManifest,
        pins: &mut Pinned,
    ) -> Result<Image, StoreError> {
        let config = self.config(manifest).await?;
        let namespace = &request.namespace;
        let (kind, config) = match manifest::form(manifest, &config)? {
            Form::Artifact { layer } => {
                (ImageKind::Wasm(self.artifact(namespace, &layer).await?), ImageConfig::default())
            }
            Form::Files { layers, config } => {
                (ImageKind::Wasm(self.files(namespace, digest, &layers, &config, pins).await?), config)
            }
            Form::Native { config } => (ImageKind::Native, config),
        };
        let (reference, id) = (request.reference.clone(), reference::pinned(reference, digest));
        Ok(Image { reference, id, kind, config, size: total(&manifest.layers) })
    }

    pub(super) fn in_use(&self, digest: &str) -> Option<Arc<WasmImage>> {
        self.loaded.lock().get(digest).and_then(Weak::upgrade)
    }

    /// Keeps one `WasmImage` per digest even when two pulls end at once.
    fn share(&self, image: WasmImage) -> Arc<WasmImage> {
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, image| image.strong_count() > 0);
        if let Some(first) = loaded.get(&image.digest).and_then(Weak::upgrade) {
            return first;
        }
        let image = Arc::new(image);
        loaded.insert(image.digest.clone(), Arc::downgrade(&image));
        image
    }

    async fn artifact(&self, namespace: &str, layer: &OciDescriptor) -> Result<Arc<WasmImage>, StoreError> {
        let turn = self.loading.of(&format!("{namespace}/{}", layer.digest));
        let _turn = turn.lock().await;
        if let Some(image) = self.in_use(&layer.digest) {
            return Ok(image);
        }
        let bytes = async {
            fits(size(layer))?;
            match self.read(&layer.digest).await {
                Err(error @ StoreError::Blob(_)) => Err(PrecompileError::Rejected(error.to_string()).into()),
                read => read,
            }
        };
        let component = self.precompiler.component(namespace, &layer.digest, bytes).await?;
        Ok(self.share(WasmImage { digest: layer.digest.clone(), component, root: None, prepared: OnceLock::new() }))
    }

    async fn files(
        &self,
        namespace: &str,
        digest: &str,
        layers: &[OciDescriptor],
        config: &ImageConfig,
        pins: &mut Pinned,
    ) -> Result<Arc<WasmImage>, StoreError> {
        let turn = self.loading.of(&format!("{namespace}/{digest}"));
        let _turn = turn.lock().await;
        if let Some(image) = self.in_use(digest) {
            return Ok(image);
        }
        let root = {
            let turn = self.unpacking.of(digest);
            let _turn = turn.lock().await;
            self.root(digest, layers, pins).await?
        };
        let noted = self.component(digest, config).await?;
        pins.add([noted.as_str()]).await;
        let wasm = async {
            let (actual, wasm) = self.wasm(digest, config).await?;
            // The note is right now.
            if actual == noted {
                Ok::<_, StoreError>(wasm)
            } else {
                Err(BlobError::Digest { expected: noted.clone(), actual }.into())
            }
        };
        let component = self.precompiler.component(namespace, &noted, wasm).await?;
        Ok(self.share(WasmImage { digest: digest.to_owned(), component, root: Some(root), prepared: OnceLock::new() }))
    }
}

#[async_trait]
impl Images for ImageStore {
    async fn ensure(&self, request: PullRequest) -> Result<Arc<Image>, ImageError> {
        let reference = reference::parse(&request.reference).map_err(|error| ImageError::InvalidName {
            reference: request.reference.clone(),
            message: error.to_string(),
        })?;
        if let Some(known) = self.usable(&request, &reference) {
            match self.local(&request, &reference, &known).await {
                Ok(image) => {
                    self.known.touch(&reference);
                    return Ok(image);
                }
                // It went while the node's disk was full.
                Err(StoreError::Missing) if request.policy == PullPolicy::Never => {}
                Err(error) if request.policy == PullPolicy::Never => return Err(report(&request, Arc::new(error))),
                Err(error) => {
                    tracing::warn!(%error, image = request.reference, "the image on disk cannot be used; pulling it again");
                }
            }
        }
        if request.policy == PullPolicy::Never {
            return Err(ImageError::NeverPull { reference: request.reference });
        }
        self.pull(&request, reference).await.map_err(|error| report(&request, error))
    }

    async fn present(&self, request: &PullRequest) -> bool {
        request.policy != PullPolicy::Always
            && reference::parse(&request.reference).is_ok_and(|reference| self.usable(request, &reference).is_some())
    }

    async fn list(&self) -> Vec<ImageSummary> {
        let mut images: HashMap<String, ImageSummary> = HashMap::new();
        for known in self.known.all() {
            let Ok(reference) = reference::parse(&known.reference) else { continue };
            let pinned = reference::pinned(&reference, &known.manifest);
            let summary = images
                .entry(known.manifest.clone())
                .or_insert_with(|| ImageSummary { names: Vec::new(), size: known.size });
            for name in [pinned, known.reference.clone()] {
                if !summary.names.contains(&name) {
                    summary.names.push(name);
                }
            }
        }
        images.into_values().collect()
    }

    async fn remove_unused(&self, unused: Unused) -> u64 {
        self.collect(&unused).await
    }
}

fn report(request: &PullRequest, error: Arc<StoreError>) -> ImageError {
    let (reference, message) = (request.reference.clone(), fault::with_causes(error.as_ref()));
    let content = error.is_about_content();
    let source: Option<Box<dyn std::error::Error + Send + Sync>> = Some(Box::new(error));
    if content {
        ImageError::Inspect { reference, message, source }
    } else {
        ImageError::Pull { reference, message, source }
    }
}
