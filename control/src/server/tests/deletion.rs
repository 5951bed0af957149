//! Deletion: preconditions, finalizers, policies, grace.

use http::Method;
use serde_json::{Value, json};

use super::{Api, config_map, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn delete(api: &Api, path: &str, options: Value) -> super::Answer {
    api.call(Method::DELETE, path, &options).await
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let api = Api::new().await;
    let mut object = config_map("x");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    api.post(CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    let waiting = api.delete(&path).await.expect(200);
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    let again = api.delete(&path).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], waiting["metadata"]["resourceVersion"]);
    let added = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(api.patch("merge-patch", &path, &added).await.code, 422);
    api.patch("merge-patch", &path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    api.get(&path).await.expect(404);
}

#[tokio::test]
async fn policies_become_finalizers_of_the_garbage_collector() {
    let api = Api::new().await;
    for (policy, wanted) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        let name = policy.to_lowercase();
        api.post(CONFIG_MAPS, &config_map(&name)).await.expect(201);
        let path = format!("{CONFIG_MAPS}/{name}");
        let waiting = delete(&api, &path, json!({"propagationPolicy": policy})).await.expect(200);
        assert_eq!(waiting["metadata"]["finalizers"], json!([wanted]));
        delete(&api, &path, json!({"propagationPolicy": "Background"})).await.expect(200);
        api.get(&path).await.expect(404);
    }
    api.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    assert_eq!(delete(&api, &format!("{CONFIG_MAPS}/x"), json!({"propagationPolicy": "Maybe"})).await.code, 422);
}

#[tokio::test]
async fn preconditions_are_held() {
    let api = Api::new().await;
    let made = api.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    let refused = delete(&api, &path, json!({"preconditions": {"uid": "other"}})).await;
    assert!(refused.code == 409 && refused.message().contains("UID in precondition: other"), "{}", refused.message());
    assert_eq!(delete(&api, &path, json!({"preconditions": {"resourceVersion": "1"}})).await.code, 409);
    let status = delete(&api, &path, json!({"preconditions": {"uid": made["metadata"]["uid"]}})).await.expect(200);
    assert_eq!((status["status"].as_str(), &status["details"]["uid"]), (Some("Success"), &made["metadata"]["uid"]));
    assert_eq!(api.delete(&path).await.expect(404)["reason"], "NotFound");
}

#[tokio::test]
async fn a_pod_on_a_node_has_its_grace_and_it_can_only_shrink() {
    let api = Api::new().await;
    api.post(PODS, &pod("fresh")).await.expect(201);
    let gone = api.delete(&format!("{PODS}/fresh")).await.expect(200);
    assert_eq!(gone["kind"], "Pod", "an unscheduled pod is removed at once, and is the answer");
    api.get(&format!("{PODS}/fresh")).await.expect(404);

    let mut object = pod("bound");
    object["spec"]["nodeName"] = "n1".into();
    api.post(PODS, &object).await.expect(201);
    let path = format!("{PODS}/bound");
    let waiting = api.delete(&path).await.expect(200);
    assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 30);
    let longer = delete(&api, &path, json!({"gracePeriodSeconds": 60})).await.expect(200);
    assert_eq!(longer["metadata"]["resourceVersion"], waiting["metadata"]["resourceVersion"]);
    let shorter = delete(&api, &path, json!({"gracePeriodSeconds": 5})).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(shorter["metadata"]["deletionTimestamp"].as_str() < waiting["metadata"]["deletionTimestamp"].as_str());
    delete(&api, &path, json!({"gracePeriodSeconds": 0})).await.expect(200);
    api.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_namespace_that_is_finalized_by_its_name_stays_the_one_it_was() {
    let api = Api::new().await;
    let namespace =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "spec": spec});
    let made = api.post("/api/v1/namespaces", &namespace(json!({}))).await.expect(201);
    let finalizers = json!(["kubernetes", "example.com/kept"]);
    let written =
        api.put("/api/v1/namespaces/a/finalize", &namespace(json!({"finalizers": finalizers}))).await.expect(200);
    assert_eq!((&written["metadata"]["uid"], &written["spec"]["finalizers"]), (&made["metadata"]["uid"], &finalizers));
    assert_eq!(api.get("/api/v1/namespaces/a").await.expect(200)["metadata"], written["metadata"]);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_finalized_and_some_never_do() {
    let api = Api::new().await;
    let kept = api.delete("/api/v1/namespaces/default").await;
    assert_eq!((kept.code, kept.reason()), (403, "Forbidden".to_owned()));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
    api.post("/api/v1/namespaces", &namespace).await.expect(201);
    let mut ending = api.delete("/api/v1/namespaces/a").await.expect(200);
    assert_eq!(ending["status"]["phase"], "Terminating");
    ending["spec"]["finalizers"] = json!([]);
    api.put("/api/v1/namespaces/a/finalize", &ending).await.expect(200);
    api.get("/api/v1/namespaces/a").await.expect(404);
}

#[tokio::test]
async fn a_priority_class_of_the_system_is_not_deleted() {
    const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let api = Api::new().await;
    for name in ["system-node-critical", "system-cluster-critical"] {
        let refused = api.delete(&format!("{CLASSES}/{name}")).await;
        assert_eq!((refused.code, refused.reason().as_str()), (403, "Forbidden"), "{name}");
        assert!(refused.message().ends_with("this is a system priority class and cannot be deleted"));
        api.get(&format!("{CLASSES}/{name}")).await.expect(200);
    }
    let own =
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "own"}, "value": 1});
    api.post(CLASSES, &own).await.expect(201);
    api.delete(&format!("{CLASSES}/own")).await.expect(200);
}
