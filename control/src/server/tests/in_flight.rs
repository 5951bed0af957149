//! What happens while a write is on its way: its kind's definition changes, others write to its namespace.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::webhooks::Hook;
use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/sea.example.com/v1/namespaces/default/boats";

/// A webhook that waits until it is let go on.
struct Held {
    hook: Hook,
    asked: Receiver<()>,
    go: Sender<()>,
}

impl Held {
    async fn start(answer: fn(&Value) -> Value) -> Self {
        let ((tell, asked), (go, wait)) = (channel(), channel::<()>());
        let (tell, wait) = (Mutex::new(tell), Mutex::new(wait));
        let hook = Hook::start(move |_, request| {
            let _ = tell.lock().unwrap().send(());
            let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(20));
            answer(request)
        })
        .await;
        Self { hook, asked, go }
    }

    /// Returns when a request waits.
    fn wait(&self) {
        self.asked.recv_timeout(Duration::from_secs(20)).expect("the webhook is asked");
    }

    fn go_on(&self) {
        self.go.send(()).unwrap();
    }
}

fn definition(conversion: Value) -> Value {
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example.com"},
        "spec": {"group": "sea.example.com", "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"},
            "conversion": conversion, "versions": [version("v1", false), version("v2", true)]}})
}

impl Api {
    async fn boats(&self, conversion: Value) {
        self.define(&definition(conversion)).await;
    }

    /// Starts creating a boat.
    fn creating(&self, name: &str) -> tokio::task::JoinHandle<(u16, String)> {
        let boat = json!({"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": {"name": name}});
        let server = self.server.clone();
        tokio::spawn(async move {
            let answer = Api { server }.post(BOATS, &boat).await;
            (answer.code, answer.message())
        })
    }
}

/// Registers the webhook for boats.
async fn ask_about_boats(api: &Api, held: &Held) {
    let rules = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["boats"], "operations": ["CREATE"]}]);
    let more = json!({"rules": rules, "timeoutSeconds": 30});
    api.register("Validating", "v", vec![held.hook.webhook("v", "x", more)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_create_in_flight_does_not_outlive_its_definition() {
    let held = Held::start(|_| json!({"allowed": true})).await;
    let api = Api::new().await;
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    api.boats(json!({"strategy": "None"})).await;
    ask_about_boats(&api, &held).await;

    let creating = api.creating("changed");
    held.wait();
    api.patch("merge-patch", &path, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    held.go_on();
    assert_eq!(creating.await.unwrap().0, 201, "a change of the definition is no obstacle");

    let creating = api.creating("ending");
    held.wait();
    api.delete(&path).await.expect(200);
    held.go_on();
    let (code, message) = creating.await.unwrap();
    assert_eq!((code, &*message), (405, "create not allowed while custom resource definition is terminating"));
    assert_eq!(api.get(BOATS).await.expect(200)["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_create_in_flight_is_not_stored_by_another_definition() {
    let held = Held::start(|_| json!({"allowed": true})).await;
    let api = Api::new().await;
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    api.boats(json!({"strategy": "None"})).await;
    ask_about_boats(&api, &held).await;
    for again in [false, true] {
        let creating = api.creating("lost");
        held.wait();
        api.delete(&path).await.expect(200);
        api.patch("merge-patch", &path, &json!({"metadata": {"finalizers": []}})).await.expect(200);
        api.get(&path).await.expect(404);
        if again {
            api.boats(json!({"strategy": "None"})).await;
        }
        held.go_on();
        assert_eq!(creating.await.unwrap().0, 404);
        if !again {
            api.boats(json!({"strategy": "None"})).await;
        }
        assert_eq!(api.get(BOATS).await.expect(200)["items"], json!([]));
    }
}

/// What a conversion webhook answers.
fn converted(request: &Value) -> Value {
    let mut objects = request["objects"].clone();
    for object in objects.as_array_mut().unwrap() {
        object["apiVersion"] = request["desiredAPIVersion"].clone();
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_a_quota_while_another_object_is_converted() {
    let held = Held::start(converted).await;
    let api = Api::new().await;
    let config = held.hook.webhook("c", "x", json!({}))["clientConfig"].clone();
    let webhook = json!({"conversionReviewVersions": ["v1"], "clientConfig": config});
    api.boats(json!({"strategy": "Webhook", "webhook": webhook})).await;
    let hard = json!({"configmaps": "5", "count/boats.sea.example.com": "5"});
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    api.post(quotas, &quota).await.expect(201);
    let status = json!({"status": {"hard": hard, "used": {"configmaps": "0", "count/boats.sea.example.com": "0"}}});
    api.patch("merge-patch", &format!("{quotas}/q/status"), &status).await.expect(200);

    let creating = api.creating("slow");
    held.wait();
    let map = config_map("quick");
    let made = api.post("/api/v1/namespaces/default/configmaps", &map);
    tokio::time::timeout(Duration::from_secs(10), made).await.expect("it does not wait").expect(201);
    assert!(!creating.is_finished());
    // Once to be stored, once to be shown.
    held.go_on();
    held.go_on();
    assert_eq!(creating.await.unwrap().0, 201);
    let used = api.get(&format!("{quotas}/q")).await.expect(200)["status"]["used"].clone();
    assert_eq!(used, json!({"configmaps": "1", "count/boats.sea.example.com": "1"}));
}

const RANGES: &str = "/api/v1/namespaces/default/limitranges";

fn range(labels: Value) -> Value {
    let metadata = json!({"name": "one", "labels": labels});
    json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": []}})
}

impl Api {
    /// Registers the webhook for one operation on LimitRanges that are labelled `held`.
    async fn hold_ranges(&self, held: &Held, operation: &str) {
        let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["limitranges"],
            "operations": [operation]}]);
        let selector = json!({"matchLabels": {"held": "yes"}});
        let more = json!({"rules": rules, "objectSelector": selector, "timeoutSeconds": 30});
        self.register("Validating", "v", vec![held.hook.webhook("v", "x", more)]).await;
    }

    /// Starts a write that makes what is missing: a replacement, or an apply.
    fn writing_range(&self, apply: bool) -> tokio::task::JoinHandle<Answer> {
        let (method, query, media) = if apply {
            (Method::PATCH, "?fieldManager=me", "application/apply-patch+yaml")
        } else {
            (Method::PUT, "", "application/json")
        };
        let request = Request::builder().method(method).uri(format!("{RANGES}/one{query}")).header(CONTENT_TYPE, media);
        let server = self.server.clone();
        let object = range(json!({"held": "yes"})).to_string();
        tokio::spawn(async move { Api { server }.send(request, object).await })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_goes_while_it_is_replaced_or_applied_is_created() {
    let held = Held::start(|_| json!({"allowed": true})).await;
    let api = Api::new().await;
    api.hold_ranges(&held, "UPDATE").await;
    for apply in [false, true] {
        api.post(RANGES, &range(json!({}))).await.expect(201);
        let writing = api.writing_range(apply);
        held.wait();
        api.delete(&format!("{RANGES}/one")).await.expect(200);
        held.go_on();
        let made = writing.await.unwrap().expect(201);
        assert_eq!(api.get(&format!("{RANGES}/one")).await.expect(200), made);
        api.delete(&format!("{RANGES}/one")).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_comes_while_it_is_created_by_a_replacement_or_an_apply_is_changed() {
    let held = Held::start(|_| json!({"allowed": true})).await;
    let api = Api::new().await;
    api.hold_ranges(&held, "CREATE").await;
    for apply in [false, true] {
        let writing = api.writing_range(apply);
        held.wait();
        let made = api.post(RANGES, &range(json!({}))).await.expect(201);
        held.go_on();
        let changed = writing.await.unwrap().expect(200);
        assert_eq!(changed["metadata"]["uid"], made["metadata"]["uid"]);
        assert_eq!(changed["metadata"]["labels"]["held"], "yes");
        api.delete(&format!("{RANGES}/one")).await.expect(200);
    }
}
