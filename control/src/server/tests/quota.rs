//! Quotas under many writers at once, and what they refuse.

use futures::future::join_all;
use serde_json::{Value, json};

use super::{Api, config_map};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A quota that has been counted: nothing is used yet.
async fn quota(api: &Api, name: &str, mut spec: Value) {
    let hard = spec["hard"].as_object().unwrap().clone();
    let used: serde_json::Map<String, Value> = hard.keys().map(|name| (name.clone(), json!("0"))).collect();
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec.take()});
    api.post(QUOTAS, &quota).await.expect(201);
    let status = json!({"status": {"hard": hard, "used": used}});
    api.patch("merge-patch", &format!("{QUOTAS}/{name}/status"), &status).await.expect(200);
}

fn pod(name: &str, cpu: &str) -> Value {
    let resources = json!({"requests": {"cpu": cpu}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "example.com/c:1", "resources": resources}]}})
}

async fn used(api: &Api, name: &str) -> Value {
    api.get(&format!("{QUOTAS}/{name}")).await.expect(200)["status"]["used"].clone()
}

#[tokio::test]
async fn many_writers_at_once_do_not_exceed_it() {
    let api = Api::new().await;
    quota(&api, "few", json!({"hard": {"count/configmaps": "5", "configmaps": "9"}})).await;
    let objects: Vec<Value> = (0..20).map(|index| config_map(&format!("m{index}"))).collect();
    let answers = join_all(objects.iter().map(|object| api.post(MAPS, object))).await;
    let made = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(made, 5);
    let refused = answers.iter().find(|answer| answer.code == 403).unwrap();
    assert!(
        refused.message().ends_with(
            "is forbidden: exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=5, limited: \
             count/configmaps=5"
        ),
        "{}",
        refused.message()
    );
    assert_eq!(used(&api, "few").await, json!({"configmaps": "5", "count/configmaps": "5"}));
}

#[tokio::test]
async fn a_pod_is_charged_with_what_it_asks_for_and_must_say_it() {
    let api = Api::new().await;
    quota(&api, "cpu", json!({"hard": {"pods": "9", "requests.cpu": "1"}})).await;
    api.post(PODS, &pod("a", "600m")).await.expect(201);
    assert_eq!(used(&api, "cpu").await, json!({"pods": "1", "requests.cpu": "600m"}));
    let refused = api.post(PODS, &pod("b", "600m")).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            403,
            "pods \"b\" is forbidden: exceeded quota: cpu, requested: requests.cpu=600m, used: requests.cpu=600m, \
             limited: requests.cpu=1"
        )
    );
    let silent = api.post(PODS, &super::pod("c")).await;
    assert_eq!(silent.message(), "pods \"c\" is forbidden: failed quota: cpu: must specify requests.cpu for: c");
    api.post(&format!("{PODS}?dryRun=All"), &pod("d", "100m")).await.expect(201);
    assert_eq!(used(&api, "cpu").await["pods"], "1", "a dry run is not charged");
}

#[tokio::test]
async fn a_quota_is_about_the_pods_of_its_scopes() {
    let api = Api::new().await;
    quota(&api, "best", json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]})).await;
    api.post(PODS, &pod("a", "1")).await.expect(201);
    api.post(PODS, &super::pod("b")).await.expect(201);
    assert_eq!(api.post(PODS, &super::pod("c")).await.code, 403);
    api.post(PODS, &pod("d", "1")).await.expect(201);
    assert_eq!(used(&api, "best").await, json!({"pods": "1"}));
}

#[tokio::test]
async fn a_service_that_opens_ports_later_is_charged_then() {
    let api = Api::new().await;
    quota(&api, "ports", json!({"hard": {"services": "2", "services.nodeports": "1"}})).await;
    let all = "/api/v1/namespaces/default/services";
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
    api.post(all, &service).await.expect(201);
    let one = format!("{all}/s");
    let refused = api.patch("merge-patch", &one, &json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(refused.code, 403, "{}", refused.message());
    let fewer = json!({"spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80}]}});
    api.patch("merge-patch", &one, &fewer).await.expect(200);
    assert_eq!(used(&api, "ports").await, json!({"services": "1", "services.nodeports": "1"}));
}

#[tokio::test]
async fn events_are_not_charged_and_take_no_quota_with_them_when_they_end() {
    let api = Api::new().await;
    quota(&api, "events", json!({"hard": {"count/events": "1"}})).await;
    let kind = api.server.registry().by_plural("", "v1", "events").cloned().unwrap();
    for name in ["a", "b"] {
        api.post("/api/v1/namespaces/default/events", &super::sample(&kind, name)).await.expect(201);
    }
    assert_eq!(used(&api, "events").await, json!({"count/events": "0"}));
}
