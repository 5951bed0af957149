//! What the table holds of a Service, from the objects of the API: its ports, and which endpoints of its slices are behind them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;

use super::{Affinity, Named, ServicePort};
use crate::network::Protocol;

/// Builds what the table holds of a Service from the objects. `old` gives the turn counters; `node` is this node's name,
/// for traffic policies.
pub(in crate::network) fn build(service: &Service, slices: &[EndpointSlice], node: &str, old: Option<&Named>) -> Named {
    let spec = service.spec.clone().unwrap_or_default();
    let full = format!("{}/{}", text(service.metadata.namespace.as_ref()), text(service.metadata.name.as_ref()));
    if spec.type_.as_deref() == Some("ExternalName") {
        return Named { external_name: spec.external_name, ..Named::default() };
    }
    let local_only = spec.internal_traffic_policy.as_deref() == Some("Local")
        || spec.external_traffic_policy.as_deref() == Some("Local");
    let endpoints = usable(slices, local_only.then_some(node));
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured =
            spec.session_affinity_config.and_then(|c| c.client_ip).and_then(|c| c.timeout_seconds).unwrap_or(10_800);
        Duration::from_secs(u64::try_from(configured).unwrap_or(10_800))
    });
    let specified = spec.ports.unwrap_or_default();
    let opens = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let names: Vec<&str> = specified.iter().map(|port| text(port.name.as_ref())).collect();
    // Where Kubernetes writes the slices, by the Service's selector.
    let follows = spec.selector.is_some_and(|selector| !selector.is_empty());
    let ports = specified.iter().filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        let before = old.and_then(|old| old.ports.iter().find(|p| p.name == name));
        let stale = follows.then(|| Stale { target: target(port), names: &names });
        Some(Arc::new(ServicePort {
            service: full.clone(),
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| opens && *p != 0),
            endpoints: addresses(slices, &name, stale.as_ref(), local_only.then_some(node)),
            next: before.map_or_else(Arc::default, |p| p.next.clone()),
            affinity: affinity.map(|timeout| {
                let kept = before.and_then(|p| p.affinity.clone()).filter(|a| a.timeout == timeout);
                kept.unwrap_or_else(|| Arc::new(Affinity { timeout, chosen: Mutex::default() }))
            }),
            name,
        }))
    });
    Named {
        ports: ports.collect(),
        cluster_ip: spec.cluster_ip.and_then(|ip| ip.parse().ok()),
        external_name: None,
        endpoints: endpoints.into(),
    }
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// Ready endpoints of the slices with their hostnames, on `node` only if given.
fn usable(slices: &[EndpointSlice], node: Option<&str>) -> Vec<(IpAddr, Option<String>)> {
    let ready =
        slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).filter(|endpoint| is_usable(endpoint, node));
    ready.flat_map(|e| e.addresses.iter().filter_map(|a| Some((a.parse().ok()?, e.hostname.clone())))).collect()
}

fn is_usable(endpoint: &k8s_openapi::api::discovery::v1::Endpoint, node: Option<&str>) -> bool {
    let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    ready && node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node))
}

/// How a slice is read that does not know a port's new name yet: by the number of the pods' port, under a name that the Service
/// no longer has. Otherwise a Service would answer nobody between a change of names and its slices'.
struct Stale<'a> {
    target: Option<i32>,
    names: &'a [&'a str],
}

impl Stale<'_> {
    fn is(&self, port: &EndpointPort) -> bool {
        port.port == self.target && !self.names.contains(&text(port.name.as_ref()))
    }
}

/// The number of the pods' port, if the Service gives one.
fn target(port: &k8s_openapi::api::core::v1::ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(_)) => None,
    }
}

/// Ready endpoints of one named port.
fn addresses(
    slices: &[EndpointSlice],
    port_name: &str,
    stale: Option<&Stale<'_>>,
    node: Option<&str>,
) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        let ports = || slice.ports.iter().flatten();
        let port = ports().find(|port| text(port.name.as_ref()) == port_name);
        let port =
            port.or_else(|| ports().find(|port| port.port.is_some() && stale.is_some_and(|stale| stale.is(port))));
        let Some(port) = port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else { continue };
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| is_usable(endpoint, node));
        found.extend(
            ready.flat_map(|e| &e.addresses).filter_map(|a| a.parse::<IpAddr>().ok()).map(|a| SocketAddr::new(a, port)),
        );
    }
    found.sort_unstable();
    found.dedup();
    found
}
