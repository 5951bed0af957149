//! Every verb of every kind, by the registry: what is listed there works.

use http::header::CONTENT_TYPE;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{Api, collection, sample};
use crate::auth::UserInfo;

/// Verbs that a path does not have, tried to be told so.
const METHODS: [(&str, Method); 4] =
    [("create", Method::POST), ("update", Method::PUT), ("patch", Method::PATCH), ("delete", Method::DELETE)];

#[tokio::test]
async fn who_creates_what_nothing_acts_on_is_warned_and_controllers_are_not() {
    let api = Api::new().await;
    let kinds: Vec<_> = api.server.registry().iter().filter(|r| r.stored()).cloned().collect();
    for resource in kinds {
        let made = api.post(&format!("{}?dryRun=All", collection(&resource)), &sample(&resource, "test-one")).await;
        let warned = made.warnings().iter().any(|text| text.contains("nothing acts on"));
        assert_eq!(warned, resource.idle.is_some(), "{}: {:?}", resource.kind, made.warnings());
    }
    let jobs = api.server.registry().iter().find(|r| r.kind == "Job").cloned().unwrap();
    let job = sample(&jobs, "one");
    let path = format!("{}?dryRun=All", collection(&jobs));
    let text = "299 - \"nothing acts on Job yet: it is stored only (docs/conformance.md)\"";
    assert_eq!(api.post(&path, &job).await.warnings(), [text]);
    let controller = UserInfo::authenticated("system:kube-controller-manager", &["system:masters"]);
    let request = Request::post(&path).header(CONTENT_TYPE, "application/json");
    assert!(api.send_as(controller, request, job.to_string()).await.warnings().is_empty());
}

#[tokio::test]
async fn every_stored_kind_is_created_read_listed_changed_and_deleted() {
    let api = Api::new().await;
    let kinds: Vec<_> = api.server.registry().iter().filter(|r| r.stored()).cloned().collect();
    for resource in kinds {
        let all = collection(&resource);
        let object = sample(&resource, "test-one");
        // Some kinds' names are not free.
        let name = object["metadata"]["name"].as_str().unwrap();
        let one = format!("{all}/{name}");
        let kind = resource.kind.as_ref();

        let dry = api.post(&format!("{all}?dryRun=All"), &object).await.expect(201);
        assert_eq!(dry.pointer("/metadata/resourceVersion"), None, "{kind}: a dry run has no revision");
        api.get(&one).await.expect(404);

        let created = api.post(&all, &object).await.expect(201);
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            assert!(created["metadata"][field].is_string(), "{kind}: {field}");
        }
        assert_eq!(api.get(&one).await.expect(200), created, "{kind}: what is read is what was answered");
        assert_eq!(api.post(&all, &object).await.expect(409)["reason"], "AlreadyExists", "{kind}");

        let list = api.get(&all).await.expect(200);
        assert_eq!(list["kind"], format!("{kind}List"));
        assert!(list["items"].as_array().unwrap().contains(&created), "{kind}");

        assert_eq!(api.put(&one, &created).await.expect(200), created, "{kind}: an update without change");
        let mut changed = created.clone();
        changed["metadata"]["labels"]["x"] = "y".into();
        let updated = api.put(&one, &changed).await.expect(200);
        assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"], "{kind}");
        assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"], "{kind}");
        assert_eq!(updated["metadata"]["generation"], created["metadata"]["generation"], "{kind}: a label is no spec");
        assert_eq!(api.put(&one, &changed).await.expect(409)["reason"], "Conflict", "{kind}: a stale revision");

        for (kind_of_patch, patch, wanted) in [
            ("merge-patch", json!({"metadata": {"labels": {"x": "merge"}}}), "merge"),
            ("strategic-merge-patch", json!({"metadata": {"labels": {"x": "strategic"}}}), "strategic"),
            ("json-patch", json!([{"op": "replace", "path": "/metadata/labels/x", "value": "json"}]), "json"),
        ] {
            let patched = api.patch(kind_of_patch, &one, &patch).await.expect(200);
            assert_eq!(patched["metadata"]["labels"]["x"], wanted, "{kind}: {kind_of_patch}");
        }

        let mut watch = api.watch(&format!("{all}?watch=true&fieldSelector=metadata.name%3D{name}")).await;
        let (event, seen) = watch.next().await.unwrap();
        assert_eq!((event.as_str(), seen["metadata"]["name"].as_str()), ("ADDED", Some(name)), "{kind}");

        let table = api.get_as(&all, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        assert!(columns > 0 && table["rows"][0]["cells"].as_array().unwrap().len() == columns, "{kind}: {table}");
        let meta = api.get_as(&one, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.expect(200);
        assert_eq!((meta["kind"].as_str(), meta.get("spec")), (Some("PartialObjectMetadata"), None), "{kind}");

        end(&api, kind, &one, &all).await;
        if kind != "Namespace" {
            assert_eq!(watch_until_deleted(&mut watch).await["metadata"]["name"], name, "{kind}");
            api.get(&one).await.expect(404);
        }
    }
}

/// Deletes a collection, and sees that one object is gone.
async fn end(api: &Api, kind: &str, one: &str, all: &str) {
    api.delete(&format!("{one}?dryRun=All")).await.expect(200);
    api.get(one).await.expect(200);
    if kind == "Namespace" {
        let left = api.delete(one).await.expect(200);
        assert_eq!(left["status"]["phase"], "Terminating");
    } else {
        let deleted =
            api.delete(&format!("{all}?labelSelector=x%3Djson&propagationPolicy=Background")).await.expect(200);
        assert_eq!(deleted["items"].as_array().unwrap().len(), 1, "{kind}");
        // What its own finalizer holds is let go as its controller would.
        if deleted["items"][0]["metadata"]["finalizers"].is_array() {
            api.patch("merge-patch", one, &json!({"metadata": {"finalizers": null}})).await.expect(200);
        }
    }
}

async fn watch_until_deleted(watch: &mut super::Lines) -> Value {
    loop {
        let (event, object) = watch.next().await.unwrap();
        if event == "DELETED" {
            return object;
        }
    }
}

#[tokio::test]
async fn a_review_is_answered_and_not_kept() {
    let api = Api::new().await;
    let registry = api.server.registry();
    // A Binding is about a pod that there is.
    let reviews: Vec<_> = registry.iter().filter(|r| !r.stored() && r.kind != "Binding").cloned().collect();
    assert!(!reviews.is_empty());
    for resource in reviews {
        let all = collection(&resource);
        let answered = api.post(&all, &sample(&resource, "")).await.expect(201);
        assert!(answered["status"].is_object(), "{answered}");
        assert_eq!(api.get(&all).await.code, 405, "{all}");
    }
    let who = api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
    assert_eq!(who["status"]["userInfo"]["username"], "wherry-admin");
}

#[tokio::test]
async fn what_a_path_does_not_have_is_405_and_what_is_no_path_404() {
    let api = Api::new().await;
    let kinds: Vec<_> = api.server.registry().iter().cloned().collect();
    for resource in kinds {
        let (all, nowhere) = (collection(&resource), json!({}));
        for (verb, method) in METHODS {
            let path = if verb == "create" { format!("{all}/x") } else { all.clone() };
            let collection_delete = verb == "delete" && resource.verbs.contains(&"deletecollection");
            if !collection_delete {
                assert_eq!(api.call(method, &path, &nowhere).await.code, 405, "{verb} {path}");
            }
        }
        assert_eq!(api.get(&format!("{all}/x/nonsense")).await.code, 404);
    }
    for path in
        ["/api/v1/nonsense", "/apis/nope/v1/pods", "/nonsense", "/api/v1/namespaces/default/nodes", "/api/v1/pods/x"]
    {
        assert_eq!(api.get(path).await.expect(404)["kind"], "Status", "{path}");
    }
}
