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

/// A controller that runs, as the list holds it.
fn boxed<C: Controller>(controller: C, context: &Context) -> BoxFuture<'static, ()> {
    Box::pin(context.clone().run(controller))
}

type Start = fn(&Context) -> BoxFuture<'static, ()>;

/// THE list.
pub const CONTROLLERS: &[(&str, Start)] = &[
    (deployment::Deployments::NAME, |context| boxed(deployment::Deployments::new(context), context)),
    (replica_set::ReplicaSets::NAME, |context| boxed(replica_set::ReplicaSets::new(context), context)),
    (replica_set::ReplicationControllers::NAME, |context| {
        boxed(replica_set::ReplicationControllers::new(context), context)
    }),
    (endpoints::Endpoints::NAME, |context| boxed(endpoints::Endpoints::new(context), context)),
    (api_service::Registration::NAME, |context| boxed(api_service::Registration::new(context), context)),
    (api_service::Availability::NAME, |context| boxed(api_service::Availability::new(context), context)),
    (endpoints::Mirror::NAME, |context| boxed(endpoints::Mirror::new(context), context)),
    (definition::Definitions::NAME, |context| boxed(definition::Definitions::new(context), context)),
    (gc::NAME, gc::start),
    (resource_quota::ResourceQuotas::NAME, |context| boxed(resource_quota::ResourceQuotas::new(context), context)),
    (account_tokens::AccountTokens::NAME, |context| boxed(account_tokens::AccountTokens::new(context), context)),
    (bootstrap_tokens::BootstrapTokens::NAME, |context| {
        boxed(bootstrap_tokens::BootstrapTokens::new(context), context)
    }),
    (certificates::Certificates::NAME, |context| boxed(certificates::Certificates::new(context), context)),
    (cluster_role_aggregation::ClusterRoleAggregation::NAME, |context| {
        boxed(cluster_role_aggregation::ClusterRoleAggregation::new(context), context)
    }),
    (namespace::Namespaces::NAME, |context| boxed(namespace::Namespaces::new(context), context)),
    (service_account::ServiceAccounts::NAME, |context| boxed(service_account::ServiceAccounts::new(context), context)),
    (service_cidr::ServiceCidrs::NAME, |context| boxed(service_cidr::ServiceCidrs::new(context), context)),
    (service_cidr::Repair::NAME, |context| boxed(service_cidr::Repair::new(context), context)),
    (policy_types::PolicyTypes::NAME, |context| boxed(policy_types::PolicyTypes::new(context), context)),
    (volume_protection::Claims::NAME, |context| boxed(volume_protection::Claims::new(context), context)),
    (volume_protection::Volumes::NAME, |context| boxed(volume_protection::Volumes::new(context), context)),
    (node::Nodes::NAME, |context| boxed(node::Nodes::new(context), context)),
    (node::eviction::Evictions::NAME, |context| boxed(node::eviction::Evictions::new(context), context)),
    (pod_gc::PodGc::NAME, |context| boxed(pod_gc::PodGc::new(context), context)),
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
