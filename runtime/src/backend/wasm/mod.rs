//! The Wasm backend: pods whose containers are WebAssembly components, in this process.
//!
//! No process, no pause container, no namespace per pod: a server holds a listener and its image; instances come from the
//! engine's pool when requests arrive. One engine, one linker, one outgoing client per process; one pre-instance per image.

mod adapt;
mod artifact;
mod bell;
mod caller;
mod client;
mod command;
mod compiler;
mod engine;
mod exit_code;
mod failure;
mod files;
mod guests;
mod http;
mod instances;
mod life;
mod limits;
mod linker;
mod meter;
mod outgoing;
mod output;
mod patience;
mod requests;
mod room;
mod sockets;
mod state;
mod ticker;
mod weight;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use wasmtime::component::Linker;

pub use self::adapt::{AdaptError, componentize};
pub use self::engine::{Engine, EngineError};
pub use self::guests::GuestRuntime;
use self::instances::Instances;
use self::life::Life;
use self::linker::{Entry, Prepared};
use self::room::Descriptors;
use self::state::{Guest, GuestState};
use self::worker::Bounds;
use super::{Backend, BackendError, Container, ContainerConfig, Difference, Sandbox, SandboxConfig};
use crate::image::ImageKind;

/// The environment as given, and the pod's host name, as container runtimes add it.
fn environment(mut given: BTreeMap<String, String>, hostname: &str) -> Vec<(String, String)> {
    given.entry("HOSTNAME".to_owned()).or_insert_with(|| hostname.to_owned());
    given.into_iter().collect()
}

/// A guest's memory limit where its pod names none.
const DEFAULT_MEMORY: u64 = 512 << 20;

/// Requests that an instance of a 0.3 component serves in its life, and at once; `wherry.dev/instance-reuse` changes the
/// first. A 0.2 component serves one.
const REUSE: usize = 128;
const CONCURRENT: usize = 16;

/// Instances of one container at once; `wherry.dev/max-instances` changes it, up to what its namespace has.
const INSTANCES: usize = 128;

/// Requests of one container that wait for an instance.
const QUEUE: usize = 1024;

/// How long a guest may take until its response's head; `wherry.dev/request-timeout` (seconds) changes it.
const TIMEOUT: usize = 300;

/// Instances per node where there is no pool to bound them.
const ON_DEMAND: usize = 1024;

/// Why the backend cannot start.
#[derive(Debug, thiserror::Error)]
#[error("the host's WASI interfaces cannot be linked")]
pub struct StartError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Runs WebAssembly components.
pub struct WasmBackend {
    engine: Engine,
    guests: GuestRuntime,
    linker: Linker<GuestState>,
    outgoing: Arc<client::Client>,
    favour: meter::Favour,
    /// Instances of servers, and commands, on this node at once: half the pool each.
    instances: Instances,
    commands: Arc<Semaphore>,
    clients: http::Clients,
    /// For guests' own sockets and connections of their outgoing requests, and for connections to their servers.
    sockets: Descriptors,
    connections: Descriptors,
    /// Entries of an instance's table, however small its share of memory is, and however large.
    entries: RangeInclusive<u64>,
}

impl std::fmt::Debug for WasmBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmBackend")
            .field("engine", &self.engine)
            .field("guests", &self.guests)
            .finish_non_exhaustive()
    }
}

impl WasmBackend {
    /// A backend that runs guests on `guests`.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(engine: Engine, guests: GuestRuntime) -> Result<Arc<dyn Backend>, StartError> {
        Ok(Arc::new(Arc::new(Self::with_usual_bounds(engine, guests)?)))
    }

    fn with_usual_bounds(engine: Engine, guests: GuestRuntime) -> Result<Self, StartError> {
        let linker = linker::linker(&engine).map_err(|e| StartError(e.into_boxed_dyn_error()))?;
        let slots = match engine.slots() {
            0 => ON_DEMAND,
            slots => slots as usize,
        };
        let outgoing = Arc::new(client::Client::new(guests.threads().front.clone()));
        Ok(Self {
            engine,
            guests,
            linker,
            outgoing,
            favour: meter::Favour::default(),
            instances: Instances::new(slots / 2),
            commands: Arc::new(Semaphore::new(slots / 2)),
            clients: http::Clients::default(),
            sockets: Descriptors::default(),
            connections: Descriptors::default(),
            entries: state::ENTRIES,
        })
    }

    fn guest(&self, prepared: Arc<Prepared>, sandbox: &SandboxConfig, config: ContainerConfig) -> Guest {
        let memory = config.memory_limit.unwrap_or(DEFAULT_MEMORY);
        Guest {
            engine: self.engine.clone(),
            prepared,
            _image: Arc::clone(&config.image),
            args: arguments(&config),
            env: environment(config.env, &sandbox.hostname),
            working_dir: config.working_dir.or_else(|| config.image.config.working_dir.clone()),
            log: config.log,
            network: Arc::clone(&sandbox.network),
            outgoing: Arc::clone(&self.outgoing),
            usage: limits::Usage::new(memory),
            entries_left: Guest::all_entries(memory),
            sockets: self.sockets.room(&sandbox.namespace, limits::SOCKETS),
            connections: self.connections.room(&sandbox.namespace, self.clients.connections + self.clients.waiting),
            cpu: Arc::default(),
            favour: self.favour.clone(),
            requests: AtomicU64::new(0),
            entries: self.entries.clone(),
        }
    }
}

#[async_trait]
impl Backend for Arc<WasmBackend> {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<dyn Sandbox>, BackendError> {
        Ok(Arc::new(WasmSandbox { backend: Arc::clone(self), config }))
    }
}

/// A pod: nothing but its name and its network.
#[derive(Debug)]
struct WasmSandbox {
    backend: Arc<WasmBackend>,
    config: SandboxConfig,
}

#[async_trait]
impl Sandbox for WasmSandbox {
    async fn create_container(&self, config: ContainerConfig) -> Result<Arc<dyn Container>, BackendError> {
        let backend = &self.backend;
        let image = Arc::clone(&config.image);
        let ImageKind::Wasm(image) = &image.kind else {
            return Err(BackendError::CannotRun("the image is not a WebAssembly component".into()));
        };
        let prepared = linker::prepare(&backend.linker, image)?;
        let life = Arc::new(Life::new(backend.guests.threads().clone()));
        let instances = backend.instances.share(&self.config.namespace);
        let tuning = Tuning::of(&config, &prepared.entry, instances.most)?;
        let (port, server) = (config.http_port, matches!(prepared.entry, Entry::Http { .. }));
        let guest = Arc::new(backend.guest(prepared, &self.config, config));
        if server {
            let pool = worker::Pool::new(Arc::clone(&guest), Arc::clone(&life), tuning.bounds, instances);
            return Ok(Arc::new(http::Server::new(guest, life, pool, port, tuning, backend.clients)));
        }
        let permit = Arc::clone(&backend.commands).try_acquire_owned().map_err(|source| BackendError::Failed {
            message: "this node runs as many commands as its pool of guest memory holds".into(),
            source: Box::new(source),
        })?;
        Ok(Arc::new(command::Command::new(guest, life, permit)))
    }
}

/// `command` replaces the image's entrypoint, and then its `cmd` too; what there is of neither is the container's name.
fn arguments(config: &ContainerConfig) -> Vec<String> {
    let image = &config.image.config;
    let entrypoint = if config.command.is_empty() { &image.entrypoint } else { &config.command };
    let args = if config.args.is_empty() && config.command.is_empty() { &image.cmd } else { &config.args };
    let mut all: Vec<String> = entrypoint.clone();
    if all.is_empty() {
        all.push(config.name.clone());
    }
    all.extend(args.iter().cloned());
    all
}

/// What a Pod's annotations change about how its guests run.
#[derive(Debug)]
struct Tuning {
    bounds: Bounds,
    timeout: Duration,
    /// What they ask for and cannot have.
    differs: Option<Difference>,
}

impl Tuning {
    /// `most`: instances that the container's namespace may have.
    fn of(config: &ContainerConfig, entry: &Entry, most: usize) -> Result<Self, BackendError> {
        let reusable = matches!(entry, Entry::Http { reusable: true, .. });
        let (reuse, concurrent) = if reusable { (REUSE, CONCURRENT) } else { (1, 1) };
        let number = |key: &str, default: usize| match config.annotations.get(key) {
            None => Ok(default),
            Some(text) => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                BackendError::CannotRun(format!("annotation {key}: {text:?} is not a number greater than 0"))
            }),
        };
        let reuse = number("wherry.dev/instance-reuse", reuse)?;
        let instances = number("wherry.dev/max-instances", INSTANCES.min(most))?;
        Ok(Self {
            bounds: Bounds { reuse, concurrent: concurrent.min(reuse), instances: instances.min(most), queue: QUEUE },
            timeout: Duration::from_secs(number("wherry.dev/request-timeout", TIMEOUT)? as u64),
            differs: (instances > most).then_some(Difference::Instances { asked: instances, most }),
        })
    }
}
