//! Server and node in one process: starts them in the order in which they need each other, stops them in the reverse one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use wherry_control::auth::UserInfo;
use wherry_control::plane::{Config, ControlPlane};
use wherry_runtime::backend::wasm::{Engine, GuestRuntime, WasmBackend};
use wherry_runtime::image::store::ImageStore;
use wherry_runtime::log::Limits;
use wherry_runtime::network::LocalNetwork;
use wherry_runtime::network::ipam::{KEPT, Slot};
use wherry_runtime::node::tls::NodeTls;
use wherry_runtime::node::{Node, NodeConfig};

use crate::data_dir::DataDir;
use crate::pods;
use crate::security::Security;

/// How long containers have to end when the process stops, at most; their own grace periods may be shorter.
const CONTAINERS: Duration = Duration::from_secs(10);
/// How long the pods of the last process have to run again before others are looked at.
const RESUME: Duration = Duration::from_secs(10);
/// How long requests in flight have.
const REQUESTS: Duration = Duration::from_secs(5);

/// The running process.
#[derive(Debug)]
pub struct Stack {
    plane: ControlPlane,
    node: Node,
}

impl Stack {
    /// Starts server and node. `slot` is the part of 127.0.0.0/8 that the cluster uses.
    pub async fn start(
        data: &DataDir,
        listen: SocketAddr,
        node_name: &str,
        slot: Slot,
        security: &Security,
    ) -> anyhow::Result<Self> {
        let services = slot.services().to_string().parse().context("the range of Service addresses is not one")?;
        // The engine reserves address space and probes the machine, which takes a while: beside the server's start.
        let engine = tokio::task::spawn_blocking(Engine::new);
        let kept: Result<_, _> = KEPT.iter().map(|range| range.parse()).collect();
        let mut config = security.apply(Config::new(data.path(), listen, services));
        config.not_for_services = kept.context("a range of the local network is not one")?;
        let plane = ControlPlane::start(config).await?;
        let engine = engine.await.context("the WebAssembly engine's start was interrupted")??;
        let node = start_node(&plane, data, node_name, slot, engine).await?;
        Ok(Self { plane, node })
    }

    /// Returns when the pods that were ready when the last process ended run again; what their status says until then is of
    /// that process. A pod that cannot run is not waited for longer than [`RESUME`].
    pub async fn resumed(&self) {
        let pods = &self.plane.shared().pods;
        pods.synced().await;
        let was_ready: Vec<_> = pods.list().into_iter().filter(|pod| is_ready(pod)).collect();
        let runs = |pod: &Pod| {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            self.node.manager().find(&namespace, &name).is_some_and(|shared| !shared.running().is_empty())
        };
        let all = async {
            while !was_ready.iter().all(|pod| runs(pod)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(RESUME, all).await.is_err() {
            tracing::warn!("some pods that ran before do not run yet");
        }
    }

    /// Where the API is served.
    pub fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    /// An administrator's client.
    pub fn admin(&self) -> kube::Client {
        self.plane.client_for(UserInfo::admin())
    }

    /// Ends containers, then everything else. The pods stay as objects and run again at the next start.
    pub async fn shutdown(self) {
        self.node.shutdown(CONTAINERS).await;
        if let Err(error) = self.plane.shutdown(REQUESTS).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the control plane did not stop cleanly");
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn start_node(
    plane: &ControlPlane,
    data: &DataDir,
    name: &str,
    slot: Slot,
    engine: Engine,
) -> anyhow::Result<Node> {
    let client = plane.client_for(UserInfo::node(name));
    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
    let credentials = plane.issue_node_credentials(name, &[address])?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let guests = GuestRuntime::new(cores).context("the guests' threads cannot start")?;
    let images = ImageStore::open(data.join("images"), engine.clone(), client.clone())
        .with_context(|| format!("the image store in {} cannot be opened", data.path().display()))?;
    let network = LocalNetwork::start(slot, client.clone(), name.to_owned());
    let config = NodeConfig {
        name: name.to_owned(),
        client,
        data_dir: data.path().to_owned(),
        listen: SocketAddr::new(address, 0),
        tls: NodeTls {
            certificate: credentials.serving.certificate,
            key: credentials.serving.key,
            client_ca: credentials.ca,
        },
        labels: BTreeMap::new(),
        backends: vec![WasmBackend::new(engine, guests)?],
        images: Arc::new(images),
        network: Arc::new(network),
        pods: Some(pods::of_node(&plane.shared().pods, name)),
        logs: Limits::default(),
    };
    Ok(Node::start(config).await?)
}
