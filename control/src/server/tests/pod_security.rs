//! Pod Security Standards through the pipeline: what is refused, what is warned of.

use serde_json::{Value, json};

use super::{Api, pod};

const NAMESPACES: &str = "/api/v1/namespaces";

fn namespace(labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tight", "labels": labels}})
}

fn in_namespace(mut object: Value) -> Value {
    object["metadata"]["namespace"] = "tight".into();
    object
}

#[tokio::test]
async fn a_pod_that_breaks_the_enforced_standard_is_refused_in_kubernetes_words() {
    let api = Api::new().await;
    api.post(NAMESPACES, &namespace(&json!({"pod-security.kubernetes.io/enforce": "restricted"}))).await.expect(201);
    let pods = format!("{NAMESPACES}/tight/pods");
    let refused = api.post(&pods, &in_namespace(pod("p"))).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
         (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must \
         set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let mut good = in_namespace(pod("p"));
    good["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    good["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    api.post(&pods, &good).await.expect(201);
}

#[tokio::test]
async fn a_workload_is_only_warned_of() {
    let api = Api::new().await;
    api.post(NAMESPACES, &namespace(&json!({"pod-security.kubernetes.io/enforce": "baseline"}))).await.expect(201);
    let mut spec = pod("p")["spec"].clone();
    spec["hostPID"] = true.into();
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}});
    let made = api.post("/apis/apps/v1/namespaces/tight/deployments", &deployment).await;
    assert_eq!(made.code, 201);
    let warning = "would violate PodSecurity \\\"baseline:latest\\\": host namespaces (hostPID=true)";
    assert!(made.warnings().iter().any(|w| w.contains(warning)), "{:?}", made.warnings());
}

#[tokio::test]
async fn a_namespace_that_gets_stricter_is_told_of_the_pods_it_would_refuse() {
    let api = Api::new().await;
    api.post(NAMESPACES, &namespace(&json!({}))).await.expect(201);
    let mut spec = in_namespace(pod("old"));
    spec["spec"]["hostPID"] = true.into();
    api.post(&format!("{NAMESPACES}/tight/pods"), &spec).await.expect(201);
    let patch = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let changed = api.patch("merge-patch", &format!("{NAMESPACES}/tight"), &patch("baseline")).await;
    assert_eq!(changed.code, 200);
    let text = changed.warnings().join("\n");
    assert!(
        text.contains("existing pods in namespace \\\"tight\\\" violate the new PodSecurity enforce level"),
        "{text}"
    );
    assert!(text.contains("old: host namespaces"), "{text}");
    let refused = api.patch("merge-patch", &format!("{NAMESPACES}/tight"), &patch("tighter")).await;
    assert_eq!(refused.code, 422);
    assert!(refused.message().contains("must be one of privileged, baseline, restricted"), "{}", refused.message());
}
