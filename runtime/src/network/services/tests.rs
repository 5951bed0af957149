//! What connections, names and variables find of Services that come, change and go.

use serde_json::json;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;

fn service(spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})).unwrap()
}

fn slice(addresses: &[(&str, bool)]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|(a, ready)| json!({"addresses": [a], "nodeName": "n1", "conditions": {"ready": ready}}))
        .collect();
    serde_json::from_value(json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}))
    .unwrap()
}

fn client(last: u8) -> IpAddr {
    IpAddr::from([127, 64, 0, last])
}

#[test]
fn connections_take_turns_among_ready_endpoints_only() {
    let service = service(json!({"clusterIP": "127.1.0.9", "ports": [{"name": "http", "port": 80}]}));
    let named =
        build(&service, &[slice(&[("127.64.0.1", true), ("127.64.0.2", false), ("127.64.0.3", true)])], "n1", None);
    let firsts: Vec<_> = (0..4).map(|_| named.ports[0].choices(client(9)).next().unwrap().to_string()).collect();
    assert_eq!(firsts, ["127.64.0.1:8080", "127.64.0.3:8080", "127.64.0.1:8080", "127.64.0.3:8080"]);
    assert_eq!(named.ports[0].choices(client(9)).count(), 2);
}

#[test]
fn a_port_with_a_new_name_keeps_its_endpoints_until_the_slices_follow() {
    let renamed = |spec: serde_json::Value| {
        let named = build(&service(spec), &[slice(&[("127.64.0.1", true)])], "n1", None);
        named.ports.iter().map(|port| port.endpoints.len()).collect::<Vec<_>>()
    };
    let main = json!({"name": "main", "port": 80, "targetPort": 8080});
    let http = json!({"name": "http", "port": 81, "targetPort": 8080});
    assert_eq!(renamed(json!({"selector": {"app": "web"}, "ports": [main]})), [1]);
    assert_eq!(renamed(json!({"selector": {"app": "web"}, "ports": [main, http]})), [0, 1], "the name is not stale");
    assert_eq!(renamed(json!({"ports": [main]})), [0], "slices that a person writes mean what they say");
    let other = json!({"name": "main", "port": 80, "targetPort": 9090});
    assert_eq!(renamed(json!({"selector": {"app": "web"}, "ports": [other]})), [0]);
}

#[test]
fn a_client_with_affinity_stays_with_its_endpoint() {
    let spec =
        json!({"clusterIP": "127.1.0.9", "sessionAffinity": "ClientIP", "ports": [{"name": "http", "port": 80}]});
    let named = build(&service(spec), &[slice(&[("127.64.0.1", true), ("127.64.0.2", true)])], "n1", None);
    let port = &named.ports[0];
    let chosen = port.choices(client(9)).next().unwrap();
    port.chose(client(9), chosen);
    assert!((0..5).all(|_| port.choices(client(9)).next() == Some(chosen)));
}

#[test]
fn a_local_policy_leaves_out_other_nodes() {
    let spec =
        json!({"clusterIP": "127.1.0.9", "internalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80}]});
    let slices = [slice(&[("127.64.0.1", true)])];
    assert_eq!(build(&service(spec.clone()), &slices, "n1", None).ports[0].endpoints.len(), 1);
    assert_eq!(build(&service(spec), &slices, "n2", None).ports[0].endpoints.len(), 0);
}

#[test]
fn a_replaced_service_leaves_nothing_of_itself_behind() {
    let services = Services::default();
    let with = |spec| build(&service(spec), &[], "n1", None);
    services.replace(
        "shop",
        "web",
        Some(with(json!({"clusterIP": "127.1.0.9", "ports": [{"port": 80, "nodePort": 30001}]}))),
    );
    services.replace("shop", "web", Some(with(json!({"clusterIP": "127.1.0.9", "ports": [{"port": 81}]}))));
    let address = Ipv4Addr::new(127, 1, 0, 9);
    assert!(
        services.by_address(Protocol::Tcp, address, 80).is_none()
            && services.by_node_port(Protocol::Tcp, 30001).is_none()
    );
    assert!(services.by_address(Protocol::Tcp, address, 81).is_some());
    services.replace("shop", "web", None);
    assert!(services.by_address(Protocol::Tcp, address, 81).is_none() && services.named("shop", "web").is_none());
}

#[test]
fn the_host_is_served_on_addresses_of_loopback_and_guests_on_all() {
    let services = Services::default();
    let with = |address| Some(build(&service(json!({"clusterIP": address, "ports": [{"port": 80}]})), &[], "n1", None));
    services.replace("shop", "near", with("127.1.0.9"));
    services.replace("shop", "far", with("203.0.113.9"));
    let (near, far) = (Ipv4Addr::new(127, 1, 0, 9), Ipv4Addr::new(203, 0, 113, 9));
    assert_eq!(services.frontends(), HashSet::from([Frontend::Address(near, 80)]));
    assert!(services.by_address(Protocol::Tcp, far, 80).is_some() && services.has_address(far));
    services.replace("shop", "far", None);
    assert!(!services.has_address(far) && services.has_address(near));
}

#[test]
fn a_service_that_goes_late_leaves_its_successor_s_port_alone() {
    let services = Services::default();
    let with = |address| {
        let spec = json!({"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": 30001}]});
        Some(build(&service(spec), &[], "n1", None))
    };
    services.replace("shop", "old", with("127.1.0.9"));
    services.replace("shop", "new", with("127.1.0.9"));
    services.replace("shop", "old", None);
    assert!(services.by_node_port(Protocol::Tcp, 30001).is_some());
    assert!(services.by_address(Protocol::Tcp, Ipv4Addr::new(127, 1, 0, 9), 80).is_some());
}

#[test]
fn the_environment_has_kubernetes_variables() {
    let services = Services::default();
    let named =
        build(&service(json!({"clusterIP": "127.1.0.9", "ports": [{"name": "http", "port": 80}]})), &[], "n1", None);
    services.replace("shop", "my-web", Some(named));
    let env = services.environment("shop");
    for (key, value) in [
        ("MY_WEB_SERVICE_HOST", "127.1.0.9"),
        ("MY_WEB_SERVICE_PORT", "80"),
        ("MY_WEB_SERVICE_PORT_HTTP", "80"),
        ("MY_WEB_PORT", "tcp://127.1.0.9:80"),
        ("MY_WEB_PORT_80_TCP_ADDR", "127.1.0.9"),
    ] {
        assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(services.environment("other").is_empty());
}
