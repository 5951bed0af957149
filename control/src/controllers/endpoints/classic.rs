//! The `v1` Endpoints object of a Service: one object with every address, cut off at a thousand.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use wherry_api::kinds::core::endpoints;

use super::addresses::{Backend, Port, is_headless, publishes_unready};

/// More addresses than this are not listed.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpoint-controller";

/// The object as it should be.
pub fn desired(service: &Service, backends: &[Backend]) -> Endpoints {
    let unready = publishes_unready(service);
    let mut listed: Vec<(&Backend, bool)> =
        backends.iter().filter(|b| unready || !b.terminating).map(|b| (b, unready || b.serving)).collect();
    // Ready addresses are the last to be cut off.
    listed.sort_by_key(|(_, ready)| !ready);
    let over = listed.len() > CAPACITY;
    listed.truncate(CAPACITY);
    let mut annotations = BTreeMap::new();
    if over {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    Endpoints {
        metadata: ObjectMeta {
            namespace: service.namespace(),
            name: Some(service.name_any()),
            labels: Some(labels(service)),
            annotations: Some(annotations).filter(|a| !a.is_empty()),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets(&listed)).filter(|s| !s.is_empty()),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// One subset per set of ports.
fn subsets(listed: &[(&Backend, bool)]) -> Vec<EndpointSubset> {
    let mut by_ports: BTreeMap<&[Port], EndpointSubset> = BTreeMap::new();
    for (backend, ready) in listed {
        let subset = by_ports.entry(&backend.ports).or_insert_with(|| EndpointSubset {
            ports: Some(backend.ports.iter().map(port).collect()).filter(|p: &Vec<_>| !p.is_empty()),
            ..EndpointSubset::default()
        });
        let list = if *ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().extend(backend.addresses.first().map(|ip| address(backend, ip)));
    }
    for subset in by_ports.values_mut() {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| {
                (&a.ip, a.target_ref.as_ref().map(|t| &t.uid)).cmp(&(&b.ip, b.target_ref.as_ref().map(|t| &t.uid)))
            });
        }
    }
    let subsets: Vec<_> = by_ports.into_values().collect();
    // One alone has no ports in common with another.
    if subsets.len() < 2 { subsets } else { repacked(&subsets) }
}

/// Subsets in their one form, as Kubernetes' controllers make and read them.
pub(super) fn repacked(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let trees: Option<Vec<_>> = subsets.iter().map(|subset| serde_json::to_value(subset).ok()).collect();
    let repacked = trees.map(|trees| endpoints::repack(&trees).into_iter().map(serde_json::from_value).collect());
    repacked.and_then(Result::ok).unwrap_or_else(|| subsets.to_vec())
}

fn address(backend: &Backend, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.pod.clone()),
    }
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: port.name.clone(),
        port: port.number,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

/// Whether what is there says what it should.
pub fn is_current(present: &Endpoints, desired: &Endpoints) -> bool {
    let over = |e: &Endpoints| e.annotations().get(OVER_CAPACITY).cloned();
    present.subsets.clone().unwrap_or_default() == desired.subsets.clone().unwrap_or_default()
        && present.labels() == desired.labels()
        && over(present) == over(desired)
}

/// The present object with what this controller decides replaced.
pub fn updated(present: &Endpoints, desired: Endpoints) -> Endpoints {
    let mut next = present.clone();
    next.subsets = desired.subsets;
    next.metadata.labels = desired.metadata.labels;
    let annotations = next.annotations_mut();
    annotations.remove(OVER_CAPACITY);
    annotations.extend(desired.metadata.annotations.into_iter().flatten());
    next
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::addresses::backends;
    use super::super::addresses::tests::{pod, service};
    use super::*;

    #[test]
    fn ready_and_unready_addresses_are_apart_and_leaving_pods_gone() {
        let service = service(json!({}));
        let pods = [pod(1, 80, true, false), pod(2, 80, false, false), pod(3, 80, true, true)];
        let made = desired(&service, &backends(&service, &pods));
        let subsets = made.subsets.expect("subsets");
        let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
        assert_eq!((subsets.len(), count(&subsets[0].addresses), count(&subsets[0].not_ready_addresses)), (1, 1, 1));
        let target = subsets[0].addresses.as_ref().and_then(|a| a[0].target_ref.clone()).expect("a pod");
        assert_eq!((target.kind.as_deref(), target.uid.as_deref()), (Some("Pod"), Some("u1")));
    }

    #[test]
    fn unready_addresses_count_as_ready_where_the_service_says_so() {
        let service = service(json!({"publishNotReadyAddresses": true, "clusterIP": "None"}));
        let made = desired(&service, &backends(&service, &[pod(1, 80, false, true)]));
        assert_eq!(made.subsets.clone().and_then(|s| s[0].addresses.as_ref().map(Vec::len)), Some(1));
        assert_eq!(made.labels().get(HEADLESS).map(String::as_str), Some(""));
    }

    #[test]
    fn subsets_that_have_ports_in_common_are_in_their_one_form() {
        let subset = |ip: &str, ports: &[i32]| -> EndpointSubset {
            let ports: Vec<_> = ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port})).collect();
            serde_json::from_value(json!({"addresses": [{"ip": ip}], "ports": ports})).unwrap()
        };
        let made = repacked(&[subset("10.0.0.1", &[80, 90]), subset("10.0.0.2", &[80, 91])]);
        let ports = |subset: &EndpointSubset| subset.ports.iter().flatten().map(|port| port.port).collect::<Vec<_>>();
        assert_eq!(made.iter().map(ports).collect::<Vec<_>>(), [[80], [90], [91]]);
        assert_eq!(repacked(&made), made);
    }

    #[test]
    fn the_list_stops_at_a_thousand_and_says_so() {
        let service = service(json!({}));
        let pods: Vec<_> = (0..1100).map(|n| pod(n, 80, n >= 50, false)).collect();
        let made = desired(&service, &backends(&service, &pods));
        assert_eq!(made.annotations().get(OVER_CAPACITY).map(String::as_str), Some("truncated"));
        let subset = &made.subsets.as_ref().expect("subsets")[0];
        assert_eq!(subset.addresses.as_ref().map(Vec::len), Some(1000));
        let fewer = desired(&service, &backends(&service, &pods[..10]));
        assert!(!is_current(&made, &fewer));
        assert!(is_current(&updated(&made, fewer.clone()), &fewer));
    }
}
