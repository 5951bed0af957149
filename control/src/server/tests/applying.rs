//! Server-side apply and `managedFields`, through the pipeline.

use http::Request;
use http::header::{CONTENT_TYPE, USER_AGENT};
use serde_json::{Value, json};
use wherry_api::decode::{self, Decoded, FieldValidation};

use super::{Answer, Api, collection, config_map, sample};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(api: &Api, path: &str, query: &str, body: impl Into<bytes::Bytes>) -> Answer {
    let request = Request::patch(format!("{path}?{query}")).header(CONTENT_TYPE, "application/apply-patch+yaml");
    api.send(request, body).await
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
        "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]}}}})
}

fn managers(object: &Value) -> Vec<(String, String, String)> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|e| (text(e, "manager"), text(e, "operation"), text(e, "subresource"))).collect()
}

#[tokio::test]
async fn every_stored_kind_is_applied_created_changed_and_left_alone() {
    let api = Api::new().await;
    let kinds: Vec<_> =
        api.server.registry().iter().filter(|r| r.stored() && r.verbs.contains(&"patch")).cloned().collect();
    for resource in kinds {
        let kind = resource.kind.as_ref();
        // Some objects are shown by several kinds.
        let name = format!("applied-{}-{}", resource.version, resource.group.len());
        let sample = Decoded { object: sample(&resource, &name), warnings: Vec::new() };
        let path = format!("{}/{}", collection(&resource), sample.object["metadata"]["name"].as_str().unwrap());
        let mut object = decode::object(&resource, sample, FieldValidation::Ignore).unwrap().object;
        object["metadata"]["annotations"] = json!({"x": "1"});
        let query = "fieldManager=me";
        apply(&api, &path, &format!("{query}&dryRun=All"), object.to_string()).await.expect(201);
        api.get(&path).await.expect(404);
        let made = apply(&api, &path, query, object.to_string()).await.expect(201);
        assert!(managers(&made).contains(&("me".into(), "Apply".into(), String::new())), "{kind}: {made}");
        let again = apply(&api, &path, query, object.to_string()).await.expect(200);
        assert_eq!(again, made, "{kind}: what is applied twice changes nothing");
        object["metadata"]["annotations"] = json!({"y": "2"});
        let changed = apply(&api, &path, query, object.to_string()).await.expect(200);
        let annotations = &changed["metadata"]["annotations"];
        assert_eq!((annotations.get("x"), &annotations["y"]), (None, &json!("2")), "{kind}");
        assert_eq!(api.put(&path, &changed).await.expect(200), changed, "{kind}: an update without change");
    }
}

#[tokio::test]
async fn a_conflict_is_409_and_force_takes_the_field() {
    let api = Api::new().await;
    api.post(&format!("{DEPLOYMENTS}?fieldManager=kubectl-create"), &deployment(1, "i:1")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 3}\n";
    let refused = apply(&api, &path, "fieldManager=me", yaml).await.expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "field": ".spec.replicas",
        "message": "conflict with \"kubectl-create\" using apps/v1"}])
    );
    let forced = apply(&api, &path, "fieldManager=me&force=true", yaml).await.expect(200);
    assert_eq!((&forced["spec"]["replicas"], &forced["metadata"]["generation"]), (&json!(3), &json!(2)));
    // What the applier lets go of and nobody else has falls back to its default.
    let nothing = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n";
    let left = apply(&api, &path, "fieldManager=me", nothing).await.expect(200);
    assert_eq!(left["spec"]["replicas"], 1);
    assert_eq!(left["spec"]["template"], forced["spec"]["template"]);
}

#[tokio::test]
async fn every_way_of_writing_is_recorded() {
    let api = Api::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    api.post(&format!("{DEPLOYMENTS}?fieldManager=creator"), &deployment(1, "i:1")).await.expect(201);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    api.patch("strategic-merge-patch", &format!("{path}?fieldManager=patcher"), &patch).await.expect(200);
    let status = json!({"status": {"replicas": 1}});
    api.patch("merge-patch", &format!("{path}/status?fieldManager=controller"), &status).await.expect(200);
    api.patch("merge-patch", &format!("{path}/scale?fieldManager=scaler"), &json!({"spec": {"replicas": 2}}))
        .await
        .expect(200);
    let mut object = api.get(&path).await.expect(200);
    object["metadata"]["labels"] = json!({"a": "b"});
    let request =
        Request::put(&path).header(CONTENT_TYPE, "application/json").header(USER_AGENT, "editor/v1.2 (linux)");
    let object = api.send(request, object.to_string()).await.expect(200);
    let mut all = managers(&object);
    all.sort();
    let entry = |manager: &str, sub: &str| (manager.to_owned(), "Update".to_owned(), sub.to_owned());
    assert_eq!(
        all,
        [
            entry("controller", "status"),
            entry("creator", ""),
            entry("editor", ""),
            entry("patcher", ""),
            entry("scaler", "scale")
        ]
    );
    let scaler =
        object["metadata"]["managedFields"].as_array().unwrap().iter().find(|e| e["manager"] == "scaler").unwrap();
    assert_eq!(scaler["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let reset = api.patch("merge-patch", &path, &json!({"metadata": {"managedFields": [{}]}})).await.expect(200);
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

#[tokio::test]
async fn a_scale_and_a_status_are_applied_too() {
    let api = Api::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    api.post(&format!("{DEPLOYMENTS}?fieldManager=creator"), &deployment(1, "i:1")).await.expect(201);
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 4}});
    let refused = apply(&api, &format!("{path}/scale"), "fieldManager=me", scale.to_string()).await;
    assert_eq!(refused.code, 409, "{}", refused.message());
    let scaled =
        apply(&api, &format!("{path}/scale"), "fieldManager=me&force=true", scale.to_string()).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    let status =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "status": {"replicas": 4}});
    let after = apply(&api, &format!("{path}/status"), "fieldManager=me", status.to_string()).await.expect(200);
    assert_eq!((&after["status"]["replicas"], &after["spec"]["replicas"]), (&json!(4), &json!(4)));
    assert_eq!(managers(&after).iter().filter(|(name, ..)| name == "me").count(), 2);
}

#[tokio::test]
async fn what_an_apply_may_not_say_is_refused() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/x");
    let object = config_map("x");
    let nobody = apply(&api, &path, "", object.to_string()).await.expect(422);
    assert_eq!(
        nobody["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let forced = api.patch("merge-patch", &format!("{path}?force=true"), &json!({})).await.expect(422);
    assert!(
        forced["message"].as_str().unwrap().ends_with("force: Forbidden: may not be specified for non-apply patch")
    );
    let with = |field: &str, value: Value| {
        let mut object = object.clone();
        object["metadata"][field] = value;
        object.to_string()
    };
    for (body, code) in [
        ("a: [".to_owned(), 400),
        ("[]".to_owned(), 400),
        (json!({"metadata": {"name": "x"}}).to_string(), 400),
        (with("managedFields", json!([])), 400),
        (with("name", json!("y")), 400),
        (with("uid", json!("00000000-0000-4000-8000-000000000000")), 409),
        (with("resourceVersion", json!("1")), 409),
        (json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}}).to_string(), 400),
    ] {
        let answer = apply(&api, &path, "fieldManager=me", body.clone()).await;
        assert_eq!(answer.code, code, "{body}: {}", answer.message());
    }
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "nonsense": 1});
    let refused = apply(&api, &path, "fieldManager=me", unknown.to_string()).await.expect(400);
    assert_eq!(
        refused["message"],
        "failed to create typed patch object (default/x; v1, Kind=ConfigMap): .nonsense: field not declared in schema"
    );
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: b\n  a: c\n";
    let refused = apply(&api, &path, "fieldManager=me&fieldValidation=Strict", twice).await.expect(400);
    let message = refused["message"].as_str().unwrap();
    assert!(message.ends_with("yaml: unmarshal errors:\n  line 6: key \"a\" already set in map"), "{message}");
    let other = Request::patch(format!("{path}?fieldManager=me")).header(CONTENT_TYPE, "application/apply-patch+json");
    assert_eq!(api.send(other, "x").await.code, 415);
    let made = apply(&api, &path, "fieldManager=me", object.to_string()).await.expect(201);
    api.patch("merge-patch", &path, &json!({"data": {"z": "1"}})).await.expect(200);
    let stale = with("resourceVersion", made["metadata"]["resourceVersion"].clone());
    assert_eq!(apply(&api, &path, "fieldManager=me", stale).await.code, 409);
}

#[tokio::test]
async fn many_appliers_lose_nothing() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/x");
    let all = (0..10).map(|n| {
        let (api, path) = (&api, &path);
        async move {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {format!("k{n}"): "v"}});
            apply(api, path, &format!("fieldManager=m{n}"), object.to_string()).await
        }
    });
    for answer in futures::future::join_all(all).await {
        assert!(matches!(answer.code, 200 | 201), "{}", answer.message());
    }
    let object = api.get(&path).await.expect(200);
    assert_eq!(object["data"].as_object().unwrap().len(), 10);
    assert_eq!(managers(&object).len(), 10);
}
