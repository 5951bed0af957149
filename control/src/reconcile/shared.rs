//! The process's one set of typed caches: controllers, scheduler and, in one process, the node read the same objects.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinSet;
use tracing::warn;
use wherry_api::lenient::{Lenient, Raw, Told};

use super::kinds::Kind;
use super::{EventRecorder, Metrics, Store};
use crate::auth::tokens::bootstrap;

/// The ConfigMap that every namespace has; the only one that the control plane's caches hold.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// The type of the Secrets that hold tokens of service accounts.
pub const ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
/// The public description of the cluster, if somebody has made one.
pub const CLUSTER_INFO: &str = "cluster-info";
/// Where it is.
pub const PUBLIC: &str = "kube-public";
/// Where nodes renew their Leases.
pub const NODE_LEASES: &str = "kube-node-lease";

/// The caches; filled by tasks that this owns.
pub struct Shared {
    pub client: Client,
    pub events: EventRecorder,
    pub pods: Store<Pod>,
    pub nodes: Store<Node>,
    pub namespaces: Store<Namespace>,
    pub services: Store<Service>,
    pub service_cidrs: Store<ServiceCIDR>,
    pub ip_addresses: Store<IPAddress>,
    pub endpoints: Store<Endpoints>,
    pub endpoint_slices: Store<EndpointSlice>,
    pub replica_sets: Store<ReplicaSet>,
    pub replication_controllers: Store<ReplicationController>,
    pub deployments: Store<Deployment>,
    pub resource_quotas: Store<ResourceQuota>,
    pub persistent_volumes: Store<PersistentVolume>,
    pub persistent_volume_claims: Store<PersistentVolumeClaim>,
    /// Without their schemas.
    pub definitions: Store<CustomResourceDefinition>,
    pub api_services: Store<APIService>,
    pub service_accounts: Store<ServiceAccount>,
    pub cluster_roles: Store<ClusterRole>,
    pub validating_policies: Store<ValidatingAdmissionPolicy>,
    pub certificate_requests: Store<CertificateSigningRequest>,
    /// Only those that hold tokens of service accounts.
    pub token_secrets: Store<Secret>,
    /// Only those that hold bootstrap tokens.
    pub bootstrap_tokens: Store<Secret>,
    /// Only the cluster's public description.
    pub cluster_infos: Store<ConfigMap>,
    /// Only those named [`ROOT_CA`].
    pub root_cas: Store<ConfigMap>,
    /// Only those of nodes.
    pub leases: Store<Lease>,
    /// Of any kind; told by the garbage collector, which follows them all.
    pub departures: Departures,
    /// Aborted with the last reference, or by [`Shared::shutdown`].
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("pods", &self.pods).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Shared {
    /// Starts to fill the caches. Needs a runtime; returns at once.
    pub fn start(client: Client) -> Arc<Self> {
        Self::with_metrics(client, &Metrics::default())
    }

    /// The same, counting dropped events in `metrics`.
    pub fn with_metrics(client: Client, metrics: &Metrics) -> Arc<Self> {
        let mut tasks = JoinSet::new();
        let (events, recording) = EventRecorder::new(client.clone(), metrics.clone());
        tasks.spawn(recording);
        let c = &client;
        let all = watcher::Config::default;
        Arc::new(Self {
            pods: follow(&mut tasks, c, None, all()),
            nodes: follow(&mut tasks, c, None, all()),
            namespaces: follow(&mut tasks, c, None, all()),
            services: follow(&mut tasks, c, None, all()),
            service_cidrs: follow(&mut tasks, c, None, all()),
            ip_addresses: follow(&mut tasks, c, None, all()),
            endpoints: follow(&mut tasks, c, None, all()),
            endpoint_slices: follow(&mut tasks, c, None, all()),
            replica_sets: follow(&mut tasks, c, None, all()),
            replication_controllers: follow(&mut tasks, c, None, all()),
            resource_quotas: follow(&mut tasks, c, None, all()),
            persistent_volumes: follow(&mut tasks, c, None, all()),
            persistent_volume_claims: follow(&mut tasks, c, None, all()),
            definitions: follow(&mut tasks, c, None, all()),
            api_services: follow(&mut tasks, c, None, all()),
            deployments: follow(&mut tasks, c, None, all()),
            service_accounts: follow(&mut tasks, c, None, all()),
            cluster_roles: follow(&mut tasks, c, None, all()),
            validating_policies: follow(&mut tasks, c, None, all()),
            certificate_requests: follow(&mut tasks, c, None, all()),
            token_secrets: follow(&mut tasks, c, None, all().fields(&format!("type={ACCOUNT_TOKEN}"))),
            bootstrap_tokens: follow(
                &mut tasks,
                c,
                Some(bootstrap::NAMESPACE),
                all().fields(&format!("type={}", bootstrap::TYPE)),
            ),
            cluster_infos: follow(&mut tasks, c, Some(PUBLIC), all().fields(&format!("metadata.name={CLUSTER_INFO}"))),
            root_cas: follow(&mut tasks, c, None, all().fields(&format!("metadata.name={ROOT_CA}"))),
            leases: follow(&mut tasks, c, Some(NODE_LEASES), all()),
            departures: Departures::default(),
            tasks: Mutex::new(tasks),
            events,
            client,
        })
    }

    /// Returns when every cache has been filled once.
    pub async fn synced(&self) {
        self.pods.synced().await;
        self.nodes.synced().await;
        self.namespaces.synced().await;
        self.services.synced().await;
        self.service_cidrs.synced().await;
        self.ip_addresses.synced().await;
        self.endpoints.synced().await;
        self.endpoint_slices.synced().await;
        self.replica_sets.synced().await;
        self.replication_controllers.synced().await;
        self.resource_quotas.synced().await;
        self.persistent_volumes.synced().await;
        self.persistent_volume_claims.synced().await;
        self.definitions.synced().await;
        self.api_services.synced().await;
        self.deployments.synced().await;
        self.service_accounts.synced().await;
        self.cluster_roles.synced().await;
        self.validating_policies.synced().await;
        self.certificate_requests.synced().await;
        self.token_secrets.synced().await;
        self.bootstrap_tokens.synced().await;
        self.cluster_infos.synced().await;
        self.root_cas.synced().await;
        self.leases.synced().await;
    }

    /// Ends the watches. To be called after the readers have stopped.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }
}

type Heard = Box<dyn Fn(&str) + Send + Sync>;

/// Tells in which namespace an object, of whatever kind, has gone. Subscribers are few, and made at start.
#[derive(Default)]
pub struct Departures(RwLock<Vec<Heard>>);

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Departures").field("subscribers", &self.0.read().len()).finish()
    }
}

impl Departures {
    pub fn subscribe(&self, heard: impl Fn(&str) + Send + Sync + 'static) {
        self.0.write().push(Box::new(heard));
    }

    pub fn tell(&self, namespace: &str) {
        self.0.read().iter().for_each(|heard| heard(namespace));
    }
}

/// Fills a new store from a watch, in a task of `tasks`. An object that cannot be read hides no other; of it, the last state
/// that could be read stays.
pub fn follow<K: Kind>(
    tasks: &mut JoinSet<()>,
    client: &Client,
    namespace: Option<&str>,
    config: watcher::Config,
) -> Store<K> {
    let store = Store::default();
    let target = store.clone();
    let mut told = Told::default();
    let kind = K::kind(&());
    let resource = ApiResource::erase::<K>(&());
    let seen = move |event: watcher::Event<Raw>| {
        let event = read::<K>(event);
        match &event {
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                if let Some((object, why)) = told.news(object) {
                    warn!(%kind, object, why, "an object cannot be read and is left out");
                }
            }
            watcher::Event::Delete(object) => told.forget(object),
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
        target.watched(event);
    };
    tasks.spawn(watch(client, namespace, &resource, config, Box::new(seen)));
    store
}

/// One piece of code for all kinds: only what becomes of their objects knows their types.
fn watch(
    client: &Client,
    namespace: Option<&str>,
    resource: &ApiResource,
    config: watcher::Config,
    mut seen: Box<dyn FnMut(watcher::Event<Raw>) + Send>,
) -> BoxFuture<'static, ()> {
    let kind = resource.kind.clone();
    let api = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    async move {
        let mut events = watcher(api, config).default_backoff().boxed();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => seen(event),
                Ok(None) => break,
                Err(error) => warn!(%kind, %error, "watch failed; will try again"),
            }
        }
    }
    .boxed()
}

fn read<K: Kind>(event: watcher::Event<Raw>) -> watcher::Event<Lenient<K>> {
    match event {
        watcher::Event::Apply(object) => watcher::Event::Apply(object.read()),
        watcher::Event::Delete(object) => watcher::Event::Delete(object.read()),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(object.read()),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}
