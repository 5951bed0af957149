//! A whole control plane in this process, on a store in memory, with nodes whose pods become ready at once.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wherry_api::registry::Registry;
use wherry_control::auth::UserInfo;
use wherry_control::auth::authorize::Chain;
use wherry_control::auth::node::NodeAuthorizer;
use wherry_control::auth::pki::Pki;
use wherry_control::auth::rbac::Rbac;
use wherry_control::cache::Cache;
use wherry_control::client::in_process;
use wherry_control::flow;
use wherry_control::reconcile::{Running, Shared};
use wherry_control::server::health::Health;
use wherry_control::server::metrics::Metrics;
use wherry_control::server::{Config, Server};
use wherry_control::store::redb::RedbStore;
use wherry_control::{controllers, scheduler};

const PATIENCE: Duration = Duration::from_secs(30);
pub const ROOT_CA: &str = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";

pub struct Cluster {
    pub client: Client,
    pub shared: Arc<Shared>,
    pub store: Arc<RedbStore>,
    server: Server,
    running: Vec<Running>,
    kubelet: JoinHandle<()>,
}

impl Cluster {
    /// A control plane with nodes of these names.
    pub async fn start(nodes: &[&str]) -> Self {
        // A failed test shows what the controllers said.
        let _ = tracing_subscriber::fmt().with_test_writer().with_max_level(tracing::Level::INFO).try_init();
        let registry = Registry::builtin();
        let store: Arc<RedbStore> = Arc::new(RedbStore::in_memory().expect("a store"));
        let cache = Cache::start(store.clone(), &registry).await.expect("a cache");
        let authorizer =
            Arc::new(Chain::new(NodeAuthorizer::new(cache.clone(), registry.clone()), Rbac::new(cache.clone())));
        let config = Config {
            service_range: "10.96.0.0/16".parse().expect("a range"),
            not_for_services: Vec::new(),
            node_ports: 30000..=32767,
            advertise: "192.0.2.1:6443".parse().expect("an address"),
            node_tls: None,
            tokens: None,
            front_proxy: None,
            images: None,
            audit: None,
            scratch: None,
            health: Health::new(Vec::new()),
            metrics: Metrics::new(Vec::new()),
            seats: flow::default_seats(),
            flow: flow::Metrics::default(),
        };
        let server = Server::new(registry, store.clone(), cache, authorizer, config).await.expect("a server");
        server.bootstrap().await.expect("the first objects");
        server.bootstrap_roles().await.expect("the default roles");
        server.bootstrap_flow().await.expect("the default flow schemas");
        let client = in_process(Arc::new(server.clone()), UserInfo::admin(), "test");
        for name in nodes {
            register(&client, name).await;
        }
        let shared = Shared::start(in_process(
            Arc::new(server.clone()),
            UserInfo::controller_manager(),
            "kube-controller-manager",
        ));
        let kubelet = kubelet(client.clone(), &shared);
        let authority = tempfile::tempdir().expect("a folder");
        let signer = Pki::open(authority.path()).expect("an authority");
        let config = controllers::Config { signer: Some(signer), ..controllers::Config::new(ROOT_CA.to_owned()) };
        let running = vec![
            controllers::start(shared.clone(), config),
            scheduler::start(
                in_process(Arc::new(server.clone()), UserInfo::scheduler(), "kube-scheduler"),
                shared.clone(),
            ),
        ];
        tokio::time::timeout(PATIENCE, shared.synced()).await.expect("the caches fill");
        let cluster = Self { client, shared, store, server, running, kubelet };
        let accounts = cluster.api::<k8s_openapi::api::core::v1::ServiceAccount>("default");
        eventually("the default service account", || async {
            accounts.get_opt("default").await.ok().flatten().is_some()
        })
        .await;
        cluster
    }

    /// A client that is somebody else.
    pub fn client_as(&self, user: UserInfo) -> Client {
        in_process(Arc::new(self.server.clone()), user, "test")
    }

    /// Stops everything, as a process would.
    pub async fn stop(self) {
        for running in self.running {
            tokio::time::timeout(PATIENCE, running.shutdown()).await.expect("controllers stop");
        }
        self.kubelet.abort();
        self.shared.shutdown().await;
        tokio::time::timeout(PATIENCE, self.server.stop()).await.expect("the server stops");
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).expect("an object");
        self.api::<K>(namespace).create(&PostParams::default(), &object).await.expect("a create")
    }

    pub async fn namespace(&self, name: &str) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
    }

    pub async fn patch<K>(&self, namespace: &str, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let patch = Patch::Merge(patch);
        self.api::<K>(namespace).patch(name, &PatchParams::default(), &patch).await.expect("a patch")
    }

    pub async fn pods(&self, namespace: &str) -> Vec<Pod> {
        self.api::<Pod>(namespace).list(&ListParams::default()).await.expect("a list").items
    }

    /// Waits until the Deployment is complete, as `kubectl rollout status` does.
    pub async fn rolled_out(&self, namespace: &str, name: &str) -> Deployment {
        let api = self.api::<Deployment>(namespace);
        eventually(&format!("{name} is rolled out"), || async {
            let deployment = api.get(name).await.expect("a deployment");
            let status = deployment.status.clone().unwrap_or_default();
            let wanted = deployment.spec.as_ref().and_then(|s| s.replicas);
            status.observed_generation == deployment.metadata.generation
                && [status.replicas, status.updated_replicas, status.available_replicas].iter().all(|n| *n == wanted)
        })
        .await;
        api.get(name).await.expect("a deployment")
    }

    /// The messages of an object's events with this reason.
    pub async fn events(&self, namespace: &str, name: &str, reason: &str) -> Vec<String> {
        let events = self.api::<k8s_openapi::api::core::v1::Event>(namespace);
        let all = events.list(&ListParams::default()).await.expect("a list").items;
        all.into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some(name) && e.reason.as_deref() == Some(reason))
            .filter_map(|e| e.message)
            .collect()
    }
}

/// Waits until a condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn register(client: &Client, name: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
    let node: Node = serde_json::from_value(node).expect("a node");
    nodes.create(&PostParams::default(), &node).await.expect("a node");
    let lease = json!({"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40,
        "renewTime": MicroTime(Timestamp::now())}});
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = serde_json::from_value(lease).expect("a lease");
    leases.create(&PostParams::default(), &lease).await.expect("a lease");
    let size = json!({"cpu": "64", "memory": "64Gi", "pods": "5000"});
    ready(client, name, "True", size).await;
}

/// Posts a node's status.
pub async fn ready(client: &Client, name: &str, status: &str, size: Value) {
    let condition = json!({"type": "Ready", "status": status, "reason": "Test", "message": "",
        "lastHeartbeatTime": Time(Timestamp::now()), "lastTransitionTime": Time(Timestamp::now())});
    let patch = Patch::Merge(json!({"status": {"allocatable": size, "capacity": size, "conditions": [condition]}}));
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch_status(name, &PatchParams::default(), &patch).await.expect("a node's status");
}

/// Makes bound pods ready, and ends deleted ones, a hundred at a time.
fn kubelet(client: Client, shared: &Shared) -> JoinHandle<()> {
    let (sender, receiver) = mpsc::unbounded_channel::<Arc<Pod>>();
    shared.pods.subscribe(move |change| {
        let bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|s| s.node_name.as_ref().is_some_and(|n| !n.is_empty()));
        if let Some(pod) = change.new.filter(|pod| bound(pod)) {
            let _ = sender.send(pod.clone());
        }
    });
    let addresses = Arc::new(AtomicU32::new(u32::from(Ipv4Addr::new(10, 1, 0, 1))));
    let pods = futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|pod| (pod, r)) });
    tokio::spawn(pods.for_each_concurrent(100, move |pod| tend(client.clone(), addresses.clone(), pod)))
}

async fn tend(client: Client, addresses: Arc<AtomicU32>, pod: Arc<Pod>) {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    if pod.metadata.deletion_timestamp.is_some() {
        if let Err(error) = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
            tracing::warn!(%error, pod = pod.name_any(), "a pod could not be ended");
        }
        return;
    }
    let broken = pod.spec.iter().flat_map(|s| &s.containers).any(|c| c.image.as_deref() == Some("broken"));
    if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Pending") || broken {
        return;
    }
    let ip = Ipv4Addr::from(addresses.fetch_add(1, Ordering::Relaxed)).to_string();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": Time(Timestamp::now())});
    let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": Time(Timestamp::now()),
        "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady")]});
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
    let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
}

/// A Deployment's manifest.
pub fn deployment(name: &str, replicas: usize, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "web", "containerPort": 8080}]}]},
            },
        },
    })
}
