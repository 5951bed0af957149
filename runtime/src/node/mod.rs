//! The node: registers itself, keeps its Lease, runs its pods, and answers for their logs.
//!
//! [`Node`] owns every task of it. Dropping it stops them all; [`Node::shutdown`] lets containers end first.

mod collect;
pub mod lease;
mod logs;
pub mod machine;
pub mod metrics;
pub mod register;
pub mod server;
mod stats;
pub mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::image::Images;
use crate::log::{Limits, Logs};
use crate::network::Network;
use crate::pod::events::Recorder;
use crate::pod::manager::{Manager, PodSource, watch_pods};
use crate::pod::reference::References;
use crate::pod::report::Statuses;
use crate::pod::status::Host;
use crate::pod::{Allocatable, Context};
use machine::Machine;
use register::Registration;
use server::{ListenError, Listener, NodeApi};
use tls::NodeTls;

/// How long statuses that are not written yet may delay the end of the process.
const FLUSH: Duration = Duration::from_secs(2);

/// What a node is made of.
pub struct NodeConfig {
    pub name: String,
    pub client: Client,
    /// Holds `pods/`.
    pub data_dir: PathBuf,
    /// Where the node API listens; port 0 takes any. The address is the node's `InternalIP`.
    pub listen: SocketAddr,
    pub tls: NodeTls,
    /// Beyond those that every node has.
    pub labels: BTreeMap<String, String>,
    pub backends: Vec<Arc<dyn Backend>>,
    pub images: Arc<dyn Images>,
    pub network: Arc<dyn Network>,
    /// This node's Pods from a cache that the process has anyway; `None`: the node watches them itself.
    pub pods: Option<PodSource>,
    pub logs: Limits,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig").field("name", &self.name).field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("cannot use {} for pods", dir.display())]
    Data {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the node API does not start")]
    Listen(#[from] ListenError),
    #[error("the node API has no address")]
    Address(#[source] std::io::Error),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    manager: Manager,
    api: NodeApi,
    address: SocketAddr,
    stop: CancellationToken,
    statuses: Statuses,
    /// Watches pods and feeds the workers; ends first.
    feed: JoinSet<()>,
    tasks: JoinSet<()>,
}

impl Node {
    /// Starts it; returns when its API listens. Registration goes on in the background until the API server answers.
    ///
    /// Boxed here, so that the node is compiled in this crate and not once more in each that waits for it.
    pub fn start(config: NodeConfig) -> BoxFuture<'static, Result<Self, NodeError>> {
        Box::pin(Self::launch(config))
    }

    async fn launch(config: NodeConfig) -> Result<Self, NodeError> {
        let NodeConfig { name, client, data_dir, listen, backends, images, network, .. } = config;
        let data = |source| NodeError::Data { dir: data_dir.clone(), source };
        let logs = Arc::new(Logs::open_dir(&data_dir, config.logs).map_err(data)?);
        let machine = Machine::read(&data_dir);
        let events = Recorder::new(&name);
        let statuses = Statuses::default();
        let runtime = backends.iter().map(|b| format!("{}://{}", b.name(), b.version())).collect::<Vec<_>>().join(",");
        let context = Context {
            host: Host { address: listen.ip().to_string() },
            backends,
            images: images.clone(),
            network,
            references: References::new(client.clone()),
            events: events.clone(),
            statuses: statuses.clone(),
            logs,
            data_dir: data_dir.clone(),
            allocatable: Allocatable {
                milli_cpu: i64::try_from(machine.cpus * 1000).unwrap_or(i64::MAX),
                memory_bytes: i64::try_from(machine.memory).unwrap_or(i64::MAX),
            },
        };
        let manager = Manager::new(Arc::new(context));
        let api = NodeApi::new(&name, manager.clone());
        let listener = Listener::bind(listen, &config.tls, api.clone()).await?;
        let address = listener.address().map_err(NodeError::Address)?;
        let registration = Registration {
            name: name.clone(),
            address: address.ip(),
            port: address.port(),
            labels: config.labels,
            runtime_version: runtime,
            machine,
            data_dir: data_dir.clone(),
            images: images.clone(),
            events: events.clone(),
        };
        let stop = CancellationToken::new();
        let (mut feed, mut tasks) = (JoinSet::new(), JoinSet::new());
        let pods = config.pods.unwrap_or_else(|| watch_pods(client.clone(), &name));
        feed.spawn(manager.clone().run(pods));
        tasks.spawn(listener.run(stop.clone()));
        tasks.spawn(registration.run(client.clone()));
        tasks.spawn(lease::run(client.clone(), name));
        tasks.spawn(statuses.clone().run(client.clone()));
        tasks.spawn(events.clone().run(client));
        tasks.spawn(collect::run(manager.clone(), images, data_dir, events));
        Ok(Self { manager, api, address, stop, statuses, feed, tasks })
    }

    /// Where the node API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node API without a socket, for an API server in this process.
    pub fn api(&self) -> NodeApi {
        self.api.clone()
    }

    /// The node's pods.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Ends all containers, each within `grace`, writes what is not written, and stops. Pods stay as the API has them: the
    /// next start of this node runs them again.
    pub fn shutdown(self, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.stop(grace))
    }

    async fn stop(mut self, grace: Duration) {
        self.feed.shutdown().await;
        self.manager.shutdown(grace).await;
        if tokio::time::timeout(FLUSH, self.statuses.flushed()).await.is_err() {
            tracing::warn!("some pod statuses were not written before the node stopped");
        }
        self.stop.cancel();
        self.tasks.shutdown().await;
    }
}
