//! The Node object: made once, its status written when it changes, when somebody else changed it, and every five minutes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node as NodeObject, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};

use super::machine::{Machine, Pressure};
use crate::image::Images;

/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How often an unchanged status is written.
const REPEAT: Duration = Duration::from_mins(5);
/// Images and names of each that the status shows, as the kubelet has it.
const IMAGES: usize = 50;
const NAMES: usize = 5;
/// The Kubernetes release whose API this node speaks.
const KUBERNETES: &str = "v1.36.0";

/// What a node tells about itself.
#[derive(Clone, Debug)]
pub struct Registration {
    pub name: String,
    pub address: IpAddr,
    /// Where the node API listens.
    pub port: u16,
    pub labels: BTreeMap<String, String>,
    /// `NAME://VERSION` of its backends.
    pub runtime_version: String,
    pub machine: Machine,
    pub data_dir: PathBuf,
    pub images: Arc<dyn Images>,
}

impl Registration {
    /// Makes the Node, or takes over the one that is there; then keeps its status until dropped.
    pub async fn run(self, client: Client) {
        let api: Api<NodeObject> = Api::all(client);
        let mut delay = Duration::from_millis(100);
        while let Err(error) = self.register(&api).await {
            tracing::warn!(node = %self.name, %error, "cannot register this node; trying again");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(10));
        }
        self.keep(&api).await;
    }

    async fn register(&self, api: &Api<NodeObject>) -> kube::Result<()> {
        if api.get_opt(&self.name).await?.is_none() {
            let node = NodeObject {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    labels: Some(self.all_labels()),
                    ..ObjectMeta::default()
                },
                ..NodeObject::default()
            };
            match api.create(&PostParams::default(), &node).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map(|_| ()),
            }
        }
        let labels = serde_json::json!({"metadata": {"labels": self.all_labels()}});
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(labels)).await.map(|_| ())
    }

    async fn keep(&self, api: &Api<NodeObject>) {
        let mut written: Option<(NodeStatus, tokio::time::Instant)> = None;
        let mut since = Transitions::default();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.overruled(api, &mut since).await {
                written = None;
            }
            let mut status = self.status(Pressure::read(&self.data_dir), &mut since).await;
            if let Some((before, at)) = &written
                && at.elapsed() < REPEAT
                && *before == status
            {
                continue;
            }
            let now = tokio::time::Instant::now();
            let plain = status.clone();
            for condition in status.conditions.iter_mut().flatten() {
                condition.last_heartbeat_time = Some(Time(Timestamp::now()));
            }
            let patch = serde_json::json!({"status": status});
            match api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => written = Some((plain, now)),
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    // Somebody deleted the Node of a machine that is alive.
                    written = None;
                    if let Err(error) = self.register(api).await {
                        tracing::warn!(node = %self.name, %error, "cannot register this node again");
                    }
                }
                Err(error) => tracing::warn!(node = %self.name, %error, "node status not written"),
            }
        }
    }

    /// Whether the API says otherwise than this node: that it is gone, or, after a time without heartbeats (a suspended
    /// laptop), that nothing is known of it. What was said otherwise changes now.
    async fn overruled(&self, api: &Api<NodeObject>, since: &mut Transitions) -> bool {
        let node = match api.get_opt(&self.name).await {
            Ok(Some(node)) => node,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let told = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let before = since.0.len();
        since.0.retain(|name, (status, _)| {
            let word = if *status { "True" } else { "False" };
            told.iter().all(|condition| condition.type_ != *name || condition.status == word)
        });
        since.0.len() != before
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let own = [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.machine.architecture),
            ("wherry.dev/wasm", "true"),
        ];
        let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        own.chain(self.labels.clone()).collect()
    }

    async fn status(&self, pressure: Pressure, since: &mut Transitions) -> NodeStatus {
        let capacity = self.capacity();
        NodeStatus {
            addresses: Some(vec![
                NodeAddress { type_: "InternalIP".to_owned(), address: self.address.to_string() },
                NodeAddress { type_: "Hostname".to_owned(), address: self.name.clone() },
            ]),
            allocatable: Some(capacity.clone()),
            capacity: Some(capacity),
            conditions: Some(conditions(pressure, since)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(self.port) }),
            }),
            images: Some(self.image_list().await),
            node_info: Some(NodeSystemInfo {
                architecture: self.machine.architecture.to_owned(),
                boot_id: self.machine.boot_id.clone(),
                container_runtime_version: self.runtime_version.clone(),
                kernel_version: self.machine.kernel.clone(),
                kubelet_version: format!("{KUBERNETES}+wherry-{}", env!("CARGO_PKG_VERSION")),
                machine_id: self.machine.machine_id.clone(),
                operating_system: "linux".to_owned(),
                os_image: self.machine.os_image.clone(),
                system_uuid: self.machine.machine_id.clone(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }
    }

    /// The node's resources, as in `capacity`.
    pub fn capacity(&self) -> BTreeMap<String, Quantity> {
        let machine = &self.machine;
        [
            ("cpu", machine.cpus.to_string()),
            ("memory", format!("{}Ki", machine.memory / 1024)),
            ("ephemeral-storage", format!("{}Ki", machine.disk / 1024)),
            ("pods", machine.pods().to_string()),
        ]
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
        .collect()
    }

    async fn image_list(&self) -> Vec<ContainerImage> {
        let mut images = self.images.list().await;
        images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.names.cmp(&b.names)));
        let shown = images.into_iter().take(IMAGES).map(|mut image| {
            image.names.truncate(NAMES);
            ContainerImage { names: Some(image.names), size_bytes: i64::try_from(image.size).ok() }
        });
        shown.collect()
    }
}

/// When each condition last changed.
#[derive(Debug, Default)]
struct Transitions(BTreeMap<&'static str, (bool, Timestamp)>);

fn conditions(pressure: Pressure, since: &mut Transitions) -> Vec<NodeCondition> {
    let now = Timestamp::now();
    [
        ("MemoryPressure", pressure.memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
        ("DiskPressure", pressure.disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
        ("PIDPressure", pressure.pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
        ("Ready", true, "KubeletReady", "KubeletNotReady"),
    ]
    .into_iter()
    .map(|(name, status, when_true, when_false)| {
        let entry = since.0.entry(name).or_insert((status, now));
        if entry.0 != status {
            *entry = (status, now);
        }
        let reason = if status { when_true } else { when_false };
        NodeCondition {
            type_: name.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message(reason).to_owned()),
            last_transition_time: Some(Time(entry.1)),
            last_heartbeat_time: None,
        }
    })
    .collect()
}

fn message(reason: &str) -> &'static str {
    match reason {
        "KubeletHasInsufficientMemory" => "kubelet has insufficient memory available",
        "KubeletHasSufficientMemory" => "kubelet has sufficient memory available",
        "KubeletHasDiskPressure" => "kubelet has disk pressure",
        "KubeletHasNoDiskPressure" => "kubelet has no disk pressure",
        "KubeletHasInsufficientPID" => "kubelet has insufficient PID available",
        "KubeletHasSufficientPID" => "kubelet has sufficient PID available",
        _ => "kubelet is posting ready status",
    }
}
