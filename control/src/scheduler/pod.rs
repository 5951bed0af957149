//! A pod as the scheduler sees it: what it asks of a node, worked out once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};

use super::resources::{Resources, pod_compared, pod_requests};
use crate::reconcile::{Key, controller_of};

/// A port of the node itself that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node; `0.0.0.0` is every address.
    pub fn collides(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

#[derive(Debug)]
pub struct PodInfo {
    pub key: Key,
    pub pod: Arc<Pod>,
    pub requests: Resources,
    /// With defaults for what asks for nothing: only for comparing nodes.
    pub compared: Resources,
    pub ports: Vec<HostPort>,
    pub priority: i32,
    /// uid of the controller, by which pods are spread.
    pub owner: Option<Box<str>>,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        Self {
            key: Key::of(&*pod),
            requests: pod_requests(&pod),
            compared: pod_compared(&pod),
            ports: pod.spec.as_ref().map(host_ports).unwrap_or_default(),
            priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or_default(),
            owner: controller_of(&pod.metadata).map(|o| o.uid.as_str().into()),
            pod,
        }
    }

    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(HostPort { ip, protocol, port: number })
    });
    taken.collect()
}
