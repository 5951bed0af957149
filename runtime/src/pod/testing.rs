//! Stand-ins for what surrounds a worker, so that its timing can be told: an API server that records requests, and a
//! backend whose containers end when the test says so.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::backend::{
    BackendError, Container, ContainerConfig, Difference, Exit, Sandbox, SandboxConfig, Started, Stats,
};
use crate::image::{ImageConfig, ImageError, ImageSummary, PullRequest, Unused};
use crate::log::Limits;
use crate::network::local::testing::Lone;
use crate::network::{NetworkError, PodIdentity, PodNetwork};

/// Requests that were made, and what is answered.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<ApiState>>);

#[derive(Default)]
struct ApiState {
    requests: Vec<(Method, String, Value)>,
    objects: HashMap<String, Value>,
    /// Status codes to answer next writes with.
    refuse: Vec<StatusCode>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        // A request takes a moment, as real ones do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let path = parts.uri.path().to_owned();
        let mut state = self.0.lock();
        state.requests.push((parts.method.clone(), path.clone(), serde_json::from_slice(&bytes).unwrap_or_default()));
        let refused = if parts.method == Method::GET { None } else { state.refuse.pop() };
        let found = if parts.method == Method::GET { state.objects.get(&path).cloned() } else { Some(json!({})) };
        let (code, body) = match (refused, found) {
            (Some(code), _) => (code, json!({"kind": "Status", "code": code.as_u16(), "message": "refused"})),
            (None, Some(object)) => (StatusCode::OK, object),
            (None, None) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "reason": "NotFound", "code": 404, "message": "not found"});
                (StatusCode::NOT_FOUND, status)
            }
        };
        Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().objects.insert(path.to_owned(), object);
    }

    pub(crate) fn refuse(&self, codes: &[StatusCode]) {
        self.0.lock().refuse.extend(codes.iter().rev());
    }

    /// The bodies of such requests, oldest first.
    pub(crate) fn sent(&self, method: &Method, path: &str) -> Vec<Value> {
        let state = self.0.lock();
        state.requests.iter().filter(|(m, p, _)| m == method && p == path).map(|(_, _, body)| body.clone()).collect()
    }

    pub(crate) fn count(&self, method: &Method, path: &str) -> usize {
        self.sent(method, path).len()
    }

    /// The statuses that were written to a pod, oldest first.
    pub(crate) fn statuses(&self, pod: &str) -> Vec<Value> {
        let writes = self.sent(&Method::PATCH, &format!("/api/v1/namespaces/default/pods/{pod}/status"));
        writes.into_iter().map(|body| body["status"].clone()).collect()
    }

    pub(crate) fn phases(&self, pod: &str) -> Vec<String> {
        let phases = self.statuses(pod).iter().map(|s| s["phase"].as_str().unwrap_or_default().to_owned()).collect();
        dedup(phases)
    }

    pub(crate) fn deleted(&self, pod: &str) -> bool {
        self.count(&Method::DELETE, &format!("/api/v1/namespaces/default/pods/{pod}")) > 0
    }

    pub(crate) fn events(&self) -> Vec<String> {
        let state = self.0.lock();
        let posted = state.requests.iter().filter(|(m, p, _)| *m == Method::POST && p.ends_with("/events"));
        posted.map(|(_, _, body)| body["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn dedup(mut list: Vec<String>) -> Vec<String> {
    list.dedup();
    list
}

/// A backend that records, and whose containers end when they are told.
#[derive(Debug, Default)]
pub(crate) struct FakeBackend(Arc<Mutex<Vec<Arc<FakeContainer>>>>);

#[derive(Debug)]
pub(crate) struct FakeContainer {
    pub(crate) config: ContainerConfig,
    pod: String,
    exit: watch::Sender<Option<Exit>>,
    pub(crate) stops: Mutex<Vec<Duration>>,
    /// Whether nothing from outside is under way any more.
    pub(crate) drained: watch::Sender<bool>,
    /// Once: who waits for its end fails.
    pub(crate) panics: AtomicBool,
}

impl FakeBackend {
    pub(crate) fn containers(&self) -> Vec<Arc<FakeContainer>> {
        self.0.lock().clone()
    }

    /// The newest container of a pod.
    pub(crate) fn container(&self, pod: &str) -> Option<Arc<FakeContainer>> {
        self.0.lock().iter().rev().find(|container| container.pod == pod).cloned()
    }
}

impl FakeContainer {
    pub(crate) fn end(&self, code: i32) {
        let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
        let exit = Exit { code, reason, message: String::new(), finished_at: Timestamp::now() };
        self.exit.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(exit);
            first
        });
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<Arc<dyn Sandbox>, BackendError> {
        Ok(Arc::new(FakeSandbox { pod: config.name, all: self.0.clone() }))
    }
}

#[derive(Debug)]
struct FakeSandbox {
    pod: String,
    all: Arc<Mutex<Vec<Arc<FakeContainer>>>>,
}

#[async_trait]
impl Sandbox for FakeSandbox {
    async fn create_container(&self, config: ContainerConfig) -> Result<Arc<dyn Container>, BackendError> {
        let (exit, stops) = (watch::channel(None).0, Mutex::default());
        let drained = watch::channel(true).0;
        let (pod, panics) = (self.pod.clone(), AtomicBool::default());
        let container = Arc::new(FakeContainer { config, pod, exit, stops, drained, panics });
        self.all.lock().push(container.clone());
        Ok(Arc::new(Held(container)))
    }
}

/// The worker's reference: the test keeps its own.
#[derive(Debug)]
struct Held(Arc<FakeContainer>);

#[async_trait]
impl Container for Held {
    /// Has one instance, however many are asked for.
    async fn start(&self) -> Result<Started, BackendError> {
        let asked = self.0.config.annotations.get("wherry.dev/max-instances").map(|asked| asked.parse().unwrap());
        let differs = asked.map(|asked| Difference::Instances { asked, most: 1 }).into_iter().collect();
        Ok(Started { differs, ..Started::now() })
    }

    async fn wait(&self) -> Exit {
        let mut ended = self.0.exit.subscribe();
        let exit = ended.wait_for(Option::is_some).await.unwrap().clone();
        assert!(!self.0.panics.swap(false, Ordering::Relaxed), "as the test asked");
        exit.unwrap()
    }

    async fn drain(&self) {
        let mut drained = self.0.drained.subscribe();
        let _ = drained.wait_for(|drained| *drained).await;
    }

    /// Takes all the grace it is given, as a container that ignores SIGTERM.
    async fn stop(&self, grace: Duration) -> Exit {
        self.0.stops.lock().push(grace);
        let _ = tokio::time::timeout(grace, self.wait()).await;
        self.0.end(137);
        self.wait().await
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }
}

/// Every image is there, except those called `slow`, whose pull never ends.
#[derive(Debug)]
struct FakeImages;

#[async_trait]
impl Images for FakeImages {
    async fn ensure(&self, request: PullRequest) -> Result<Arc<Image>, ImageError> {
        if request.reference.starts_with("slow") {
            std::future::pending::<()>().await;
        }
        let id = format!("{}@sha256:0", request.reference);
        let config = ImageConfig::default();
        Ok(Arc::new(Image { reference: request.reference, id, kind: ImageKind::Native, config, size: 1 }))
    }

    async fn present(&self, _request: &PullRequest) -> bool {
        true
    }

    async fn list(&self) -> Vec<ImageSummary> {
        Vec::new()
    }

    async fn remove_unused(&self, _unused: Unused) -> u64 {
        0
    }
}

#[derive(Debug)]
struct FakeNetwork(Lone);

#[async_trait]
impl Network for FakeNetwork {
    async fn attach(&self, pod: PodIdentity, _previous: Option<Ipv4Addr>) -> Result<Arc<PodNetwork>, NetworkError> {
        Ok(self.0.pod(&pod.name))
    }

    fn service_env(&self, _namespace: &str) -> BTreeMap<String, String> {
        [("KUBERNETES_SERVICE_HOST", "127.96.0.1"), ("STORE_SERVICE_HOST", "127.96.0.2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }
}

/// A node's surroundings; their tasks end with it.
pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) backend: Arc<FakeBackend>,
    pub(crate) ctx: Arc<Context>,
    _tasks: tokio::task::JoinSet<()>,
}

impl World {
    pub(crate) fn new(dir: &Path) -> Self {
        let (api, backend) = (FakeApi::default(), Arc::new(FakeBackend::default()));
        let (events, statuses) = (events::Recorder::new("n1"), report::Statuses::default());
        let ctx = Arc::new(Context {
            host: status::Host { address: "127.0.0.1".to_owned() },
            backends: vec![backend.clone()],
            images: Arc::new(FakeImages),
            network: Arc::new(FakeNetwork(Lone::new())),
            references: reference::References::new(api.client()),
            events: events.clone(),
            statuses: statuses.clone(),
            logs: Arc::new(Logs::open_dir(dir, Limits::default()).unwrap()),
            data_dir: dir.to_owned(),
            allocatable: Allocatable { milli_cpu: 2000, memory_bytes: 1 << 30 },
        });
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(events.run(api.client()));
        tasks.spawn(statuses.run(api.client()));
        Self { api, backend, ctx, _tasks: tasks }
    }
}

/// A Pod of one container, changed by `change`.
pub(crate) fn pod(name: &str, policy: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "restartPolicy": policy, "containers": [{"name": "a", "image": "img:1"}]},
    });
    change(&mut pod);
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// Waits for a condition; the deadline is in the (paused) time of the test.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}
