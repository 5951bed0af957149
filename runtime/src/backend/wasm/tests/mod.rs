//! Real components in the backend: what a pod's containers do and what becomes of them.

mod command;
mod files;
mod http;
mod instances;
mod service;
pub(super) mod sockets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{Engine, GuestRuntime, WasmBackend, componentize};
use crate::backend::{
    Backend, BackendError, Container, ContainerConfig, Exit, LogSink, Sandbox, SandboxConfig, Stream,
};
use crate::image::{Image, ImageConfig, ImageKind, WasmImage};
use crate::network::PodNetwork;
use crate::network::local::testing::Lone;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("took longer than the deadline")
}

/// A log that keeps what it gets, as long as it has permits for it.
#[derive(Debug)]
struct Log {
    text: Mutex<(String, String)>,
    room: Semaphore,
}

impl Log {
    fn new() -> Arc<Self> {
        Self::with_room(Semaphore::MAX_PERMITS)
    }

    fn with_room(writes: usize) -> Arc<Self> {
        Arc::new(Self { text: Mutex::default(), room: Semaphore::new(writes) })
    }

    fn stdout(&self) -> String {
        self.text.lock().0.clone()
    }

    fn stderr(&self) -> String {
        self.text.lock().1.clone()
    }
}

#[async_trait::async_trait]
impl LogSink for Log {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        self.room.acquire().await.unwrap().forget();
        let mut text = self.text.lock();
        let text = match stream {
            Stream::Stdout => &mut text.0,
            Stream::Stderr => &mut text.1,
        };
        text.push_str(&String::from_utf8_lossy(&bytes));
    }

    async fn line(&self, stream: Stream, text: &str) {
        self.write(stream, Bytes::from(format!("{text}\n"))).await;
    }
}

/// A node with its network and pods.
struct Node {
    engine: Engine,
    backend: Arc<dyn Backend>,
    network: Lone,
    scratch: tempfile::TempDir,
}

/// A pod of a node.
struct Pod {
    sandbox: Arc<dyn Sandbox>,
    network: Arc<PodNetwork>,
}

impl Node {
    fn new() -> Self {
        Self::bounded(|_| ())
    }

    /// A node with other bounds than the usual ones.
    fn bounded(change: impl FnOnce(&mut WasmBackend)) -> Self {
        let engine = Engine::new().unwrap();
        let mut backend =
            WasmBackend::with_usual_bounds(engine.clone(), GuestRuntime::new(&engine, 2).unwrap()).unwrap();
        change(&mut backend);
        let backend = Arc::new(Arc::new(backend));
        Self { engine, backend, network: Lone::new(), scratch: tempfile::tempdir().unwrap() }
    }

    /// One of the prebuilt example components.
    fn example(&self, name: &str) -> Arc<Image> {
        static COMPILED: OnceLock<Mutex<BTreeMap<String, Vec<u8>>>> = OnceLock::new();
        let mut compiled = COMPILED.get_or_init(Mutex::default).lock();
        let code = compiled.entry(name.to_owned()).or_insert_with(|| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples-wasm/prebuilt/{name}.wasm"));
            self.engine.compile(&componentize(&std::fs::read(path).unwrap()).unwrap()).unwrap()
        });
        self.load(name, code)
    }

    /// A component or module as text.
    fn image(&self, wat: &str) -> Arc<Image> {
        let wasm = componentize(&wat::parse_str(wat).unwrap()).unwrap();
        self.load("inline", &self.engine.compile(&wasm).unwrap())
    }

    fn load(&self, name: &str, code: &[u8]) -> Arc<Image> {
        let path = self.scratch.path().join(name);
        // What is there may be mapped: it is not written over.
        let new = path.with_extension("new");
        std::fs::write(&new, code).unwrap();
        std::fs::rename(&new, &path).unwrap();
        Arc::new(Image {
            reference: name.to_owned(),
            id: name.to_owned(),
            kind: ImageKind::Wasm(Arc::new(WasmImage {
                digest: name.to_owned(),
                component: self.engine.load(&path).unwrap(),
                root: None,
                prepared: OnceLock::new(),
            })),
            config: ImageConfig::default(),
            size: 0,
        })
    }

    async fn pod(&self, name: &str) -> Pod {
        let network = self.network.pod(name);
        let config = SandboxConfig {
            namespace: "default".into(),
            name: name.into(),
            uid: name.into(),
            hostname: name.into(),
            network: Arc::clone(&network),
        };
        Pod { sandbox: self.backend.run_sandbox(config).await.unwrap(), network }
    }

    fn config(&self, image: &Arc<Image>, log: &Arc<Log>) -> ContainerConfig {
        ContainerConfig {
            name: "main".into(),
            attempt: 0,
            image: Arc::clone(image),
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            memory_limit: None,
            cpu_limit: None,
            http_port: 8080,
            log: Arc::clone(log) as Arc<dyn LogSink>,
            stdin: false,
            annotations: BTreeMap::new(),
            scratch: self.scratch.path().to_owned(),
        }
    }
}

impl Pod {
    async fn start(&self, config: ContainerConfig) -> Result<Arc<dyn Container>, BackendError> {
        let container = self.sandbox.create_container(config).await?;
        soon(container.start()).await?;
        Ok(container)
    }

    /// Where the pod's port is on this host.
    fn at(&self, port: u16) -> SocketAddr {
        let address = SocketAddr::from((self.network.address(), port));
        self.network.connect(crate::network::Protocol::Tcp, address).unwrap().destination
    }
}

/// Waits until a guest of the container ran: whoever asks from here on comes after who asked before.
async fn ran(container: &dyn Container) {
    while container.stats().cpu == Duration::ZERO {
        tokio::task::yield_now().await;
    }
}

/// Waits until the container was asked so often.
async fn asked(container: &dyn Container, count: u64) {
    while container.stats().requests < count {
        tokio::task::yield_now().await;
    }
}

/// One request on a connection of its own: status and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, "GET", path).await
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(head, body)| unchunked(head, body)).unwrap_or_default();
    (status, body)
}

fn unchunked(head: &str, body: &str) -> String {
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut rest = body;
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = after.get(..size) else { break };
        whole.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    whole
}
