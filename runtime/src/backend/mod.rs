//! The runtime boundary, shaped like CRI: sandboxes, containers, their ends, their statistics.
//!
//! A backend runs containers and knows no Kubernetes objects; the pod worker turns a Pod into these calls. Both Wasm (in
//! process) and Docker (later) implement [`Backend`], and a pod may have containers of both in one sandbox's network.

pub mod wasm;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::image::Image;
use crate::network::PodNetwork;

/// A pod's identity and what its containers share.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub hostname: String,
    /// The pod's address, private localhost, names and Services.
    pub network: Arc<PodNetwork>,
}

/// One container to create in a sandbox.
#[derive(Clone, Debug)]
pub struct ContainerConfig {
    pub name: String,
    /// How often it was restarted before.
    pub attempt: u32,
    pub image: Arc<Image>,
    /// Replaces the image's entrypoint, if given (`command` of the Pod).
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// The whole environment, expanded.
    pub env: BTreeMap<String, String>,
    pub working_dir: Option<String>,
    /// Bytes; `None`: the node's default for guests.
    pub memory_limit: Option<u64>,
    /// Thousandths of a CPU. Accounted, not yet enforced.
    pub cpu_limit: Option<u64>,
    /// Where a `wasi:http` component is served: the port named `http`, else the first containerPort, else 8080.
    pub http_port: u16,
    /// Where its output goes.
    pub log: Arc<dyn LogSink>,
    /// Whether stdin stays open; not yet attached to anything.
    pub stdin: bool,
    /// The Pod's annotations under `wherry.dev/`, by which a guest's execution is tuned.
    pub annotations: BTreeMap<String, String>,
    /// A folder that belongs to this container while it exists.
    pub scratch: PathBuf,
}

/// Which of a container's output streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Receives a container's output. Must not block: it buffers within a bound and drops nothing silently.
#[async_trait]
pub trait LogSink: Send + Sync + fmt::Debug {
    /// Takes bytes as the container wrote them; returns when there is room for more (backpressure on the guest).
    async fn write(&self, stream: Stream, bytes: bytes::Bytes);

    /// Takes a line of the host's: it has a line of its own, also after one that the container did not end.
    async fn line(&self, stream: Stream, text: &str);
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    /// Kubernetes' reason: `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, …
    pub reason: String,
    /// What a person needs: the trap, the missing import, the limit that was hit.
    pub message: String,
    pub finished_at: Timestamp,
}

/// A created container. Dropping it kills it.
#[async_trait]
pub trait Container: Send + Sync + fmt::Debug {
    /// Starts it; returns once it runs (a server listens, a command has been entered).
    async fn start(&self) -> Result<Started, BackendError>;

    /// Waits for the end. May be called by several.
    async fn wait(&self) -> Exit;

    /// Takes nothing more from outside of the node, and returns when nothing that came from there is under way. Guests of this
    /// node are answered on, so that what they have under way can end: several containers are drained together before any
    /// of them is stopped.
    async fn drain(&self) {}

    /// Asks it to end: no new requests, those under way may finish within `grace`; then it is killed. Returns when it has ended.
    async fn stop(&self, grace: Duration) -> Exit;

    fn stats(&self) -> Stats;
}

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub at: Timestamp,
    pub differs: Vec<Difference>,
}

/// What a container asked for and has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A port that its server could not have: it is served on another, which guests and Services of this node find by this one.
    Port(SocketAddr),
    /// More instances at once than its namespace may have.
    Instances { asked: usize, most: usize },
}

impl Started {
    /// Started now, with all that it asked for.
    pub fn now() -> Self {
        Self { at: Timestamp::now(), differs: Vec::new() }
    }
}

/// A container's use of the machine since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: Duration,
    /// Bytes of linear memory and what the host holds for the guest, now.
    pub memory_bytes: u64,
    pub requests: u64,
}

/// Why a backend call failed; `reason` and the message become a container's waiting state and an event.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The image cannot run here: not a component this host can serve; names the import nobody provides.
    #[error("{0}")]
    CannotRun(String),
    /// An address or port could not be had.
    #[error("{0}")]
    Network(String),
    #[error("{message}")]
    Failed {
        message: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Runs containers.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// `wasm` or `docker`, as shown in `containerID` (`wasm://…`) and the node's runtime version.
    fn name(&self) -> &'static str;

    fn version(&self) -> String;

    /// Makes what a pod's containers share.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<dyn Sandbox>, BackendError>;
}

/// A pod's place in a backend. Dropping it releases everything.
#[async_trait]
pub trait Sandbox: Send + Sync + fmt::Debug {
    async fn create_container(&self, config: ContainerConfig) -> Result<Arc<dyn Container>, BackendError>;
}
