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
use wherry_control::reconcile::Key;
use wherry_runtime::backend::wasm::{Engine, GuestRuntime, WasmBackend};
use wherry_runtime::image::store::ImageStore;
use wherry_runtime::log::Limits;
use wherry_runtime::network::ipam::{KEPT, Slot};
use wherry_runtime::network::{HostPorts, LocalNetwork};
use wherry_runtime::node::tls::NodeTls;
use wherry_runtime::node::{Node, NodeConfig};

use crate::data_dir::DataDir;
use crate::pods;
use crate::progress::Progress;
use crate::security::Security;

/// How long containers have to end when the process stops, at most; their own grace periods may be shorter.
const CONTAINERS: Duration = Duration::from_secs(10);
/// How long the pods of the last process have to run again before others are looked at.
const RESUME: Duration = Duration::from_secs(10);
/// A wait that a person does not notice is not told.
const NOTICED: Duration = Duration::from_secs(1);
/// Pods that a message names at most.
const NAMED: usize = 5;
/// How long requests in flight have.
const REQUESTS: Duration = Duration::from_secs(5);

/// The running process.
#[derive(Debug)]
pub struct Stack {
    plane: ControlPlane,
    node: Node,
    host_ports: HostPorts,
}

impl Stack {
    /// Starts server and node. `slot` is the part of 127.0.0.0/8 that the cluster uses; node ports listen on `node_ports`.
    pub async fn start(
        data: &DataDir,
        listen: SocketAddr,
        node_name: &str,
        slot: Slot,
        node_ports: IpAddr,
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
        let client = plane.client_for(UserInfo::node(node_name), "kube-proxy");
        let network = LocalNetwork::start(slot, client, node_name.to_owned(), node_ports);
        let host_ports = network.host_ports();
        let node = start_node(&plane, data, node_name, network, engine).await?;
        Ok(Self { plane, node, host_ports })
    }

    /// Returns when the pods that were ready when the last process ended run again; what their status says until then is of
    /// that process. A pod that does not run is not waited for longer than [`RESUME`], those that say why they cannot no longer than
    /// for others, and one that is to go not at all; what is waited for is told by a step that lasts as long as it takes.
    pub async fn resumed(&self, progress: Progress) {
        let pods = &self.plane.shared().pods;
        pods.synced().await;
        let runs = |pod: &Pod| {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            self.node.manager().find(&namespace, &name).is_some_and(|shared| !shared.running().is_empty())
        };
        let now = |pod: &Pod| pods.get(&Key::of(pod));
        let mut waiting: Vec<_> = pods.list().into_iter().filter(|pod| is_ready(pod)).collect();
        let began = tokio::time::Instant::now();
        let mut step = None;
        while began.elapsed() < RESUME {
            if !look(&mut waiting, now, runs) {
                break;
            }
            if step.is_none() && began.elapsed() > NOTICED {
                step = Some(progress.begin(&format!("waiting for pods that ran before: {}", names(&waiting))));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match step {
            Some(step) if waiting.is_empty() => step.done_as("pods that ran before run again"),
            None if waiting.is_empty() => {}
            step => {
                let step = step.unwrap_or_else(|| progress.step(""));
                step.done_badly_as(&format!("pods that ran before do not run yet: {}", names(&waiting)));
            }
        }
    }

    /// Which node ports the host is served on.
    pub fn host_ports(&self) -> &HostPorts {
        &self.host_ports
    }

    /// Where the API is served.
    pub fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    /// An administrator's client.
    pub fn admin(&self) -> kube::Client {
        self.plane.client_for(UserInfo::admin(), "wherry")
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

/// Whether a pod is there still as `now`, and is not to go or over.
fn is_wanted(pod: &Pod, now: Option<&Pod>) -> bool {
    now.filter(|now| now.metadata.uid == pod.metadata.uid).is_some_and(|now| {
        let phase = now.status.as_ref().and_then(|status| status.phase.as_deref());
        now.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
    })
}

/// Leaves the pods that do not run yet. `false`: there are none that may without anybody's help.
fn look(waiting: &mut Vec<Arc<Pod>>, now: impl Fn(&Pod) -> Option<Arc<Pod>>, runs: impl Fn(&Pod) -> bool) -> bool {
    waiting.retain(|pod| is_wanted(pod, now(pod).as_deref()) && !runs(pod));
    waiting.iter().any(|pod| !now(pod).as_deref().is_some_and(is_stuck))
}

/// Whether a pod that was ready says why a container of it cannot run: its image above all.
fn is_stuck(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| {
        [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten()
    });
    let mut waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    waiting.any(|reason| !matches!(reason, "ContainerCreating" | "PodInitializing"))
}

/// `default/a, default/b and 3 more`.
fn names(pods: &[Arc<Pod>]) -> String {
    let mut names: Vec<_> =
        pods.iter().map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())).collect();
    names.sort();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
}

async fn start_node(
    plane: &ControlPlane,
    data: &DataDir,
    name: &str,
    network: LocalNetwork,
    engine: Engine,
) -> anyhow::Result<Node> {
    let client = plane.client_for(UserInfo::node(name), "kubelet");
    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
    let credentials = plane.issue_node_credentials(name, &[address])?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let guests = GuestRuntime::new(&engine, cores).context("the guests' threads cannot start")?;
    let images = ImageStore::open(data.join("images"), engine.clone(), client.clone())
        .with_context(|| format!("the image store in {} cannot be opened", data.path().display()))?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, more: serde_json::Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"containers": []}});
        if more["going"] == true {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        pod["status"] = json!({"phase": more["phase"]});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn pods_that_are_gone_going_or_over_are_not_waited_for() {
        let before = pod("a", json!({"phase": "Running"}));
        assert!(is_wanted(&before, Some(&before)));
        assert!(!is_wanted(&before, None));
        assert!(!is_wanted(&before, Some(&pod("another", json!({"phase": "Running"})))));
        assert!(!is_wanted(&before, Some(&pod("a", json!({"phase": "Running", "going": true})))));
        assert!(!is_wanted(&before, Some(&pod("a", json!({"phase": "Succeeded"})))));
    }

    #[test]
    fn a_pod_that_says_why_it_cannot_run_is_stuck() {
        let stuck = |field: &str, reason: &str| {
            let status = json!({field: [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason}}}]});
            is_stuck(
                &serde_json::from_value(json!({"metadata": {}, "spec": {"containers": []}, "status": status})).unwrap(),
            )
        };
        assert!(stuck("containerStatuses", "ErrImagePull") && stuck("initContainerStatuses", "ImagePullBackOff"));
        assert!(!stuck("containerStatuses", "ContainerCreating") && !stuck("containerStatuses", "PodInitializing"));
    }

    #[test]
    fn a_stuck_pod_that_runs_meanwhile_is_not_told_of() {
        let status = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "i", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}}]});
        let mut stuck = (*pod("stuck", json!({}))).clone();
        stuck.status = serde_json::from_value(status).unwrap();
        let (stuck, slow) = (Arc::new(stuck), pod("slow", json!({"phase": "Pending"})));
        let now = |pod: &Pod| [&stuck, &slow].into_iter().find(|known| known.name_any() == pod.name_any()).cloned();
        let mut waiting = vec![Arc::clone(&stuck), Arc::clone(&slow)];
        assert!(look(&mut waiting, now, |_| false), "the slow one may still come");
        let mut alone = waiting.clone();
        assert!(!look(&mut alone, now, |pod| pod.name_any() == "slow"));
        assert_eq!(names(&alone), "ns/stuck");
        assert!(!look(&mut waiting, now, |_| true) && waiting.is_empty());
    }

    #[test]
    fn a_few_pods_are_named() {
        let pods: Vec<_> = ["c", "a", "b", "f", "e", "d", "g"].map(|name| pod(name, json!({}))).into();
        assert_eq!(names(&pods[..2]), "ns/a, ns/c");
        assert_eq!(names(&pods), "ns/a, ns/b, ns/c, ns/d, ns/e and 2 more");
    }
}
