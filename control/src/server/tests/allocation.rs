//! Addresses and node ports of Services, through the pipeline.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Api;
use super::webhooks::Hook;
use crate::server::alloc::Writes;
use crate::store::{StoreError, Txn};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn concurrent_services_get_addresses_and_ports_of_their_own() {
    let api = Api::new().await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let made = join_all((0..50).map(|n| {
        let (api, spec) = (&api, spec.clone());
        async move { api.post(SERVICES, &service(&format!("s{n}"), spec)).await.expect(201) }
    }))
    .await;
    let addresses: BTreeSet<_> = made.iter().map(|s| s["spec"]["clusterIP"].as_str().unwrap()).collect();
    let ports: BTreeSet<_> = made.iter().map(|s| s["spec"]["ports"][0]["nodePort"].as_i64().unwrap()).collect();
    assert_eq!((addresses.len(), ports.len()), (50, 50));
    assert!(!addresses.contains("10.96.0.1"));
}

#[tokio::test]
async fn what_is_asked_for_is_given_refused_and_free_again_after_the_delete() {
    let api = Api::new().await;
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]});
    api.post(&format!("{SERVICES}?dryRun=All"), &service("dry", spec.clone())).await.expect(201);
    let first = api.post(SERVICES, &service("one", spec.clone())).await.expect(201);
    assert_eq!(first["spec"]["ports"][0]["nodePort"], 30080);
    let second = api.post(SERVICES, &service("two", spec.clone())).await;
    assert_eq!(second.code, 422);
    assert!(second.message().contains("provided IP is already allocated"), "{}", second.message());
    assert!(
        second.message().contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated")
    );
    assert_eq!(api.put(&format!("{SERVICES}/one"), &first).await.expect(200), first);
    api.delete(&format!("{SERVICES}/one")).await.expect(200);
    api.post(SERVICES, &service("two", spec)).await.expect(201);
}

#[tokio::test]
async fn where_health_is_asked_is_given_kept_and_free_again_after_the_delete() {
    let api = Api::new().await;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let made = api.post(SERVICES, &service("one", spec.clone())).await.expect(201);
    let given = made["spec"]["healthCheckNodePort"].as_i64().unwrap();
    assert!(made["spec"]["ports"][0]["nodePort"].as_i64().is_some_and(|port| port != given));
    let path = format!("{SERVICES}/one");
    assert_eq!(api.put(&path, &service("one", spec.clone())).await.expect(200)["spec"], made["spec"]);
    let mut other = spec.clone();
    other["healthCheckNodePort"] = json!(given);
    let refused = api.post(SERVICES, &service("two", other.clone())).await;
    assert_eq!((refused.code, refused.reason().as_str()), (500, "InternalError"), "as in Kubernetes");
    let cluster = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    let changed = api.patch("merge-patch", &path, &cluster).await.expect(200);
    assert_eq!(changed["spec"].get("healthCheckNodePort"), None);
    api.post(SERVICES, &service("two", other.clone())).await.expect(201);
    api.delete(&format!("{SERVICES}/two")).await.expect(200);
    api.post(SERVICES, &service("three", other)).await.expect(201);
}

#[tokio::test]
async fn a_restarted_server_knows_what_is_taken() {
    let api = Api::new().await;
    let spec = json!({"clusterIP": "10.96.0.9", "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30009, "ports": [{"port": 80}]});
    api.post(SERVICES, &service("one", spec.clone())).await.expect(201);
    let (store, cache) = (api.server.store().clone(), api.server.cache().clone());
    let authorizer = std::sync::Arc::new(crate::auth::AllowAll);
    let config = api.server.config().clone();
    let next = crate::server::Server::new(api.server.registry().clone(), store, cache, authorizer, config).await;
    let next = Api { server: next.unwrap() };
    assert_eq!(next.post(SERVICES, &service("two", spec)).await.code, 422);
    let open = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30009}]});
    assert_eq!(next.post(SERVICES, &service("two", open)).await.code, 422);
}

const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn range(name: &str, cidrs: &[&str]) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
        "spec": {"cidrs": cidrs}})
}

fn address(name: &str, resource: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": name},
        "spec": {"parentRef": {"group": "example.com", "resource": resource, "name": "mine"}}})
}

#[tokio::test]
async fn a_service_and_its_address_come_and_go_together() {
    let api = Api::new().await;
    let own = api.get(&format!("{RANGES}/kubernetes")).await.expect(200);
    assert_eq!(own["spec"]["cidrs"], json!(["10.96.0.0/24"]));
    let condition = &own["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Ready"), &json!("True")));
    assert_eq!(condition["message"], "Kubernetes default Service CIDR is ready");
    let first = api.get(&format!("{ADDRESSES}/10.96.0.1")).await.expect(200);
    assert_eq!(
        first["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "kubernetes"})
    );

    let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
    api.post(&format!("{SERVICES}?dryRun=All"), &service("web", spec.clone())).await.expect(201);
    let path = format!("{ADDRESSES}/10.96.0.9");
    assert_eq!(api.get(&path).await.code, 404, "a dry run makes nothing");
    let made = api.post(SERVICES, &service("web", spec)).await.expect(201);
    let object = api.get(&path).await.expect(200);
    assert_eq!(object["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "one transaction");
    let labels = json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    assert_eq!(object["metadata"]["labels"], labels);
    assert_eq!(object["metadata"]["managedFields"][0]["manager"], "kube-apiserver");
    assert!(object["metadata"]["uid"].is_string() && object["metadata"]["creationTimestamp"].is_string());

    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": null,
        "clusterIPs": null, "ports": null}});
    api.patch("merge-patch", &format!("{SERVICES}/web"), &named).await.expect(200);
    assert_eq!(api.get(&path).await.code, 404);
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null, "ports": [{"port": 80}]}});
    let back = api.patch("merge-patch", &format!("{SERVICES}/web"), &back).await.expect(200);
    let path = format!("{ADDRESSES}/{}", back["spec"]["clusterIP"].as_str().unwrap());
    api.get(&path).await.expect(200);
    api.delete(&format!("{SERVICES}/web")).await.expect(200);
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn what_becomes_of_an_address_while_its_service_goes_is_seen() {
    let api = Api::new().await;
    let services = api.server.registry().by_plural("", "v1", "services").unwrap().clone();
    let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
    let made = api.post(SERVICES, &service("web", spec)).await.expect(201);
    let (path, own) = (
        format!("{ADDRESSES}/10.96.0.9"),
        json!({"spec": {"parentRef":
        {"resource": "services", "namespace": "default", "name": "web"}}, "metadata": {"name": "10.96.0.9"}}),
    );
    let ending = || api.server.allocators().ending(&services, &made);
    let refused = async |writes: Writes| {
        let Writes { preconditions, ops } = writes;
        let txn = Txn { preconditions, ops, ..Txn::default() };
        matches!(api.server.store().commit(txn).await, Err(StoreError::Precondition { .. }))
    };
    // Somebody removed it by hand; it is made anew after the removal of the Service has looked for it.
    api.delete(&path).await.expect(200);
    let none = ending();
    api.post(ADDRESSES, &own).await.expect(201);
    assert!(refused(none).await);
    // Somebody else's finalizer keeps it, and is gone then.
    let finalizers = |all: Value| json!({"metadata": {"finalizers": all}});
    api.patch("merge-patch", &path, &finalizers(json!(["example.com/kept"]))).await.expect(200);
    let kept = ending();
    api.patch("merge-patch", &path, &finalizers(json!([]))).await.expect(200);
    assert!(refused(kept).await);
    api.delete(&format!("{SERVICES}/web")).await.expect(200);
    assert_eq!(api.get(&path).await.code, 404, "the removal looks again");
}

#[tokio::test]
async fn an_address_that_is_made_by_hand_is_reserved() {
    let api = Api::new().await;
    api.post(ADDRESSES, &address("10.96.0.9", "gateways")).await.expect(201);
    let refused = api.post(SERVICES, &service("one", json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}))).await;
    assert_eq!(refused.code, 422);
    let why = "failed to allocate IP 10.96.0.9: provided IP is already allocated";
    assert!(refused.message().contains(why), "{}", refused.message());
    assert_eq!(api.post(ADDRESSES, &address("10.96.0.1", "gateways")).await.reason(), "AlreadyExists");
    api.delete(&format!("{ADDRESSES}/10.96.0.9")).await.expect(200);
    let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
    api.post(SERVICES, &service("one", spec.clone())).await.expect(201);
    // It is the Service's, also without its object.
    api.delete(&format!("{ADDRESSES}/10.96.0.9")).await.expect(200);
    assert_eq!(api.post(SERVICES, &service("two", spec)).await.code, 422);
    api.delete(&format!("{SERVICES}/one")).await.expect(200);
}

#[tokio::test]
async fn addresses_made_by_hand_and_services_never_share_one() {
    let api = Api::new().await;
    let hands = (1..=30).map(|n| {
        let api = &api;
        async move { api.post(ADDRESSES, &address(&format!("10.96.0.{n}"), "gateways")).await.code == 201 }
    });
    let services = (1..=30).map(|n| {
        let spec = json!({"clusterIP": format!("10.96.0.{n}"), "ports": [{"port": 80}]});
        let (api, service) = (&api, service(&format!("s{n}"), spec));
        async move { api.post(SERVICES, &service).await.code == 201 }
    });
    let (hands, services) = futures::future::join(join_all(hands), join_all(services)).await;
    // The first is the Service kubernetes'.
    let given: Vec<_> = hands.iter().zip(&services).map(|(a, b)| u8::from(*a) + u8::from(*b)).collect();
    assert_eq!((given[0], &given[1..]), (0, &[1; 29][..]), "{hands:?} {services:?}");
}

#[tokio::test]
async fn other_ranges_are_for_who_asks_while_they_are_ready() {
    let api = Api::new().await;
    let at = |name: &str, ip: &str| service(name, json!({"clusterIP": ip, "ports": [{"port": 80}]}));
    let outside = api.post(SERVICES, &at("one", "203.0.113.10")).await;
    assert_eq!(outside.code, 422);
    let why = "spec.clusterIPs: Invalid value: [\"203.0.113.10\"]: failed to allocate IP 203.0.113.10: the provided \
               network does not match the current range";
    assert!(outside.message().contains(why), "{}", outside.message());
    let mut more = range("more", &["203.0.113.0/24", "2001:db8::/64"]);
    more["metadata"]["finalizers"] = json!(["example.com/kept"]);
    api.post(RANGES, &more).await.expect(201);
    api.post(SERVICES, &at("one", "203.0.113.10")).await.expect(201);
    api.get(&format!("{ADDRESSES}/203.0.113.10")).await.expect(200);
    assert_eq!(api.post(SERVICES, &at("two", "203.0.113.0")).await.code, 422, "a range's first address is nobody's");
    let condition = |status: &str| {
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    };
    let status = format!("{RANGES}/more/status");
    api.patch("merge-patch", &status, &condition("False")).await.expect(200);
    assert_eq!(api.post(SERVICES, &at("two", "203.0.113.11")).await.code, 422);
    api.patch("merge-patch", &status, &condition("True")).await.expect(200);
    api.post(SERVICES, &at("two", "203.0.113.11")).await.expect(201);
    api.delete(&format!("{RANGES}/more")).await.expect(200);
    assert_eq!(api.post(SERVICES, &at("three", "203.0.113.12")).await.code, 422, "it is being deleted");
    // What a Service has it keeps.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    api.patch("merge-patch", &format!("{SERVICES}/one"), &label).await.expect(200);
}

#[tokio::test]
async fn no_address_is_taken_from_a_range_that_has_begun_to_go() {
    let api = Api::new().await;
    let mut more = range("more", &["203.0.113.0/24"]);
    more["metadata"]["finalizers"] = json!(["example.com/kept"]);
    api.post(RANGES, &more).await.expect(201);
    let services = (1..=40).map(|n| {
        let spec = json!({"clusterIP": format!("203.0.113.{n}"), "ports": [{"port": 80}]});
        let (api, service) = (&api, service(&format!("s{n}"), spec));
        async move { api.post(SERVICES, &service).await }
    });
    let ending = async {
        tokio::task::yield_now().await;
        api.delete(&format!("{RANGES}/more")).await.expect(200)
    };
    let (services, gone) = futures::future::join(join_all(services), ending).await;
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    for answer in services {
        match answer.code {
            201 => assert!(revision(&answer.json()) < revision(&gone)),
            code => assert_eq!(code, 422, "{}", answer.message()),
        }
    }
}

#[tokio::test]
async fn a_range_of_what_the_network_uses_itself_is_refused() {
    let api = Api::new().await;
    let refused = api.post(RANGES, &range("more", &["126.0.0.0/7"])).await;
    assert_eq!(refused.code, 422);
    let why =
        "spec.cidrs[0]: Invalid value: \"126.0.0.0/7\": overlaps 127.0.0.0/8, which the nodes' network uses itself";
    assert!(refused.message().contains(why), "{}", refused.message());
    api.post(RANGES, &range("part", &["10.96.0.0/28"])).await.expect(201);
}

#[tokio::test]
async fn a_service_has_its_address_and_ports_when_it_is_judged() {
    let hook = Hook::start(|_, _| json!({"allowed": true})).await;
    let api = Api::new().await;
    let rules = json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["CREATE"]}]});
    api.register("Validating", "v", vec![hook.webhook("a", "any", rules)]).await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let made = api.post(SERVICES, &service("web", spec)).await.expect(201);
    let asked = hook.asked.lock().last().cloned().unwrap();
    for field in ["/spec/clusterIP", "/spec/ports/0/nodePort"] {
        let shown = asked["request"]["object"].pointer(field);
        assert!(shown.is_some() && shown == made.pointer(field), "{field}: {asked}");
    }
}
