//! What admission makes of pods and claims on their way in.

use serde_json::{Value, json};

use super::{Api, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

fn class(name: &str, value: i64, default: bool) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
        "globalDefault": default, "preemptionPolicy": "Never"})
}

#[tokio::test]
async fn a_pod_has_the_priority_of_its_class() {
    let api = Api::new().await;
    let plain = api.post(PODS, &pod("plain")).await.expect(201);
    assert_eq!(
        (&plain["spec"]["priority"], &plain["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    let mut system = pod("system");
    system["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(api.post(PODS, &system).await.expect(201)["spec"]["priority"], 2_000_001_000);
    system["metadata"]["name"] = json!("unknown");
    system["spec"]["priorityClassName"] = json!("no-such");
    let refused = api.post(PODS, &system).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (403, "pods \"unknown\" is forbidden: no PriorityClass with name no-such was found")
    );
}

#[tokio::test]
async fn one_class_is_the_default_and_no_pod_numbers_itself() {
    let api = Api::new().await;
    api.post(CLASSES, &class("usual", 7, true)).await.expect(201);
    let second = api.post(CLASSES, &class("other", 8, true)).await;
    assert_eq!(second.code, 403, "{}", second.message());
    let made = api.post(PODS, &pod("a")).await.expect(201);
    assert_eq!((&made["spec"]["priorityClassName"], &made["spec"]["priority"]), (&json!("usual"), &json!(7)));
    assert_eq!(made["spec"]["preemptionPolicy"], "Never");
    let mut own = pod("b");
    own["spec"]["priority"] = json!(9);
    let refused = api.post(PODS, &own).await;
    assert!(refused.message().contains("the integer value of priority (9) must not be provided in pod spec"));
}

#[tokio::test]
async fn a_range_fills_in_and_refuses() {
    let api = Api::new().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    api.post("/api/v1/namespaces/default/limitranges", &range).await.expect(201);
    let made = api.post(PODS, &pod("a")).await.expect(201);
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let mut large = pod("b");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let refused = api.post(PODS, &large).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (403, "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2")
    );
}

#[tokio::test]
async fn a_pod_gets_its_accounts_token_unless_it_does_not_want_it() {
    let api = Api::new().await;
    let made = api.post(PODS, &pod("a")).await.expect(201);
    let name = made["spec"]["volumes"][0]["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-"), "{name}");
    assert_eq!(made["spec"]["containers"][0]["volumeMounts"][0]["name"], name);
    let mut without = pod("b");
    without["spec"]["automountServiceAccountToken"] = json!(false);
    assert_eq!(api.post(PODS, &without).await.expect(201)["spec"]["volumes"], Value::Null);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "quiet"},
        "automountServiceAccountToken": false});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let mut quiet = pod("c");
    quiet["spec"]["serviceAccountName"] = json!("quiet");
    assert_eq!(api.post(PODS, &quiet).await.expect(201)["spec"]["volumes"], Value::Null);
    quiet["metadata"]["name"] = json!("d");
    quiet["spec"]["automountServiceAccountToken"] = json!(true);
    assert!(api.post(PODS, &quiet).await.expect(201)["spec"]["volumes"].is_array());
}
