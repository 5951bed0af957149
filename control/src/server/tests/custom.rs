//! Custom resources through the whole pipeline. The conditions that a controller would write are written here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::outbound::tests::Echo;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/sea.example.com/v1/namespaces/default/boats";
const V2: &str = "/apis/sea.example.com/v2/namespaces/default/boats";

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer", "default": 1, "minimum": 0},
            "name": {"type": "string"},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"size": {"type": "integer"}, "selector": {"type": "string"}}}}})
}

fn definition() -> Value {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema()},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size",
                "statusReplicasPath": ".status.size", "labelSelectorPath": ".status.selector"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "selectableFields": [{"jsonPath": ".spec.name"}]})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example.com"},
        "spec": {"group": "sea.example.com", "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat", "shortNames": ["bo"]},
            "versions": [version("v1", true), version("v2", false)]}})
}

impl Api {
    /// Creates a definition and accepts its names.
    pub(super) async fn define(&self, definition: &Value) -> Value {
        let made = self.post(DEFINITIONS, definition).await.expect(201);
        let name = made["metadata"]["name"].as_str().unwrap();
        let status = json!({"status": {"acceptedNames": made["spec"]["names"],
            "conditions": [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]}});
        self.patch("merge-patch", &format!("{DEFINITIONS}/{name}/status"), &status).await.expect(200)
    }
}

fn boat(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_defined_kind_is_like_any_other() {
    let api = Api::new().await;
    api.get(V1).await.expect(404);
    api.define(&definition()).await;
    let made = api.post(V1, &boat("a", &json!({"sails": 2, "port": "x", "free": {"any": 1}}))).await;
    assert_eq!(made.warnings(), ["299 - \"unknown field \\\"spec.sails\\\"\""]);
    let made = made.expect(201);
    assert_eq!(made["spec"], json!({"size": 1, "port": "x", "free": {"any": 1}}));
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = api.post(&format!("{V1}?fieldValidation=Strict"), &boat("b", &json!({"sails": 2}))).await;
    assert_eq!(strict.code, 400, "{}", strict.message());
    let bad = api.post(V1, &boat("b", &json!({"size": -1}))).await;
    assert_eq!((bad.code, bad.reason().as_str()), (422, "Invalid"), "{}", bad.message());
    assert!(bad.message().contains("spec.size"), "{}", bad.message());

    let path = format!("{V1}/a");
    let strategic = api.patch("strategic-merge-patch", &path, &json!({"spec": {"size": 2}})).await;
    assert_eq!(strategic.code, 415);
    let patched =
        api.patch("merge-patch", &path, &json!({"spec": {"size": 2}, "status": {"size": 9}})).await.expect(200);
    assert_eq!((&patched["spec"]["size"], &patched["metadata"]["generation"]), (&json!(2), &json!(2)));
    assert!(patched.get("status").is_none(), "the status has a path of its own");
    let status =
        json!({"status": {"size": 2, "selector": "a=b"}, "spec": {"size": 7}, "metadata": {"labels": {"x": "y"}}});
    let written = api.patch("merge-patch", &format!("{path}/status"), &status).await.expect(200);
    assert_eq!((&written["status"]["size"], &written["spec"]["size"]), (&json!(2), &json!(2)));
    assert!(written["metadata"].get("labels").is_none());
    let scale = api.patch("merge-patch", &format!("{path}/scale"), &json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]), (&json!(5), &json!({"replicas": 2, "selector": "a=b"})));

    let table = api.get_as(V1, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 5]));
    let selected = api.get(&format!("{V1}?fieldSelector=spec.name%3Dnobody")).await.expect(200);
    assert_eq!((&selected["kind"], &selected["items"]), (&json!("BoatList"), &json!([])));
}

#[tokio::test]
async fn what_is_defined_is_described() {
    let api = Api::new().await;
    api.define(&definition()).await;
    let resources = api.get("/apis/sea.example.com/v1").await.expect(200);
    let names: Vec<_> =
        resources["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["boats", "boats/status", "boats/scale"]);
    assert_eq!(api.get("/apis/sea.example.com").await.expect(200)["preferredVersion"]["version"], "v2");
    let v3 = api.get("/openapi/v3/apis/sea.example.com/v1").await.expect(200);
    let described = &v3["components"]["schemas"]["com.example.sea.v1.Boat"];
    assert_eq!(described["properties"]["spec"]["properties"]["size"]["minimum"], 0.0, "{described}");
    assert_eq!(described["x-kubernetes-group-version-kind"][0]["kind"], "Boat");
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    let mut gone = api.get(&path).await.expect(200);
    gone["spec"]["versions"][1]["served"] = json!(false);
    api.put(&path, &gone).await.expect(200);
    api.get(V2).await.expect(404);
    api.get("/openapi/v3/apis/sea.example.com/v2").await.expect(404);
    assert_eq!(api.get("/apis/sea.example.com").await.expect(200)["preferredVersion"]["version"], "v1");
}

#[tokio::test]
async fn objects_follow_a_change_of_schema_and_of_the_stored_version() {
    let api = Api::new().await;
    api.define(&definition()).await;
    api.post(V1, &boat("old", &json!({"name": "x"}))).await.expect(201);
    let mut changed = api.get(&format!("{DEFINITIONS}/boats.sea.example.com")).await.expect(200);
    changed["spec"]["versions"][0]["storage"] = json!(false);
    changed["spec"]["versions"][1]["storage"] = json!(true);
    for version in [0, 1] {
        let properties =
            changed.pointer_mut(&format!("/spec/versions/{version}/schema/openAPIV3Schema/properties/spec/properties"));
        properties.unwrap()["sails"] = json!({"type": "integer", "default": 3});
    }
    let changed = api.put(&format!("{DEFINITIONS}/boats.sea.example.com"), &changed).await.expect(200);
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    for (path, version) in [(V1, "v1"), (V2, "v2")] {
        let read = api.get(&format!("{path}/old")).await.expect(200);
        assert_eq!(
            (&read["spec"]["sails"], &read["apiVersion"]),
            (&json!(3), &json!(format!("sea.example.com/{version}")))
        );
        let list = api.get(path).await.expect(200);
        assert_eq!(list["items"][0], read, "a list shows the same");
    }
    let old = api.get(&format!("{V2}/old")).await.expect(200);
    let rewritten = api.put(&format!("{V2}/old"), &old).await.expect(200);
    assert_ne!(
        rewritten["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"],
        "stored in the new version"
    );
    assert_eq!(api.put(&format!("{V2}/old"), &rewritten).await.expect(200), rewritten, "and then left alone");
}

#[tokio::test]
async fn a_definition_ends_after_its_finalizer_and_takes_no_new_objects() {
    let api = Api::new().await;
    api.define(&definition()).await;
    api.post(V1, &boat("a", &json!({}))).await.expect(201);
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    let ending = api.delete(&path).await.expect(200);
    assert_eq!(ending["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let conditions = ending["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "Terminating" && c["status"] == "True"), "{ending}");
    let refused = api.post(V1, &boat("b", &json!({}))).await;
    assert_eq!(
        (refused.code, refused.reason().as_str(), refused.message().as_str()),
        (405, "MethodNotAllowed", "create not allowed while custom resource definition is terminating")
    );
    let finalizers = json!({"metadata": {"finalizers": ["example.com/mine"]}});
    api.patch("merge-patch", &format!("{V1}/a"), &finalizers).await.expect(200);
    let mut held = api.get(&format!("{V1}/a")).await.expect(200);
    held["metadata"]["finalizers"] = json!([]);
    api.put(&format!("{V1}/a"), &held).await.expect(200);
    api.delete(&format!("{V1}/a")).await.expect(200);
    api.patch("merge-patch", &path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    api.get(&path).await.expect(404);
    api.get(V1).await.expect(404);
}

/// Defines boats that a webhook converts between their versions, for as long as it is kept.
async fn define_converted(api: &Api) -> Echo {
    let hook = Echo::converting("127.0.0.1").await;
    let mut converted = definition();
    converted["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{}/convert", hook.port), "caBundle": hook.bundle}}});
    api.define(&converted).await;
    hook
}

#[tokio::test]
async fn a_webhook_converts_between_versions_and_its_failures_are_told() {
    let api = Api::new().await;
    let hook = define_converted(&api).await;
    api.post(V1, &boat("a", &json!({"name": "swan"}))).await.expect(201);
    let read = api.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!(read["apiVersion"], "sea.example.com/v2");
    assert_eq!(read["spec"]["name"], "swan to sea.example.com/v2");
    let list = api.get(V2).await.expect(200);
    assert_eq!(list["items"][0], read);
    let untouched = api.get(&format!("{V1}/a")).await.expect(200);
    assert_eq!(untouched["spec"]["name"], "swan", "the stored version needs no conversion");

    let config = json!({"url": format!("https://127.0.0.1:{}/convert", hook.port), "caBundle": STANDARD.encode("-")});
    let patch = json!({"spec": {"conversion": {"webhook": {"clientConfig": config}}}});
    api.patch("merge-patch", &format!("{DEFINITIONS}/boats.sea.example.com"), &patch).await.expect(200);
    let failed = api.get(&format!("{V2}/a")).await;
    assert_eq!(failed.code, 500);
    let wanted = "conversion webhook for sea.example.com/v1, Kind=Boat failed: ";
    assert!(failed.message().starts_with(wanted), "{}", failed.message());
}

#[tokio::test]
async fn selectors_are_about_the_fields_of_the_version_that_is_asked_for() {
    let api = Api::new().await;
    let _hook = define_converted(&api).await;
    let selected = format!("{V2}?fieldSelector=spec.name%3Dswan%20to%20sea.example.com/v2");
    let mut watch = api.watch(&format!("{selected}&watch=1")).await;
    api.post(V1, &boat("a", &json!({"name": "swan"}))).await.expect(201);
    api.post(V1, &boat("b", &json!({"name": "heron"}))).await.expect(201);

    let list = api.get(&selected).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    let first = api.get(&format!("{selected}&limit=1")).await.expect(200);
    assert!(first["metadata"].get("remainingItemCount").is_none(), "how many have the field is not known: {first}");
    let of = |list: Value| list["items"].as_array().unwrap().len();
    assert_eq!(of(api.get(&format!("{V2}?fieldSelector=spec.name%3Dswan")).await.expect(200)), 0);
    assert_eq!(of(api.get(&format!("{V1}?fieldSelector=spec.name%3Dswan")).await.expect(200)), 1);
    assert_eq!(of(api.get(&format!("{selected},metadata.name%3Db")).await.expect(200)), 0);

    let rename = |name: &str| json!({"spec": {"name": name}});
    let path = format!("{V1}/a");
    api.patch("merge-patch", &path, &rename("crane")).await.expect(200);
    api.patch("merge-patch", &path, &rename("crane")).await.expect(200);
    let back = api.patch("merge-patch", &path, &rename("swan")).await.expect(200);
    api.patch("merge-patch", &path, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(of(api.delete(&selected).await.expect(200)), 1);
    assert_eq!(of(api.get(V1).await.expect(200)), 1, "the other one stays");
    for (wanted, name) in
        [("ADDED", "swan"), ("DELETED", "swan"), ("ADDED", "swan"), ("MODIFIED", "swan"), ("DELETED", "swan")]
    {
        let (event, object) = watch.next().await.unwrap();
        assert_eq!((event.as_str(), &object["metadata"]["name"]), (wanted, &json!("a")), "{object}");
        assert_eq!(object["spec"]["name"], format!("{name} to sea.example.com/v2"));
    }

    let since = back["metadata"]["resourceVersion"].as_str().unwrap();
    let mut later = api.watch(&format!("{selected}&watch=1&resourceVersion={since}")).await;
    assert_eq!(later.next().await.unwrap().0, "MODIFIED");
    assert_eq!(later.next().await.unwrap().0, "DELETED");
}

#[tokio::test]
async fn a_selector_sees_the_default_of_what_was_stored_without_it() {
    let api = Api::new().await;
    let mut definition = definition();
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] = json!({"type": "integer"});
        version["selectableFields"] = json!([{"jsonPath": ".spec.size"}]);
    }
    api.define(&definition).await;
    api.post(V1, &boat("a", &json!({}))).await.expect(201);
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]["default"] = json!(4);
    }
    let patch = json!({"spec": {"versions": definition["spec"]["versions"]}});
    api.patch("merge-patch", &format!("{DEFINITIONS}/boats.sea.example.com"), &patch).await.expect(200);
    let list = api.get(&format!("{V1}?fieldSelector=spec.size%3D4")).await.expect(200);
    assert_eq!(list["items"][0]["spec"]["size"], 4, "{list}");
}

#[tokio::test]
async fn a_small_body_does_not_become_an_object_of_any_size() {
    let api = Api::new().await;
    let mut definition = definition();
    let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": "x".repeat(10_000)}}});
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["list"] =
            json!({"type": "array", "items": item});
    }
    api.define(&definition).await;
    let refused = api.post(V1, &boat("a", &json!({"list": vec![json!({}); 100_000]}))).await;
    assert_eq!((refused.code, refused.reason().as_str()), (413, "RequestEntityTooLarge"), "{}", refused.message());
    assert!(refused.message().starts_with("the defaults of its definition"), "{}", refused.message());
    api.post(V1, &boat("a", &json!({"list": vec![json!({}); 100]}))).await.expect(201);
    let grown = json!({"spec": {"list": vec![json!({}); 100_000]}});
    assert_eq!(api.patch("merge-patch", &format!("{V1}/a"), &grown).await.code, 413);
}

/// A definition of a kind of its own.
fn numbered(number: usize) -> Value {
    let (group, plural) = (format!("g{}.example.com", number % 5), format!("boats{number}"));
    let mut definition = definition();
    definition["metadata"]["name"] = json!(format!("{plural}.{group}"));
    definition["spec"]["group"] = json!(group);
    definition["spec"]["names"] = json!({"plural": plural, "kind": format!("Boat{number}")});
    definition
}

#[tokio::test]
async fn a_definition_is_answered_when_its_kinds_are_served_however_many_change_at_once() {
    let api = Api::new().await;
    let defined = (0..25).map(|number| {
        let api = &api;
        async move {
            let definition = numbered(number);
            api.define(&definition).await;
            let group = definition["spec"]["group"].as_str().unwrap();
            let list = format!("/apis/{group}/v1/namespaces/default/boats{number}");
            assert_eq!(api.get(&list).await.code, 200, "{list}");
            let found = api.get(&format!("/apis/{group}/v1")).await.expect(200).to_string();
            assert!(found.contains(&format!("\"boats{number}\"")), "{list}");
            // It waits for its finalizer: from the answer on nothing of it is created.
            api.delete(&format!("{DEFINITIONS}/boats{number}.{group}")).await.expect(200);
            assert_eq!(api.post(&list, &json!({})).await.code, 405, "{list} after the definition's end");
        }
    });
    futures::future::join_all(defined).await;
}

#[tokio::test]
async fn only_what_changed_of_the_definitions_is_made_anew() {
    let api = Api::new().await;
    for number in [0, 1] {
        api.define(&numbered(number)).await;
    }
    let of = |number: usize| {
        let registry = api.server.registry();
        let kind = registry.by_plural(&format!("g{number}.example.com"), "v1", &format!("boats{number}")).unwrap();
        let wherry_api::resource::SchemaSource::Custom(schema) = &kind.schema else { panic!("it is custom") };
        (Arc::as_ptr(kind), Arc::as_ptr(schema))
    };
    let (first, second) = (of(0), of(1));
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let path = format!("{DEFINITIONS}/boats1.g1.example.com");
    api.patch("merge-patch", &path, &label).await.expect(200);
    assert_eq!(of(0), first, "nothing of another definition");
    assert_ne!(of(1).0, second.0);
    assert_eq!(of(1).1, second.1, "a schema that is written as before is not read again");
    let other = json!([{"op": "add", "value": {"type": "string"},
        "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/more"}]);
    api.patch("json-patch", &path, &other).await.expect(200);
    assert_ne!(of(1).1, second.1);
    assert_eq!(of(0), first);
}
