//! The assembled control plane: store, cache, identity, API server, listener, controllers and scheduler, started in the
//! order in which they need each other and stopped in the reverse one.
//!
//! What must stay true: everything that runs belongs to the [`ControlPlane`]; when [`ControlPlane::shutdown`] returns,
//! every acknowledged write is on disk and no task is left.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use wherry_api::registry::Registry;

use self::numbers::metrics;
use crate::audit::{self, Audit, AuditError};
use crate::auth::authn::{Authenticator, AuthnError};
use crate::auth::authorize::Chain;
use crate::auth::files::private_dir;
use crate::auth::node::NodeAuthorizer;
use crate::auth::oidc::{Authentication, AuthenticationError};
use crate::auth::pki::{Identity, Pki, PkiError, ServerNames};
use crate::auth::rbac::Rbac;
use crate::auth::tokens::{TokenError, Tokens};
use crate::auth::{Authorizer, MASTERS, UserInfo, kubeconfig};
use crate::cache::{Cache, CacheError};
use crate::cidr::Cidr;
use crate::client;
use crate::controllers;
use crate::flow;
use crate::outbound::Outbound;
use crate::reconcile::{self, Running, Shared};
use crate::registry::{Images, RegistryError};
use crate::scheduler;
use crate::server::error::ServerError;
use crate::server::health::{Check, Health};
use crate::server::listen::{Bound, Listen, ListenError, Listener};
use crate::server::{self, Server};
use crate::store::encrypted::{ConfigError, EncryptedStore, Encryption};
use crate::store::redb::RedbStore;
use crate::store::{Store, StoreError};

mod numbers;

/// Where pods reach a server that listens on loopback only. 127.0.0.1 is no endpoint that a Service may have, or anybody
/// who may write Endpoints could lead guests to what else listens there; the network's ranges leave this address free.
const IN_CLUSTER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 192, 0, 1));

/// What a control plane is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Made with mode 0700 if it does not exist: `state/`, `pki/`, `registry/`, `admin.kubeconfig`.
    pub data_dir: PathBuf,
    /// Port 0: any free one; [`ControlPlane::address`] says which.
    pub listen: SocketAddr,
    /// Where pods and other machines reach this server; by default the address it listens on, or this host's.
    pub advertise: Option<IpAddr>,
    /// Further names and addresses for the server's certificate.
    pub server_names: Vec<String>,
    /// Where Services' addresses come from, unless other ServiceCIDRs are made.
    pub service_range: Cidr,
    /// What else the nodes' network has addresses from.
    pub not_for_services: Vec<Cidr>,
    /// What Services of type NodePort and LoadBalancer get their ports from.
    pub node_ports: RangeInclusive<u16>,
    /// The cluster's name in kubeconfigs.
    pub cluster: String,
    /// An `EncryptionConfiguration`: what is encrypted on disk, and with which keys.
    pub encryption: Option<PathBuf>,
    /// An `AuthenticationConfiguration`: whose tokens are believed beside the server's own.
    pub authentication: Option<PathBuf>,
    /// Requests that are served at once, by all priority levels together; `None`: by the machine's size.
    pub max_requests: Option<u32>,
    /// What is recorded of requests, and where.
    pub audit: Option<audit::Config>,
}

impl Config {
    /// Kubernetes' ports, and a cluster named `wherry`.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr, service_range: Cidr) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            advertise: None,
            server_names: Vec::new(),
            service_range,
            not_for_services: Vec::new(),
            node_ports: 30_000..=32_767,
            cluster: "wherry".to_owned(),
            encryption: None,
            authentication: None,
            max_requests: None,
            audit: None,
        }
    }
}

/// Why the control plane cannot start or stop.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    #[error("the data directory {path} cannot be used")]
    DataDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Encryption(#[from] ConfigError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    #[error("the watch cache cannot be filled")]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("service-account tokens cannot be signed")]
    Tokens(#[from] TokenError),
    #[error("clients cannot be authenticated")]
    Authn(#[from] AuthnError),
    #[error("the image registry cannot be opened")]
    Images(#[from] RegistryError),
    #[error("the API server cannot start")]
    Server(#[from] ServerError),
    #[error("requests to nodes cannot be made")]
    NodeTls(#[from] rustls::Error),
    #[error("a step of the start failed")]
    Task(#[from] tokio::task::JoinError),
}

/// What a node needs to speak with the server and to be spoken to.
#[derive(Clone, Debug)]
pub struct NodeCredentials {
    /// The authority that signed all of it, PEM: the node trusts servers and clients of this one.
    pub ca: String,
    /// As which the node asks the server.
    pub client: Identity,
    /// Which the node's own server shows.
    pub serving: Identity,
}

/// A running control plane.
pub struct ControlPlane {
    config: Config,
    url: String,
    store: Arc<dyn Store>,
    pki: Arc<Pki>,
    audit: Option<Audit>,
    server: Server,
    listener: Listener,
    shared: Arc<Shared>,
    controllers: Running,
    scheduler: Running,
    tasks: JoinSet<()>,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("url", &self.url).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Starts everything. When it returns, requests are answered; `/readyz` says when the controllers have caught up.
    ///
    /// Boxed here, so that the server is compiled in this crate and not once more in each that waits for it.
    pub fn start(config: Config) -> BoxFuture<'static, Result<Self, PlaneError>> {
        Box::pin(Self::launch(config))
    }

    async fn launch(config: Config) -> Result<Self, PlaneError> {
        let mut bound = Bound::bind(config.listen).await?;
        let advertise = SocketAddr::new(advertised(&config, bound.address()), bound.address().port());
        if advertise.ip() == IN_CLUSTER {
            bound = bound.also(IN_CLUSTER).await?;
        }
        let Opened { engine, encryption, pki, audit } = open(&config).await?;
        let store: Arc<dyn Store> = Arc::new(EncryptedStore::open(engine, encryption).await?);
        let registry = Registry::builtin();
        let cache = Cache::start(Arc::clone(&store), &registry).await?;
        let Authentication { issuers, anonymous } = match &config.authentication {
            Some(path) => Authentication::read(path, &Outbound::new(cache.clone(), &registry, None))?,
            None => Authentication::default(),
        };
        let tokens = Tokens::believing(pki.token_key_pem(), pki.older_token_keys(), issuers, cache.clone())?;
        let authenticator = Authenticator::new(pki.ca_der(), Arc::clone(&tokens))?
            .with_proxies(pki.front_proxy_der())?
            .with_anonymous(anonymous);
        let nodes = NodeAuthorizer::new(cache.clone(), registry.clone());
        let authorizer: Arc<dyn Authorizer> = Arc::new(Chain::new(nodes, Rbac::new(cache.clone())));
        let images = open_images(&config.data_dir, Arc::clone(&authorizer), cache.clone()).await?;
        let flags = Flags::default();
        let (queues, flow) = (reconcile::Metrics::default(), flow::Metrics::default());
        let server_config = server::Config {
            service_range: config.service_range,
            not_for_services: config.not_for_services.clone(),
            node_ports: config.node_ports.clone(),
            advertise,
            node_tls: Some(Arc::new(node_tls(&pki)?)),
            tokens: Some(Arc::clone(&tokens)),
            front_proxy: Some(pki.front_proxy()?),
            images: Some(images),
            health: health(&store, &cache, &flags),
            metrics: metrics(&store, &cache, (&queues, &flow), audit.as_ref()),
            seats: config.max_requests.unwrap_or_else(flow::default_seats),
            flow,
            audit: audit.clone(),
            scratch: Some(config.data_dir.clone()),
        };
        let server = Server::new(registry, Arc::clone(&store), cache, Arc::clone(&authorizer), server_config).await?;
        match server.bootstrap().await {
            // Somebody changed what it builds upon, and needs this server to change it back; it is tried again and again.
            Err(ServerError::Api(error)) => {
                tracing::warn!(error = %error.message, "what every cluster has could not all be written; trying again");
            }
            other => other?,
        }
        server.check_range()?;
        server.bootstrap_roles().await?;
        server.bootstrap_flow().await?;
        flags.bootstrapped.store(true, Ordering::Release);

        let listen = Listen {
            pki: Arc::clone(&pki),
            names: server_names(&config, advertise.ip(), bound.address().ip()),
            authenticator,
            authorizer,
            handler: Arc::new(server.clone()),
        };
        let listener = Listener::start(bound, listen)?;
        let url = format!("https://{}", reachable(listener.address()));
        kubeconfig::write_admin(&config.data_dir.join("admin.kubeconfig"), &url, &config.cluster, &pki)?;

        let client_for = |user, component| client::in_process(Arc::new(server.clone()), user, component);
        let client = client_for(UserInfo::controller_manager(), "kube-controller-manager");
        let shared = Shared::with_metrics(client, &queues);
        let controllers_config = controllers::Config {
            metrics: queues,
            signer: Some(Arc::clone(&pki)),
            tokens: Some(tokens),
            outbound: Some(server.outbound().clone()),
            ..controllers::Config::new(pki.ca_pem().to_owned())
        };
        let controllers = controllers::start(Arc::clone(&shared), controllers_config);
        let scheduler = scheduler::start(client_for(UserInfo::scheduler(), "kube-scheduler"), Arc::clone(&shared));
        let tasks = background(&server, &shared, flags.synced);
        Ok(Self { config, url, store, pki, audit, server, listener, shared, controllers, scheduler, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// How a client of this machine reaches it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of this process that acts as `user` by the name of a component: no socket, the same rules.
    pub fn client_for(&self, user: UserInfo, component: &'static str) -> kube::Client {
        client::in_process(Arc::new(self.server.clone()), user, component)
    }

    /// The typed caches that controllers and scheduler read; a node of this process reads them too.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.config.data_dir.join("admin.kubeconfig")
    }

    /// A kubeconfig for an identity that this authority issued.
    pub fn kubeconfig_for(&self, user: &str, identity: &Identity) -> Result<String, PlaneError> {
        Ok(kubeconfig::text(&self.url, &self.config.cluster, user, self.pki.ca_pem(), identity)?)
    }

    /// Certificates for a node whose own server is reached at `addresses`. They last a year.
    pub fn issue_node_credentials(&self, name: &str, addresses: &[IpAddr]) -> Result<NodeCredentials, PlaneError> {
        Ok(NodeCredentials {
            ca: self.pki.ca_pem().to_owned(),
            client: self.pki.node_identity(name)?,
            serving: self.pki.node_serving_identity(name, addresses)?,
        })
    }

    /// Writes a consistent copy of the state to a new file.
    pub async fn backup(&self, to: &Path) -> Result<(), PlaneError> {
        Ok(self.store.backup(to).await?)
    }

    /// Stops everything. Requests in flight get until `within` has passed; then the store is closed, with everything
    /// acknowledged on disk. Clients of this process (a node) are to be stopped before.
    pub fn shutdown(self, within: Duration) -> BoxFuture<'static, Result<(), PlaneError>> {
        Box::pin(self.stop(within))
    }

    async fn stop(self, within: Duration) -> Result<(), PlaneError> {
        let deadline = Instant::now() + within;
        let Self { store, audit, server, listener, shared, controllers, scheduler, mut tasks, .. } = self;
        let controlling = async {
            tokio::join!(scheduler.shutdown(), controllers.shutdown());
            shared.shutdown().await;
        };
        if timeout_at(deadline, controlling).await.is_err() {
            tracing::info!("controllers were still busy at the end of the drain");
        }
        tasks.shutdown().await;
        listener.shutdown(deadline.saturating_duration_since(Instant::now())).await;
        if timeout_at(deadline, server.stop()).await.is_err() {
            tracing::info!("writes were still in flight at the end of the drain");
        }
        if let Some(audit) = audit {
            audit.close().await;
        }
        Ok(store.close().await?)
    }
}

/// Steps of the start that `/readyz` waits for.
#[derive(Clone, Default)]
struct Flags {
    bootstrapped: Arc<AtomicBool>,
    synced: Arc<AtomicBool>,
}

struct Opened {
    engine: Arc<dyn Store>,
    encryption: Encryption,
    pki: Arc<Pki>,
    audit: Option<Audit>,
}

/// Opens what blocks, on a thread for it.
async fn open(config: &Config) -> Result<Opened, PlaneError> {
    let (dir, encryption, audit) = (config.data_dir.clone(), config.encryption.clone(), config.audit.clone());
    tokio::task::spawn_blocking(move || {
        let audit = audit.as_ref().map(Audit::open).transpose()?;
        let encryption = encryption.as_deref().map(Encryption::read).transpose()?.unwrap_or_default();
        private_dir(&dir).map_err(|source| PlaneError::DataDir { path: dir.clone(), source })?;
        let engine: Arc<dyn Store> = Arc::new(RedbStore::open(&dir.join("state"))?);
        let pki = Pki::open(&dir.join("pki"))?;
        Ok(Opened { engine, encryption, pki, audit })
    })
    .await?
}

async fn open_images(data_dir: &Path, authorizer: Arc<dyn Authorizer>, cache: Cache) -> Result<Images, PlaneError> {
    let dir = data_dir.join("registry");
    Ok(tokio::task::spawn_blocking(move || Images::open(&dir, authorizer, Arc::new(cache))).await??)
}

fn server_names(config: &Config, advertise: IpAddr, listen: IpAddr) -> ServerNames {
    let service = IpAddr::V4(config.service_range.first());
    let mut names = ServerNames::api_server(service, listen, &config.server_names);
    names.add(&advertise.to_string());
    names
}

/// The address that others reach this server at.
fn advertised(config: &Config, listen: SocketAddr) -> IpAddr {
    match config.advertise {
        Some(address) => address,
        None if listen.ip().is_loopback() => IN_CLUSTER,
        None if !listen.ip().is_unspecified() => listen.ip(),
        None => outgoing_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    }
}

/// The address that this host uses towards the network. Connecting a UDP socket sends nothing.
fn outgoing_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of TEST-NET-1: only its route is looked up.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// From this machine, a server on all addresses is reached through loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()) } else { address }
}

/// For requests to nodes: trusts this authority, and shows a certificate that nodes accept.
fn node_tls(pki: &Pki) -> Result<rustls::ClientConfig, PlaneError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca_der().clone())?;
    let identity = pki.client_identity("kube-apiserver-kubelet-client", Some(MASTERS))?;
    let (chain, key) = identity.to_der().ok_or(ListenError::Damaged)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

fn health(store: &Arc<dyn Store>, cache: &Cache, flags: &Flags) -> Health {
    let cache = cache.clone();
    let following = move || {
        let following = cache.following();
        async move { if following { Ok(()) } else { Err("the watch cache does not follow the store".to_owned()) } }
    };
    let others = [
        Check::live("watch-cache", following),
        Check::started("poststarthook/bootstrap", Arc::clone(&flags.bootstrapped)),
        Check::started("informer-sync", Arc::clone(&flags.synced)),
    ];
    Health::new(Check::of_store(store).into_iter().chain(others).collect())
}

/// What runs beside the controllers.
fn background(server: &Server, shared: &Arc<Shared>, synced: Arc<AtomicBool>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (publisher, keeper, shared) = (server.clone(), server.clone(), Arc::clone(shared));
    tasks.spawn(async move { publisher.keep_published().await });
    tasks.spawn(async move { keeper.keep_flow().await });
    tasks.spawn(async move {
        shared.synced().await;
        synced.store(true, Ordering::Release);
    });
    tasks
}

#[cfg(test)]
mod tests;
