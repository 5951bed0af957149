//! Kinds served in several versions, and kinds that come and go while the server runs.

use std::sync::Arc;

use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler as V1;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler as V2;
use serde_json::{Value, json};
use wherry_api::resource::Descriptor;

use super::*;

const V1_PATH: &str = "/apis/scaling.example.com/v1/namespaces/default/horizontalpodautoscalers";
const V2_PATH: &str = "/apis/scaling.example.com/v2/namespaces/default/horizontalpodautoscalers";

/// One kind with two versions in a group of its own; version 2 is stored.
fn kinds() -> Vec<Arc<Descriptor>> {
    let group = |mut descriptor: Descriptor| {
        descriptor.group = "scaling.example.com".into();
        Arc::new(descriptor)
    };
    let v2 = Descriptor::of::<V2>().status().selectable(&["spec.maxReplicas"]);
    let v1 = Descriptor::of::<V1>()
        .status()
        .stored_as(("scaling.example.com", "v2"), "horizontalpodautoscalers", from_stored, to_stored)
        .selectable_as(&[("most", "spec.maxReplicas")]);
    vec![group(v1), group(v2)]
}

const CPU: &str = "/spec/metrics/0/resource/target/averageUtilization";

fn from_stored(mut object: Value) -> Value {
    let cpu = object.pointer(CPU).cloned().unwrap_or_default();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("metrics");
        spec.insert("targetCPUUtilizationPercentage".into(), cpu);
    }
    object
}

fn to_stored(mut object: Value) -> Value {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let cpu = spec.remove("targetCPUUtilizationPercentage").unwrap_or_default();
        spec.insert(
            "metrics".into(),
            json!([{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": cpu}}}]),
        );
    }
    object
}

async fn api() -> Api {
    let api = Api::new().await;
    api.server.serve(api.server.registry().with_custom(kinds())).await.unwrap();
    api
}

fn hpa(name: &str) -> Value {
    json!({"apiVersion": "scaling.example.com/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 70,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}}})
}

#[tokio::test]
async fn an_object_is_written_and_read_in_every_version() {
    let api = api().await;
    let created = api.post(V1_PATH, &hpa("a")).await.expect(201);
    assert_eq!(
        (&created["apiVersion"], &created["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("scaling.example.com/v1"), &json!(70))
    );
    let path = format!("{V2_PATH}/a");
    let mut v2 = api.get(&path).await.expect(200);
    assert_eq!((&v2["apiVersion"], v2.pointer(CPU)), (&json!("scaling.example.com/v2"), Some(&json!(70))));
    assert_eq!(v2["metadata"], created["metadata"]);
    *v2.pointer_mut(CPU).unwrap() = json!(50);
    let v2 = api.put(&path, &v2).await.expect(200);
    let v1 = api.get(&format!("{V1_PATH}/a")).await.expect(200);
    assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(
        (&v1["metadata"]["resourceVersion"], &v1["metadata"]["generation"]),
        (&v2["metadata"]["resourceVersion"], &json!(2))
    );
    let same = api.put(&format!("{V1_PATH}/a"), &v1).await.expect(200);
    assert_eq!(same, v1, "an update that changes nothing writes nothing, in any version");
    let patched =
        api.patch("merge-patch", &format!("{V1_PATH}/a"), &json!({"spec": {"maxReplicas": 9}})).await.expect(200);
    assert_eq!(
        (&patched["spec"]["maxReplicas"], &patched["spec"]["targetCPUUtilizationPercentage"]),
        (&json!(9), &json!(50))
    );
    let dry = api.put(&format!("{V1_PATH}/a?dryRun=All"), &json!({"apiVersion": "scaling.example.com/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a"}, "spec": {"maxReplicas": 1, "targetCPUUtilizationPercentage": 1, "scaleTargetRef": {"kind": "a", "name": "b"}}})).await.expect(200);
    assert_eq!(dry["spec"]["targetCPUUtilizationPercentage"], 1);
    api.delete(&format!("{V1_PATH}/a")).await.expect(200);
    api.get(&path).await.expect(404);
}

#[tokio::test]
async fn lists_watches_and_selectors_speak_the_version_that_was_asked_for() {
    let api = api().await;
    let mut watch =
        api.watch("/apis/scaling.example.com/v1/horizontalpodautoscalers?watch=1&fieldSelector=most%3D5").await;
    api.post(V1_PATH, &hpa("a")).await.expect(201);
    let (kind, seen) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &seen["spec"]["targetCPUUtilizationPercentage"]), ("ADDED", &json!(70)));
    for (path, version, selector) in [(V1_PATH, "v1", "most"), (V2_PATH, "v2", "spec.maxReplicas")] {
        let list = api.get(&format!("{path}?fieldSelector={selector}%3D5")).await.expect(200);
        assert_eq!(list["items"][0]["apiVersion"], format!("scaling.example.com/{version}"), "{list}");
        let none = api.get(&format!("{path}?fieldSelector={selector}%3D6")).await.expect(200);
        assert_eq!(none["items"], json!([]));
        assert_eq!(api.get(&format!("{path}?fieldSelector=other%3D6")).await.code, 400);
    }
    api.delete(&format!("{V2_PATH}/a")).await.expect(200);
    let (kind, seen) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &seen["apiVersion"]), ("DELETED", &json!("scaling.example.com/v1")));
}

#[tokio::test]
async fn a_kind_is_served_from_the_moment_it_is_added_until_it_is_removed() {
    let api = Api::new().await;
    let before = api.server.registry();
    let mut pods = api.watch("/api/v1/pods?watch=1").await;
    api.get(V2_PATH).await.expect(404);
    api.server.serve(before.with_custom(kinds())).await.unwrap();
    let groups = api.get("/apis").await.expect(200).to_string();
    assert!(groups.contains("scaling.example.com"), "{groups}");
    api.get("/openapi/v3/apis/scaling.example.com/v2").await.expect(200);
    api.post(V1_PATH, &hpa("a")).await.expect(201);
    let mut watch = api.watch(&format!("{V2_PATH}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap().0, "ADDED");

    api.server.serve(before.clone()).await.unwrap();
    assert!(watch.next().await.is_none(), "its watches end");
    api.get(V2_PATH).await.expect(404);
    api.get("/openapi/v3/apis/scaling.example.com/v2").await.expect(404);
    api.server.serve(before.with_custom(kinds())).await.unwrap();
    let again = api.get(V2_PATH).await.expect(200);
    assert_eq!(again["items"][0]["metadata"]["name"], "a", "what is stored is found again");
    api.post("/api/v1/namespaces/default/pods", &pod("p")).await.expect(201);
    assert_eq!(pods.next().await.unwrap().0, "ADDED", "other watches go on");
}
