//! Which pods stand behind a Service, under which addresses and ports. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use crate::controllers::pods;

/// A port of the Service as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    pub name: Option<String>,
    pub number: i32,
    pub protocol: String,
    pub app_protocol: Option<String>,
}

/// One pod behind the Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// One per address family.
    pub addresses: Vec<String>,
    pub node: Option<String>,
    pub hostname: Option<String>,
    pub pod: ObjectReference,
    pub serving: bool,
    pub terminating: bool,
    /// Named target ports may differ from pod to pod.
    pub ports: Vec<Port>,
}

/// Whether somebody else keeps this Service's endpoints: it has no selector, or is only a name.
pub fn is_foreign(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return true };
    spec.selector.as_ref().is_none_or(BTreeMap::is_empty) || spec.type_.as_deref() == Some("ExternalName")
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods count as ready that are not.
pub fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or_default()
}

/// Whether the Service's selector covers these labels.
pub fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    !is_foreign(service)
        && service
            .spec
            .as_ref()
            .and_then(|s| s.selector.as_ref())
            .is_some_and(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

/// The pods behind the Service, by name.
pub fn backends(service: &Service, candidates: &[Arc<Pod>]) -> Vec<Backend> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let live = candidates.iter().filter(|pod| !pods::is_ended(pod) && selects(service, pod.labels()));
    live.filter_map(|pod| backend(service, ports, pod)).collect()
}

fn backend(service: &Service, ports: &[ServicePort], pod: &Pod) -> Option<Backend> {
    let addresses = addresses(pod);
    if addresses.is_empty() {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let named = spec.subdomain.as_ref().is_some_and(|domain| *domain == service.name_any());
    let mut resolved: Vec<Port> = ports.iter().filter_map(|port| resolve(port, pod)).collect();
    resolved.sort();
    Some(Backend {
        addresses,
        node: spec.node_name.clone(),
        hostname: spec.hostname.clone().filter(|name| named && !name.is_empty()),
        pod: ObjectReference { api_version: None, ..pod.object_ref(&()) },
        serving: pods::is_ready(pod),
        terminating: pods::is_deleting(pod),
        ports: resolved,
    })
}

fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut all: Vec<String> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    if let Some(ip) = &status.pod_ip
        && !all.contains(ip)
    {
        all.insert(0, ip.clone());
    }
    all.retain(|ip| !ip.is_empty());
    all
}

fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some(Port { name: port.name.clone(), number, protocol, app_protocol: port.app_protocol.clone() })
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let found = ports.find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
    found.map(|p| p.container_port)
}

/// Whether a pod's change can matter to the Services in front of it.
pub fn matters(old: &Pod, new: &Pod) -> bool {
    let seen = |pod: &Pod| {
        (pods::is_ready(pod), pods::is_deleting(pod), pods::is_ended(pod), addresses(pod), pods::node(pod).to_owned())
    };
    seen(old) != seen(new) || old.labels() != new.labels()
}

#[cfg(test)]
#[allow(clippy::missing_panics_doc)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub fn service(spec: Value) -> Service {
        let mut all =
            json!({"selector": {"app": "a"}, "clusterIP": "127.96.0.1", "ports": [{"port": 80, "targetPort": "web"}]});
        if let (Some(all), Value::Object(spec)) = (all.as_object_mut(), spec) {
            all.extend(spec);
        }
        serde_json::from_value(
            json!({"metadata": {"name": "s", "namespace": "n", "uid": "su", "labels": {"l": "1"}}, "spec": all}),
        )
        .expect("a service")
    }

    pub fn pod(number: usize, web: i32, ready: bool, deleting: bool) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": format!("p{number:04}"), "namespace": "n", "uid": format!("u{number}"), "labels": {"app": "a"}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": web}]}]},
            "status": {"phase": "Running", "podIP": format!("10.0.{}.{}", number / 250, number % 250),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn a_named_target_port_is_the_pods_own() {
        let found = backends(&service(json!({})), &[pod(1, 8080, true, false), pod(2, 9090, true, false)]);
        let ports: Vec<_> = found.iter().map(|b| b.ports[0].number).collect();
        assert_eq!(ports, [8080, 9090]);
    }

    #[test]
    fn pods_without_address_or_with_other_labels_are_not_behind_it() {
        let mut bare = (*pod(1, 80, true, false)).clone();
        bare.status = None;
        let mut other = (*pod(2, 80, true, false)).clone();
        other.metadata.labels = None;
        assert!(backends(&service(json!({})), &[Arc::new(bare), Arc::new(other)]).is_empty());
    }

    #[test]
    fn services_without_selector_belong_to_somebody_else() {
        assert!(is_foreign(&service(json!({"selector": null}))));
        assert!(is_foreign(&service(json!({"type": "ExternalName"}))));
        assert!(!is_foreign(&service(json!({}))));
    }
}
