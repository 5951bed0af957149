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
    let size = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}});
    let refused = api.patch("strategic-merge-patch", &format!("{PODS}/a/resize"), &size).await;
    assert_eq!(refused.code, 403, "{}", refused.message());
    assert!(refused.message().contains("maximum cpu usage per Container is 1, but limit is 2"));
}

#[tokio::test]
async fn a_mirror_pod_runs_as_nobody() {
    let api = Api::new().await;
    let mut mirror = pod("a");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["nodeName"] = json!("n1");
    let made = api.post(PODS, &mirror).await.expect(201);
    assert_eq!((&made["spec"]["serviceAccountName"], &made["spec"]["volumes"]), (&Value::Null, &Value::Null));
    mirror["spec"]["serviceAccountName"] = json!("default");
    let refused = api.post(PODS, &mirror).await;
    assert_eq!(refused.code, 403, "{}", refused.message());
    assert!(refused.message().contains("a mirror pod may not reference service accounts"));
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

#[tokio::test]
async fn an_ingress_without_a_class_gets_the_default_one() {
    let api = Api::new().await;
    let key = "ingressclass.kubernetes.io/is-default-class";
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    for (name, default) in [("other", "false"), ("usual", "true")] {
        let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name, "annotations": {key: default}}, "spec": {"controller": "example.com/c"}});
        api.post("/apis/networking.k8s.io/v1/ingressclasses", &class).await.expect(201);
    }
    let ingress = |name: &str, annotations: Value, class: Value| {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"defaultBackend": backend, "ingressClassName": class}})
    };
    for (name, annotations, class, wanted) in [
        ("a", json!({}), Value::Null, json!("usual")),
        ("b", json!({}), json!("other"), json!("other")),
        ("c", json!({"kubernetes.io/ingress.class": "old"}), Value::Null, Value::Null),
    ] {
        let made = api.post(ingresses, &ingress(name, annotations, class)).await.expect(201);
        assert_eq!(made["spec"]["ingressClassName"], wanted, "{name}");
    }
}

#[tokio::test]
async fn an_account_that_limits_its_secrets_refuses_others() {
    let api = Api::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": "mine"}],
        "metadata": {"name": "robot", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
    let of = |secret: &str| {
        let mut pod = pod("p");
        pod["spec"]["serviceAccountName"] = json!("robot");
        pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": secret}}]);
        pod
    };
    let refused = api.post(PODS, &of("other")).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            403,
            "pods \"p\" is forbidden: volume with secret.secretName=\"other\" is not allowed because service account \
             robot does not reference that secret"
        )
    );
    api.post(PODS, &of("mine")).await.expect(201);
}

#[tokio::test]
async fn claims_and_volumes_are_made_with_protection() {
    let api = Api::new().await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "finalizers": ["a.io/b"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let made = api.post("/api/v1/namespaces/default/persistentvolumeclaims", &claim).await.expect(201);
    assert_eq!(made["metadata"]["finalizers"], json!(["a.io/b", "kubernetes.io/pvc-protection"]));
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}});
    let made = api.post("/api/v1/persistentvolumes", &volume).await.expect(201);
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
}

#[tokio::test]
async fn a_selector_of_devices_that_does_not_compile_is_not_stored() {
    let api = Api::new().await;
    let class = |expression: &str| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "d"},
            "spec": {"selectors": [{"cel": {"expression": expression}}]}})
    };
    let path = "/apis/resource.k8s.io/v1/deviceclasses";
    let refused = api.post(path, &class("device.driver ==")).await;
    assert_eq!(refused.code, 422);
    let wanted = "spec.selectors[0].cel.expression: Invalid value: \"device.driver ==\": compilation failed: ";
    assert!(refused.message().contains(wanted), "{}", refused.message());
    api.post(path, &class("device.driver == 'gpu.example.com'")).await.expect(201);
}
