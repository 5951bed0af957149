//! The API server: one pipeline from an authenticated request to its answer, the same for every kind.
//!
//! A [`Server`] is cheap to clone and is all there is: the listener and the in-process client both call
//! [`Server::handle`]. What must stay true: nothing else writes to the store; every write passes the pipeline.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_api::registry::Registry;

use self::aggregation::Remotes;
use self::alloc::Allocators;
use self::body::Body;
use self::definitions::Definitions;
use self::discovery::Discovery;
use self::error::ServerError;
use self::health::Health;
use self::heavy::Heavy;
use self::intake::Intake;
use self::metrics::Metrics;
use self::nodes::Asking;
use self::openapi::Merged;
use self::unsent::Unsent;
use crate::admission::{self, ServiceRanges};
use crate::audit::Audit;
use crate::auth::pki::FrontProxy;
use crate::auth::tokens::Tokens;
use crate::auth::{Authorizer, UserInfo};
use crate::cache::{At, Cache, Filter};
use crate::cidr::Cidr;
use crate::flow::{self, Flow};
use crate::outbound::Outbound;
use crate::registry::Images;
use crate::store::Store;

mod aggregation;
pub(crate) mod alloc;
mod answer;
mod backup;
pub mod body;
mod bootstrap;
mod call;
mod definitions;
pub mod discovery;
pub mod error;
mod forms;
mod guard;
pub mod health;
mod heavy;
mod intake;
mod issuer;
mod labels;
pub mod listen;
mod managed;
pub(crate) mod metadata;
pub mod metrics;
mod negotiate;
mod nodes;
mod openapi;
mod pipeline;
mod query;
mod request;
mod reviews;
mod route;
mod subresources;
#[cfg(test)]
mod tests;
pub(crate) mod turn;
mod unsent;
mod verbs;
pub(crate) mod versions;
mod warnings;
mod write;

/// What a server is told.
#[derive(Clone)]
pub struct Config {
    /// Where Services' addresses come from: the ServiceCIDR `kubernetes`.
    pub service_range: Cidr,
    /// What else the nodes' network has addresses from: no other ServiceCIDR may overlap it.
    pub not_for_services: Vec<Cidr>,
    /// Kubernetes: 30000-32767.
    pub node_ports: RangeInclusive<u16>,
    /// Where clients in the cluster reach this server: the endpoint of the Service `kubernetes`.
    pub advertise: SocketAddr,
    /// For requests to nodes, with the server's client certificate. `None`: logs cannot be read.
    pub node_tls: Option<Arc<rustls::ClientConfig>>,
    pub tokens: Option<Arc<Tokens>>,
    /// As whom servers behind APIServices are asked. `None`: they cannot tell that it is this server.
    pub front_proxy: Option<FrontProxy>,
    /// What `/v2/` serves.
    pub images: Option<Images>,
    pub health: Health,
    pub metrics: Metrics,
    /// Seats of all priority levels together: requests that are served at once, where a list counts for more than one.
    pub seats: u32,
    pub flow: flow::Metrics,
    /// Where requests are recorded.
    pub audit: Option<Audit>,
    /// A folder of the server's own, for the file that a backup is while it is sent. `None`: there are no backups.
    pub scratch: Option<PathBuf>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("service_range", &self.service_range)
            .field("node_ports", &self.node_ports)
            .field("advertise", &self.advertise)
            .finish_non_exhaustive()
    }
}

/// What is served at one moment.
#[derive(Debug)]
struct Served {
    registry: Registry,
    /// What other servers serve.
    remotes: Arc<Remotes>,
    discovery: Discovery,
    openapi: Merged,
}

impl Served {
    fn new(registry: Registry, remotes: Arc<Remotes>, config: &Config) -> Self {
        let discovery = Discovery::new(registry.clone(), Arc::clone(&remotes), config.advertise.to_string());
        Self { registry, remotes, discovery, openapi: Merged::default() }
    }

    /// The same with other kinds or servers: what is not about those that changed is taken over.
    fn after(&self, registry: Registry, remotes: Arc<Remotes>) -> Self {
        let discovery = self.discovery.after(registry.clone(), Arc::clone(&remotes));
        Self { registry, remotes, discovery, openapi: Merged::default() }
    }
}

struct Inner {
    served: watch::Sender<Arc<Served>>,
    /// Held by who puts something else in its place.
    serving: tokio::sync::Mutex<()>,
    definitions: Definitions,
    store: Arc<dyn Store>,
    cache: Cache,
    authorizer: Arc<dyn Authorizer>,
    admission: admission::Chain,
    quota: admission::ResourceQuota,
    outbound: Outbound,
    allocators: Allocators,
    heavy: Heavy,
    flow: Flow,
    intake: Intake,
    unsent: Unsent,
    asking: Asking,
    config: Config,
    stopping: CancellationToken,
    /// Writes in flight; they end even if their client has gone.
    tasks: TaskTracker,
}

/// The API server.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Server {
    /// A server on a started cache. Addresses and ports of stored Services are taken from the ranges first.
    pub async fn new(
        registry: Registry,
        store: Arc<dyn Store>,
        cache: Cache,
        authorizer: Arc<dyn Authorizer>,
        config: Config,
    ) -> Result<Self, ServerError> {
        let allocators = Allocators::new(&registry, &cache, config.node_ports.clone());
        if let Some(services) = registry.by_plural("", "v1", "services") {
            let stored = cache.list(services, &Filter::default(), At::Latest, None, 0).await?;
            for entry in stored.entries {
                allocators.restore(&entry.key, &answer::parse(&entry.bytes)?);
            }
        }
        let identity = config.front_proxy.as_ref().map(|proxy| proxy.identity.clone());
        let outbound = Outbound::new(cache.clone(), &registry, identity);
        let served = watch::Sender::new(Arc::new(Served::new(registry, Arc::default(), &config)));
        let now = served.subscribe();
        let kinds = admission::Kinds::new(move || now.borrow().registry.clone());
        let flow = Flow::new(cache.clone(), config.seats, config.flow.clone());
        let inner = Inner {
            admission: admission::Chain::configured(
                &cache,
                &outbound,
                &authorizer,
                kinds,
                ServiceRanges::new(config.service_range, config.not_for_services.clone()),
                config.metrics.admission().clone(),
            ),
            outbound,
            quota: admission::ResourceQuota::new(cache.clone()),
            served,
            serving: tokio::sync::Mutex::default(),
            definitions: Definitions::default(),
            store,
            cache,
            authorizer,
            allocators,
            heavy: Heavy::new(),
            flow,
            intake: Intake::new(),
            unsent: Unsent::new(),
            asking: Asking::default(),
            config,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let server = Self { inner: Arc::new(inner) };
        server.read_definitions().await?;
        definitions::keep(&server);
        aggregation::keep(&server);
        if let Some(images) = server.config().images.clone() {
            let stopping = server.stopping().clone();
            server.tasks().spawn(async move { stopping.run_until_cancelled(images.keep()).await });
        }
        Ok(server)
    }

    /// Answers a request of an authenticated user. Never fails: an error is an answer.
    pub async fn handle(&self, request: Request<Body>, user: UserInfo) -> Response<Body> {
        pipeline::handle(self, request, user).await
    }

    /// Ends watches, and returns when the writes in flight have ended. The store may be closed then.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.config.health.stopping();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// The kinds that are served now. A request keeps the one that it began with.
    pub fn registry(&self) -> Registry {
        self.inner.served.borrow().registry.clone()
    }

    /// Serves other kinds from now on: when it returns, requests, discovery and OpenAPI show them.
    pub async fn serve(&self, registry: Registry) -> Result<(), ServerError> {
        self.inner.cache.serve(&registry).await?;
        let _turn = self.inner.serving.lock().await;
        let before = self.served();
        let next = before.after(registry, Arc::clone(&before.remotes));
        self.inner.served.send_replace(Arc::new(next));
        Ok(())
    }

    /// Leaves other group versions to other servers from now on.
    async fn serve_remotes(&self, remotes: Remotes) {
        let _turn = self.inner.serving.lock().await;
        let next = self.served().after(self.registry(), Arc::new(remotes));
        self.inner.served.send_replace(Arc::new(next));
    }

    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.inner.authorizer
    }

    fn admission(&self) -> &admission::Chain {
        &self.inner.admission
    }

    /// Asked after everything else, because its yes is a charge.
    fn quota(&self) -> &admission::ResourceQuota {
        &self.inner.quota
    }

    /// For requests to webhooks and aggregated servers.
    pub fn outbound(&self) -> &Outbound {
        &self.inner.outbound
    }

    fn allocators(&self) -> &Allocators {
        &self.inner.allocators
    }

    /// Whose turn it is.
    fn flow(&self) -> &Flow {
        &self.inner.flow
    }

    /// Bodies that are awaited.
    fn intake(&self) -> &Intake {
        &self.inner.intake
    }

    /// Answers of nodes that are under way.
    fn asking(&self) -> &Asking {
        &self.inner.asking
    }

    /// Answers that wait to be sent.
    fn unsent(&self) -> &Unsent {
        &self.inner.unsent
    }

    /// For work on megabytes.
    fn heavy(&self) -> &Heavy {
        &self.inner.heavy
    }

    fn served(&self) -> Arc<Served> {
        Arc::clone(&self.inner.served.borrow())
    }

    fn config(&self) -> &Config {
        &self.inner.config
    }

    fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.inner.config.tokens.as_ref()
    }

    fn node_tls(&self) -> Option<&Arc<rustls::ClientConfig>> {
        self.inner.config.node_tls.as_ref()
    }

    /// Cancelled when the server stops.
    fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }
}

#[async_trait]
impl listen::Handler for Server {
    async fn handle(&self, request: Request<Body>, user: UserInfo) -> Response<Body> {
        Self::handle(self, request, user).await
    }

    async fn refuse(&self, refused: listen::Refused<'_>) -> Response<Body> {
        pipeline::refuse(self, refused).await
    }
}
