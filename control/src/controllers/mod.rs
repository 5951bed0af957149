//! The controllers: ordinary clients that bring the cluster's state nearer to what its objects ask for.
//!
//! Adding one is a file and a line in [`CONTROLLERS`]. Each plans with a pure function from what the caches show, and does
//! the plan's actions at the edge.

pub mod account_tokens;
pub mod api_service;
pub mod bootstrap_tokens;
pub mod certificates;
pub mod claim;
pub mod cluster_role_aggregation;
mod contents;
pub mod definition;
pub mod deployment;
pub mod endpoints;
#[cfg(test)]
mod fixture;
pub mod gc;
pub mod namespace;
pub mod node;
pub mod pod_gc;
pub mod pods;
mod policy_types;
pub mod replica_set;
pub mod resource_quota;
pub mod service_account;
pub mod service_cidr;
pub mod volume_protection;
pub mod write;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::auth::pki::Pki;
use crate::auth::tokens::Tokens;
use crate::outbound::Outbound;
use crate::reconcile::{Controller, EventRecorder, Metrics, Running, Shared, driver};

/// What controllers must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's CA certificate in PEM, published in every namespace.
    pub root_ca: String,
    /// Ended pods beyond this number are deleted, oldest first; 0 keeps all.
    pub terminated_pods: usize,
    pub metrics: Metrics,
    /// Signs certificate requests; `None`: nobody does.
    pub signer: Option<Arc<Pki>>,
    /// Fills Secrets with tokens of service accounts; `None`: nobody does.
    pub tokens: Option<Arc<Tokens>>,
    /// Asks servers behind APIServices whether they are there; `None`: nobody does.
    pub outbound: Option<Outbound>,
}

impl Config {
    pub fn new(root_ca: String) -> Self {
        Self {
            root_ca,
            terminated_pods: 12_500,
            metrics: Metrics::default(),
            signer: None,
            tokens: None,
            outbound: None,
        }
    }
}

/// What every controller gets.
#[derive(Clone, Debug)]
pub struct Context {
    pub shared: Arc<Shared>,
    pub metrics: Metrics,
    pub config: Arc<Config>,
    pub stop: CancellationToken,
}

impl Context {
    pub fn client(&self) -> kube::Client {
        self.shared.client.clone()
    }

    /// A recorder whose events carry this component's name.
    pub fn events(&self, component: &'static str) -> EventRecorder {
        self.shared.events.component(component)
    }

    /// Runs a controller until it is told to stop.
    async fn run<C: Controller>(self, controller: C) {
        driver::run(controller, self.shared, self.metrics, self.stop).await;
    }
}

/// A controller that can be made of what every controller gets.
pub trait FromContext: Controller + Sized {
    fn new(context: &Context) -> Self;
}

/// A controller's name, and what starts it.
type Listed = (&'static str, fn(&Context) -> BoxFuture<'static, ()>);

const fn of<C: FromContext>() -> Listed {
    (C::NAME, |context| Box::pin(context.clone().run(C::new(context))))
}

/// THE list.
pub const CONTROLLERS: &[Listed] = &[
    of::<deployment::Deployments>(),
    of::<replica_set::ReplicaSets>(),
    of::<replica_set::ReplicationControllers>(),
    of::<endpoints::Endpoints>(),
    of::<api_service::Registration>(),
    of::<api_service::Availability>(),
    of::<endpoints::Mirror>(),
    of::<definition::Definitions>(),
    (gc::NAME, gc::start),
    of::<resource_quota::ResourceQuotas>(),
    of::<account_tokens::AccountTokens>(),
    of::<bootstrap_tokens::BootstrapTokens>(),
    of::<certificates::Certificates>(),
    of::<cluster_role_aggregation::ClusterRoleAggregation>(),
    of::<namespace::Namespaces>(),
    of::<service_account::ServiceAccounts>(),
    of::<service_cidr::ServiceCidrs>(),
    of::<service_cidr::Repair>(),
    of::<policy_types::PolicyTypes>(),
    of::<volume_protection::Claims>(),
    of::<volume_protection::Volumes>(),
    of::<node::Nodes>(),
    of::<node::eviction::Evictions>(),
    of::<pod_gc::PodGc>(),
];

/// Starts every controller on the shared caches.
pub fn start(shared: Arc<Shared>, config: Config) -> Running {
    let stop = CancellationToken::new();
    let context = Context { shared, metrics: config.metrics.clone(), config: Arc::new(config), stop: stop.clone() };
    let mut running = Running::new(stop);
    for (_, start) in CONTROLLERS {
        running.spawn(start(&context));
    }
    running
}
