//! Addresses and node ports of Services, through the pipeline.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Api;

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
async fn a_restarted_server_knows_what_is_taken() {
    let api = Api::new().await;
    let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
    api.post(SERVICES, &service("one", spec.clone())).await.expect(201);
    let (store, cache) = (api.server.store().clone(), api.server.cache().clone());
    let authorizer = std::sync::Arc::new(crate::auth::AllowAll);
    let config = api.server.config().clone();
    let next = crate::server::Server::new(api.server.registry().clone(), store, cache, authorizer, config).await;
    let next = Api { server: next.unwrap() };
    assert_eq!(next.post(SERVICES, &service("two", spec)).await.code, 422);
}
