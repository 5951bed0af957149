//! The Node object: made once, with its status, which is written again when it changes, when somebody else changed it, and every
//! five minutes. What changes is told in events.

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
use tokio::time::Instant;

use super::machine::{Machine, Pressure};
use crate::image::Images;
use crate::pod::events::Recorder;

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
    pub events: Recorder,
}

impl Registration {
    /// Makes the Node, or takes over the one that is there; then keeps its status until dropped.
    pub async fn run(self, client: Client) {
        let api: Api<NodeObject> = Api::all(client);
        self.events.record_node(false, "Starting", "Starting kubelet.".to_owned());
        let mut said = Said::default();
        let mut delay = Duration::from_millis(100);
        while let Err(error) = self.register(&api, &mut said).await {
            tracing::warn!(node = %self.name, %error, "cannot register this node; trying again");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(10));
        }
        self.keep(&api, said).await;
    }

    /// A Node that is new has all that its machine has at once: the scheduler never sees one without room for pods.
    async fn register(&self, api: &Api<NodeObject>, said: &mut Said) -> kube::Result<()> {
        if api.get_opt(&self.name).await?.is_none() {
            let status = self.status(Pressure::read(&self.data_dir), &mut said.since).await;
            let node = NodeObject {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    labels: Some(self.all_labels()),
                    ..ObjectMeta::default()
                },
                status: Some(beating(&status)),
                ..NodeObject::default()
            };
            match api.create(&PostParams::default(), &node).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    said.written = Some((status, Instant::now()));
                    return Ok(());
                }
            }
        }
        let labels = serde_json::json!({"metadata": {"labels": self.all_labels()}});
        api.patch(&self.name, &PatchParams::default(), &Patch::Merge(labels)).await.map(|_| ())
    }

    async fn keep(&self, api: &Api<NodeObject>, mut said: Said) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.overruled(api, &mut said.since).await {
                said.written = None;
            }
            let status = self.status(Pressure::read(&self.data_dir), &mut said.since).await;
            if let Some((before, at)) = &said.written
                && at.elapsed() < REPEAT
                && *before == status
            {
                continue;
            }
            let now = Instant::now();
            let patch = serde_json::json!({"status": beating(&status)});
            match api.patch_status(&self.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => said.written = Some((status, now)),
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    // Somebody deleted the Node of a machine that is alive.
                    said.written = None;
                    if let Err(error) = self.register(api, &mut said).await {
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
        let told = node.status.unwrap_or_default();
        let booted = told.node_info.map(|info| info.boot_id).unwrap_or_default();
        let told = told.conditions.unwrap_or_default();
        if since.0.is_empty() {
            // This process has said nothing yet: what an earlier one did still holds.
            *since = Transitions::told(&told);
            let boot_id = &self.machine.boot_id;
            if !booted.is_empty() && booted != *boot_id {
                let message = format!("Node {} has been rebooted, boot id: {boot_id}", self.name);
                self.events.record_node(true, "Rebooted", message);
            }
            return true;
        }
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
            // Deprecated, and set by the kubelet as well: older charts select nodes by them.
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.machine.architecture),
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
            conditions: Some(self.conditions(pressure, since)),
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

/// What this process has told of its node.
#[derive(Debug, Default)]
struct Said {
    since: Transitions,
    /// The status that was written last, without the time of its heartbeat, and when.
    written: Option<(NodeStatus, Instant)>,
}

/// The status as it is written now.
fn beating(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = Some(Time(Timestamp::now()));
    }
    status
}

/// When each condition last changed.
#[derive(Debug, Default)]
struct Transitions(BTreeMap<&'static str, (bool, Timestamp)>);

impl Transitions {
    /// As the API has them; what nothing is known of is new.
    fn told(conditions: &[NodeCondition]) -> Self {
        let known = CONDITIONS.iter().filter_map(|(name, ..)| {
            let told = conditions.iter().find(|condition| condition.type_ == *name)?;
            let status = match told.status.as_str() {
                "True" => true,
                "False" => false,
                _ => return None,
            };
            Some((*name, (status, told.last_transition_time.as_ref()?.0)))
        });
        Self(known.collect())
    }
}

/// Each condition, and the reasons of it, if it is true and if not.
const CONDITIONS: [(&str, [&str; 2]); 4] = [
    ("MemoryPressure", ["KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"]),
    ("DiskPressure", ["KubeletHasDiskPressure", "KubeletHasNoDiskPressure"]),
    ("PIDPressure", ["KubeletHasInsufficientPID", "KubeletHasSufficientPID"]),
    ("Ready", ["KubeletReady", "KubeletNotReady"]),
];

impl Registration {
    /// The conditions now; of what has changed since the last time there is an event.
    fn conditions(&self, pressure: Pressure, since: &mut Transitions) -> Vec<NodeCondition> {
        let now = Timestamp::now();
        let all = CONDITIONS.iter().zip([pressure.memory, pressure.disk, pressure.pids, true]);
        all.map(|((name, [when_true, when_false]), status)| {
            let reason = if status { when_true } else { when_false };
            let entry = since.0.get(name).filter(|(before, _)| *before == status).copied();
            let (_, changed) = entry.unwrap_or_else(|| {
                let reason = event(reason);
                self.events.record_node(false, reason, format!("Node {} status is now: {reason}", self.name));
                (status, now)
            });
            since.0.insert(name, (status, changed));
            NodeCondition {
                type_: (*name).to_owned(),
                status: if status { "True" } else { "False" }.to_owned(),
                reason: Some((*reason).to_owned()),
                message: Some(message(reason).to_owned()),
                last_transition_time: Some(Time(changed)),
                last_heartbeat_time: None,
            }
        })
        .collect()
    }
}

/// The reason of the event that tells of a condition.
fn event(reason: &str) -> &'static str {
    match reason {
        "KubeletHasInsufficientMemory" => "NodeHasInsufficientMemory",
        "KubeletHasSufficientMemory" => "NodeHasSufficientMemory",
        "KubeletHasDiskPressure" => "NodeHasDiskPressure",
        "KubeletHasNoDiskPressure" => "NodeHasNoDiskPressure",
        "KubeletHasInsufficientPID" => "NodeHasInsufficientPID",
        "KubeletHasSufficientPID" => "NodeHasSufficientPID",
        "KubeletNotReady" => "NodeNotReady",
        _ => "NodeReady",
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pod::testing::{World, eventually};

    fn node(world: &World) -> Registration {
        Registration {
            name: "n1".to_owned(),
            address: [127, 0, 0, 1].into(),
            port: 0,
            labels: BTreeMap::new(),
            runtime_version: String::new(),
            machine: Machine { boot_id: "now".to_owned(), ..Machine::read(Path::new("/")) },
            data_dir: PathBuf::new(),
            images: Arc::clone(&world.ctx.images),
            events: world.ctx.events.clone(),
        }
    }

    #[tokio::test]
    async fn a_node_tells_what_changes_and_what_an_earlier_process_said_holds() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(folder.path());
        let (node, mut since) = (node(&world), Transitions::default());
        let first = node.conditions(Pressure::default(), &mut since);
        assert_eq!(node.conditions(Pressure::default(), &mut since), first);
        let mut since = Transitions::told(&first);
        let later = node.conditions(Pressure { disk: true, ..Pressure::default() }, &mut since);
        let changed = first.iter().zip(&later).filter(|(before, now)| before != now);
        assert_eq!(changed.map(|(_, now)| now.type_.as_str()).collect::<Vec<_>>(), ["DiskPressure"]);
        eventually("all is told", || world.api.events().len() == 5).await;
        let at_first = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"];
        assert_eq!(world.api.events(), [&at_first[..], &["NodeHasDiskPressure"]].concat());
        assert_eq!(world.api.count(&http::Method::POST, "/api/v1/namespaces/default/events"), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_node_has_all_that_its_machine_has_from_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(folder.path());
        let (node, api) = (node(&world), Api::all(world.api.client()));
        let mut said = Said::default();
        node.register(&api, &mut said).await.unwrap();
        let created = world.api.sent(&http::Method::POST, "/api/v1/nodes").pop().unwrap();
        let created: NodeObject = serde_json::from_value(created).unwrap();
        let status = created.status.clone().unwrap();
        assert_eq!((&status.capacity, &status.allocatable), (&Some(node.capacity()), &Some(node.capacity())));
        let conditions = status.conditions.unwrap();
        assert!(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
        assert!(conditions.iter().all(|condition| condition.last_heartbeat_time.is_some()));
        assert!(status.addresses.is_some() && status.node_info.is_some() && status.daemon_endpoints.is_some());

        // It is not written a second time before that is due.
        world.api.put("/api/v1/nodes/n1", serde_json::to_value(&created).unwrap());
        let kept = tokio::time::timeout(LOOK * 2, node.keep(&api, said)).await;
        assert!(kept.is_err());
        assert_eq!(world.api.count(&http::Method::PATCH, "/api/v1/nodes/n1/status"), 0);
        assert_eq!(world.api.events().iter().filter(|told| *told == "NodeReady").count(), 1);
    }

    #[tokio::test]
    async fn a_machine_that_was_started_again_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(folder.path());
        let (node, api) = (node(&world), Api::all(world.api.client()));
        let told_of = |reason: &str| world.api.events().iter().filter(|told| *told == reason).count();
        for (at, (booted, told)) in [("now", 0), ("before", 1)].into_iter().enumerate() {
            let info = serde_json::json!({"bootID": booted});
            world.api.put("/api/v1/nodes/n1", serde_json::json!({"status": {"nodeInfo": info}, "metadata": {}}));
            let mut since = Transitions::default();
            assert!(node.overruled(&api, &mut since).await);
            // Another each time: one that is repeated is counted on the first.
            node.events.record_node(false, "Last", at.to_string());
            eventually("all is told", || told_of("Last") == at + 1).await;
            assert_eq!(told_of("Rebooted"), told);
        }
    }
}
