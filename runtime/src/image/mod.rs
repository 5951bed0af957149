//! Images: references, pulling by tag and digest, the store on disk, and precompilation.
//!
//! A node keeps an image as verified blobs plus, for Wasm, the precompiled code under digest and engine compatibility
//! hash. An [`Image`] in hand is ready to run: loading it reads no network.

use std::sync::Arc;

use wasmtime::component::Component;

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
