//! Images: references, pulling by tag and digest, the store on disk, and precompilation.
//!
//! A node keeps an image as verified blobs plus, for Wasm, the precompiled code under digest and engine compatibility
//! hash. An [`Image`] in hand is ready to run: loading it reads no network.

pub mod blobs;
mod challenge;
mod collect;
pub mod credentials;
mod joined;
mod known;
pub mod manifest;
pub mod package;
mod pins;
pub mod precompile;
pub mod reference;
pub mod refusal;
mod roots;
pub mod source;
pub mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod testing;
mod transport;
mod turns;
mod unpack;

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::component::Component;

pub use collect::Unused;

/// An image that is present and ready to run.
#[derive(Debug)]
pub struct Image {
    /// As the Pod wrote it.
    pub reference: String,
    /// `REPOSITORY@sha256:…`, shown as `imageID`.
    pub id: String,
    pub kind: ImageKind,
    /// From the image's config.
    pub config: ImageConfig,
    /// Bytes on disk.
    pub size: u64,
}

/// What runs it.
#[derive(Debug)]
pub enum ImageKind {
    /// A component, shared by all pods of the image. Engine, component and pre-instance exist once per image.
    Wasm(Arc<WasmImage>),
    /// A Linux image: needs the Docker backend.
    Native,
}

/// A compiled component and the file system that its image brings.
pub struct WasmImage {
    pub digest: String,
    pub component: Component,
    /// Files of a Docker-style image, which the guest sees as `/`.
    pub root: Option<std::path::PathBuf>,
    /// What the backend derives once per image (its pre-instance); filled on first use.
    pub prepared: std::sync::OnceLock<Arc<dyn std::any::Any + Send + Sync>>,
}

impl std::fmt::Debug for WasmImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmImage").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The part of an OCI image config that matters to a guest.
#[derive(Clone, Debug, Default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
}

/// When a node asks the registry (`imagePullPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Resolves the reference at the registry at each start; blobs that are here are not fetched again.
    Always,
    IfNotPresent,
    Never,
}

/// What a pod asks of the image store.
#[derive(Clone)]
pub struct PullRequest {
    /// As the Pod wrote it.
    pub reference: String,
    pub policy: PullPolicy,
    /// The pod's `imagePullSecrets` (and its service account's), in order.
    pub secrets: Vec<credentials::PullSecret>,
    /// The pod's namespace, by which the cluster's own registry authorizes.
    pub namespace: String,
}

impl std::fmt::Debug for PullRequest {
    /// Credentials are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullRequest")
            .field("reference", &self.reference)
            .field("policy", &self.policy)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Why an image is not ready to run. The text is for the person who wrote the Pod: it names the image and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference does not parse. Not retried until the Pod changes.
    #[error("Failed to apply default image tag \"{reference}\": couldn't parse image name \"{reference}\": {message}")]
    InvalidName { reference: String, message: String },
    /// `imagePullPolicy: Never` and the image is not here.
    #[error("Container image \"{reference}\" is not present with pull policy of Never")]
    NeverPull { reference: String },
    /// The registry refused, is not there, or what came did not verify. Retried with backoff.
    #[error("failed to pull image \"{reference}\": {message}")]
    Pull {
        reference: String,
        message: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The image is here and cannot be used: damaged, not Wasm, not for this engine. Retried with backoff.
    #[error("failed to inspect image \"{reference}\": {message}")]
    Inspect {
        reference: String,
        message: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl ImageError {
    /// The container's waiting reason at the first failure (later `ImagePullBackOff` while it waits to try again).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::Pull { .. } => "ErrImagePull",
            Self::Inspect { .. } => "ImageInspectError",
        }
    }
}

/// The image store, as pod workers use it.
#[async_trait]
pub trait Images: Send + Sync + std::fmt::Debug {
    /// Makes an image present and ready to run: pulled as the policy says, verified, compiled. Callers that ask for the
    /// same image at once share one pull. Dropping the future gives up waiting.
    async fn ensure(&self, request: PullRequest) -> Result<Arc<Image>, ImageError>;

    /// Whether the image is here, asks nothing of its registry, and is for this pod: an event says "already present on
    /// machine".
    async fn present(&self, request: &PullRequest) -> bool;

    /// The images on disk, for the node's status: names (tag and digest forms) and bytes.
    async fn list(&self) -> Vec<ImageSummary>;

    /// Removes images that nobody uses; returns how many bytes that made free.
    async fn remove_unused(&self, unused: Unused) -> u64;
}

/// One image on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    pub names: Vec<String>,
    pub size: u64,
}
