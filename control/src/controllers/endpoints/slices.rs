//! The EndpointSlices of a Service: a hundred endpoints each, changed as few as possible at a time. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::addresses::{Backend, Port, is_headless, publishes_unready};
use super::classic::HEADLESS;
use crate::controllers::claim::reference;
use crate::reconcile::kinds::SERVICE_NAME;

/// Endpoints per slice.
const CAPACITY: usize = 100;
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// What is to be written.
#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// What a slice has in common with others: its family and its ports.
pub(super) type Group = (&'static str, Vec<Port>);

/// Whether the slice is kept by this controller.
pub fn is_own(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

/// `zone`: the zone of a node. `present`: the Service's own slices.
pub fn plan(
    service: &Service,
    backends: &[Backend],
    present: &[Arc<EndpointSlice>],
    zone: impl Fn(&str) -> Option<String>,
) -> Plan {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in families(service) {
        for backend in backends {
            let Some(address) = backend.addresses.iter().find(|ip| family_of(ip) == Some(family)) else { continue };
            let endpoint = endpoint(service, backend, address, &zone);
            groups.entry((family, backend.ports.clone())).or_default().push(endpoint);
        }
        if !groups.keys().any(|(f, _)| *f == family) {
            groups.insert((family, Vec::new()), Vec::new());
        }
    }
    let mut plan = Plan::default();
    for slice in present.iter().filter(|slice| !groups.contains_key(&group_of(slice))) {
        plan.delete.push(slice.clone());
    }
    for (group, endpoints) in groups {
        let own: Vec<_> = present.iter().filter(|slice| group_of(slice) == group).cloned().collect();
        plan_group(service, &group, endpoints, own, &mut plan);
    }
    plan
}

/// The slice's endpoints.
pub fn endpoints_of(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn families(service: &Service) -> Vec<&'static str> {
    let listed = service.spec.as_ref().and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
    let known: Vec<_> = listed.iter().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if !known.is_empty() {
        return known;
    }
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    vec![family_of(ip).unwrap_or("IPv4")]
}

pub(super) fn family_of(ip: &str) -> Option<&'static str> {
    Some(if ip.parse::<IpAddr>().ok()?.is_ipv6() { "IPv6" } else { "IPv4" })
}

pub(super) fn group_of(slice: &EndpointSlice) -> Group {
    let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
    let mut ports: Vec<Port> = slice.ports.iter().flatten().map(read_port).collect();
    ports.sort();
    (family, ports)
}

fn read_port(port: &EndpointPort) -> Port {
    Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        number: port.port.unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

pub(super) fn write_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.number),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(service: &Service, backend: &Backend, address: &str, zone: impl Fn(&str) -> Option<String>) -> Endpoint {
    let ready = publishes_unready(service) || (backend.serving && !backend.terminating);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.pod.clone()),
        zone: backend.node.as_deref().and_then(zone),
        ..Endpoint::default()
    }
}

fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|r| r.uid.clone()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.first().map_or("", String::as_str))
}

/// Endpoints stay in the slice where they are; new ones fill slices that change anyway, then those with room.
fn plan_group(service: &Service, group: &Group, wanted: Vec<Endpoint>, own: Vec<Arc<EndpointSlice>>, plan: &mut Plan) {
    let mut left: HashMap<String, Endpoint> = wanted.into_iter().map(|e| (identity(&e), e)).collect();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::with_capacity(own.len());
    for slice in own {
        let staying = endpoints_of(&slice).iter().filter_map(|e| left.remove(&identity(e))).take(CAPACITY).collect();
        kept.push((slice, staying));
    }
    let mut new: Vec<Endpoint> = left.into_values().collect();
    new.sort_by_key(|endpoint| (endpoint.target_ref.as_ref().and_then(|r| r.name.clone()), identity(endpoint)));
    let mut new = new.into_iter();
    kept.sort_by_key(|(slice, staying)| staying.as_slice() == endpoints_of(slice));
    for (_, staying) in &mut kept {
        let room = CAPACITY.saturating_sub(staying.len());
        staying.extend(new.by_ref().take(room));
    }
    let rest: Vec<Endpoint> = new.collect();
    for part in rest.chunks(CAPACITY) {
        plan.create.push(slice(service, group, part.to_vec()));
    }
    keep(service, group, kept, plan);
}

/// Updates what changed and deletes what is empty, but for the last one.
fn keep(service: &Service, group: &Group, kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)>, plan: &mut Plan) {
    let mut some = !plan.create.is_empty() && plan.create.iter().any(|s| group_of(s) == *group);
    some |= kept.iter().any(|(_, endpoints)| !endpoints.is_empty());
    for (present, endpoints) in kept {
        if endpoints.is_empty() && some {
            plan.delete.push(present);
            continue;
        }
        some = true;
        let wanted = slice(service, group, endpoints);
        if endpoints_of(&present) != endpoints_of(&wanted) || present.labels() != wanted.labels() {
            let mut next = (*present).clone();
            next.endpoints = wanted.endpoints;
            next.metadata.labels = wanted.metadata.labels;
            plan.update.push(next);
        }
    }
    if !some {
        plan.create.push(slice(service, group, Vec::new()));
    }
}

fn slice(service: &Service, (family, ports): &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: service.namespace(),
            generate_name: Some(format!("{}-", service.name_any())),
            labels: Some(labels),
            owner_references: Some(vec![reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: (*family).to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.iter().map(write_port).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::addresses::backends;
    use super::super::addresses::tests::{pod, service};
    use super::*;

    /// Applies plans to slices, as the server would.
    fn applied(
        service: &Service,
        pods: &[Arc<k8s_openapi::api::core::v1::Pod>],
        present: &[Arc<EndpointSlice>],
    ) -> (Plan, Vec<Arc<EndpointSlice>>) {
        let plan = plan(service, &backends(service, pods), present, |_| None);
        let gone = |slice: &Arc<EndpointSlice>| plan.delete.iter().any(|d| d.metadata.name == slice.metadata.name);
        let mut next: Vec<Arc<EndpointSlice>> = present.iter().filter(|s| !gone(s)).cloned().collect();
        for slice in &mut next {
            if let Some(update) = plan.update.iter().find(|u| u.metadata.name == slice.metadata.name) {
                *slice = Arc::new(update.clone());
            }
        }
        for (number, slice) in plan.create.iter().enumerate() {
            let mut slice = slice.clone();
            slice.metadata.name = Some(format!("s-{}", present.len() + number));
            next.push(Arc::new(slice));
        }
        (plan, next)
    }

    fn total(slices: &[Arc<EndpointSlice>]) -> usize {
        slices.iter().map(|s| endpoints_of(s).len()).sum()
    }

    #[test]
    fn a_hundred_endpoints_per_slice_and_one_change_touches_one_slice() {
        let service = service(json!({}));
        let mut pods: Vec<_> = (0..250).map(|n| pod(n, 80, true, false)).collect();
        let (_, slices) = applied(&service, &pods, &[]);
        assert_eq!((slices.len(), total(&slices)), (3, 250));
        let (again, _) = applied(&service, &pods, &slices);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
        pods[7] = pod(7, 80, false, false);
        let (plan, slices) = applied(&service, &pods, &slices);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
        pods.push(pod(900, 80, true, false));
        let (plan, slices) = applied(&service, &pods, &slices);
        assert_eq!((plan.create.len(), plan.update.len(), total(&slices)), (0, 1, 251));
    }

    #[test]
    fn a_service_without_pods_keeps_one_empty_slice() {
        let service = service(json!({}));
        let (_, slices) = applied(&service, &[pod(1, 80, true, false)], &[]);
        let (_, slices) = applied(&service, &[], &slices);
        assert_eq!((slices.len(), total(&slices)), (1, 0));
        let (plan, _) = applied(&service, &[], &slices);
        assert!(plan.create.is_empty() && plan.delete.is_empty());
    }

    #[test]
    fn a_leaving_pod_may_still_serve_but_is_not_ready() {
        let service = service(json!({}));
        let (_, slices) = applied(&service, &[pod(1, 80, true, true)], &[]);
        let conditions = endpoints_of(&slices[0])[0].conditions.clone().expect("conditions");
        assert_eq!(
            (conditions.ready, conditions.serving, conditions.terminating),
            (Some(false), Some(true), Some(true))
        );
    }

    #[test]
    fn pods_with_different_ports_are_in_different_slices() {
        let service = service(json!({}));
        let (_, slices) = applied(&service, &[pod(1, 80, true, false), pod(2, 81, true, false)], &[]);
        assert_eq!(slices.len(), 2);
    }
}
