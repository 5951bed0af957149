//! Webhooks of admission, asked through the pipeline on a real TLS server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;

type Answering = dyn Fn(&str, &Value) -> Value + Send + Sync;

/// A webhook server on loopback. What it answers depends on the path and on the review's request.
pub(super) struct Hook {
    port: u16,
    bundle: String,
    pub(super) asked: Arc<Mutex<Vec<Value>>>,
    _task: AbortOnDropHandle<()>,
}

impl Hook {
    pub(super) async fn start(answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let (acceptor, asked) = (TlsAcceptor::from(Arc::new(config)), Arc::new(Mutex::new(Vec::new())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, log): (Arc<Answering>, _) = (Arc::new(answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer, log) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&log));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| respond(request, Arc::clone(&answer), Arc::clone(&log)));
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let bundle = STANDARD.encode(made.cert.pem());
        Self { port, bundle, asked, _task: AbortOnDropHandle::new(task) }
    }

    /// A webhook of that name and path, about creations and updates of ConfigMaps, with these fields besides.
    pub(super) fn webhook(&self, name: &str, path: &str, more: Value) -> Value {
        let mut webhook = json!({
            "name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://127.0.0.1:{}/{path}", self.port), "caBundle": self.bundle},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}],
        });
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        webhook
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Arc<Answering>,
    log: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<body::Body>, std::convert::Infallible> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let bytes = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let review: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    log.lock().push(review.clone());
    if path == "slow" {
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    let mut response = answer(&path, &review["request"]);
    if response.get("uid").is_none() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let said = json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
    Ok(Response::new(body::full(said.to_string())))
}

pub(super) const ROOT: &str = "/apis/admissionregistration.k8s.io/v1";
pub(super) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

impl Api {
    pub(super) async fn register(&self, kind: &str, name: &str, webhooks: Vec<Value>) {
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
            "metadata": {"name": name}, "webhooks": webhooks});
        let path = format!("{ROOT}/{}webhookconfigurations", kind.to_lowercase());
        self.post(&path, &object).await.expect(201);
        self.settle().await;
    }

    /// Waits until the cache has seen every write so far.
    pub(super) async fn settle(&self) {
        self.server.cache().reached(self.server.store().revision()).await;
    }
}

pub(super) fn patched(patch: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

#[tokio::test]
async fn a_validating_webhook_refuses_with_its_own_words() {
    let hook = Hook::start(|path, request| match path {
        "plain" if request["object"]["data"]["bad"].is_string() => {
            json!({"allowed": false, "status": {"message": "no bad things", "code": 403, "reason": "Forbidden"}})
        }
        "silent" if request["object"]["data"]["silent"].is_string() => json!({"allowed": false}),
        _ => json!({"allowed": true, "warnings": ["mind the gap"], "auditAnnotations": {"a": "b"}}),
    })
    .await;
    let api = Api::new().await;
    api.register(
        "Validating",
        "v",
        vec![hook.webhook("a", "plain", json!({})), hook.webhook("b", "silent", json!({}))],
    )
    .await;
    let bad = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"bad": "1"}});
    let refused = api.post(MAPS, &bad).await;
    assert_eq!(refused.message(), "admission webhook \"a.example.com\" denied the request: no bad things");
    assert_eq!((refused.code, refused.reason().as_str()), (403, "Forbidden"));
    let silent = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"silent": "1"}});
    let refused = api.post(MAPS, &silent).await;
    assert_eq!(refused.message(), "admission webhook \"b.example.com\" denied the request without explanation");
    let good = api.post(MAPS, &config_map("good")).await;
    assert_eq!(good.warnings(), ["299 - \"mind the gap\""]);
    good.expect(201);
    let asked = hook.asked.lock().last().cloned().unwrap();
    let request = &asked["request"];
    assert_eq!(
        (&request["operation"], &request["kind"]["kind"], &request["resource"]["resource"], &request["namespace"]),
        (&json!("CREATE"), &json!("ConfigMap"), &json!("configmaps"), &json!("default"))
    );
    assert_eq!(request["object"]["metadata"]["name"], "good");
    assert_eq!(request["userInfo"]["username"], UserInfo::admin().name);
    assert_eq!(request["options"]["kind"], "CreateOptions");
    // An update is asked about with what it replaces.
    let answer = api.patch("merge-patch", &format!("{MAPS}/good"), &json!({"data": {"bad": "1"}})).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        hook.asked.lock().iter().rev().find(|r| r["request"]["operation"] == "UPDATE").unwrap()["request"]["oldObject"]
            ["data"],
        json!({"a": "b"})
    );
}

#[tokio::test]
async fn a_webhook_is_told_with_which_options_a_write_was_asked() {
    let hook = Hook::start(|_, _| json!({"allowed": true})).await;
    let api = Api::new().await;
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps", "pods"],
        "operations": ["CREATE", "UPDATE", "DELETE"]}]);
    api.register("Validating", "v", vec![hook.webhook("a", "x", json!({"rules": rules}))]).await;
    let told = async |method: Method, path: String, media: &str, body: Value| {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = api.send(request, body).await;
        assert!(answer.code < 300, "{}", String::from_utf8_lossy(&answer.text));
        let mut options = hook.asked.lock().last().unwrap()["request"]["options"].clone();
        assert_eq!(options.as_object_mut().unwrap().remove("apiVersion"), Some(json!("meta.k8s.io/v1")));
        options
    };
    let (json, one) = ("application/json", format!("{MAPS}/a"));
    let asked = "fieldManager=me&fieldValidation=Strict";
    assert_eq!(
        told(Method::POST, format!("{MAPS}?dryRun=All&{asked}"), json, config_map("a")).await,
        json!({"kind": "CreateOptions", "dryRun": ["All"], "fieldManager": "me", "fieldValidation": "Strict"})
    );
    assert_eq!(told(Method::POST, MAPS.to_owned(), json, config_map("a")).await, json!({"kind": "CreateOptions"}));
    let updated = json!({"kind": "UpdateOptions", "fieldManager": "me", "fieldValidation": "Strict"});
    let mut changed = config_map("a");
    changed["data"]["a"] = json!("c");
    assert_eq!(told(Method::PUT, format!("{one}?{asked}"), json, changed).await, updated);
    // A patch is an update or a create, and so are its options.
    let patch = json!({"data": {"a": "d"}});
    assert_eq!(told(Method::PATCH, format!("{one}?{asked}"), "application/merge-patch+json", patch).await, updated);
    let apply = "application/apply-patch+yaml";
    let mut map = config_map("b");
    assert_eq!(
        told(Method::PATCH, format!("{MAPS}/b?fieldManager=me"), apply, map.clone()).await,
        json!({"kind": "CreateOptions", "fieldManager": "me"})
    );
    map["data"]["b"] = json!("c");
    let again = told(Method::PATCH, format!("{MAPS}/b?fieldManager=me&force=true"), apply, map).await;
    assert_eq!(again, json!({"kind": "UpdateOptions", "fieldManager": "me"}));
    // A deletion's are its body, or its query, with the grace that the object gets.
    let uid = api.get(&one).await.expect(200)["metadata"]["uid"].clone();
    let mut options = json!({"kind": "DeleteOptions", "gracePeriodSeconds": 3, "propagationPolicy": "Background",
        "preconditions": {"uid": uid}});
    options["apiVersion"] = "v1".into();
    let shown = told(Method::DELETE, one, json, options.clone()).await;
    options.as_object_mut().unwrap().remove("apiVersion");
    assert_eq!(shown, options);
    assert_eq!(
        told(Method::DELETE, format!("{MAPS}/b?orphanDependents=true&dryRun=All"), json, Value::Null).await,
        json!({"kind": "DeleteOptions", "orphanDependents": true, "dryRun": ["All"]})
    );
    let pods = "/api/v1/namespaces/default/pods";
    api.post(pods, &pod("p")).await.expect(201);
    let unscheduled = told(Method::DELETE, format!("{pods}/p?gracePeriodSeconds=30"), json, Value::Null).await;
    assert_eq!(unscheduled, json!({"kind": "DeleteOptions", "gracePeriodSeconds": 0}));
}

#[tokio::test]
async fn mutating_webhooks_work_in_order_and_see_each_other() {
    let hook = Hook::start(|path, request| {
        let data = &request["object"]["data"];
        match path {
            "first" if data["second"].is_string() => {
                patched(json!([{"op": "add", "path": "/data/again", "value": "yes"}]))
            }
            "first" => patched(json!([{"op": "add", "path": "/data/first", "value": "1"}])),
            _ => patched(json!([{"op": "add", "path": "/data/second", "value": data["first"]}])),
        }
    })
    .await;
    let api = Api::new().await;
    // Registered in the other order: names decide.
    api.register("Mutating", "zz", vec![hook.webhook("b", "second", json!({}))]).await;
    api.register("Mutating", "aa", vec![hook.webhook("a", "first", json!({"reinvocationPolicy": "IfNeeded"}))]).await;
    let made = api.post(MAPS, &config_map("x")).await.expect(201);
    assert_eq!(made["data"], json!({"a": "b", "first": "1", "second": "1", "again": "yes"}));
}

#[tokio::test]
async fn a_webhook_sees_a_defaulted_object_and_its_changes_are_defaulted_and_validated() {
    let hook = Hook::start(|_, request| {
        assert_eq!(request["object"]["spec"]["restartPolicy"], "Always", "the object was defaulted");
        let image = if request["object"]["metadata"]["name"] == "bad" { "" } else { "example.com/added:1" };
        patched(json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "added", "image": image}}]))
    })
    .await;
    let api = Api::new().await;
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]);
    api.register("Mutating", "m", vec![hook.webhook("a", "x", json!({"rules": rules}))]).await;
    let made = api.post("/api/v1/namespaces/default/pods", &pod("good")).await.expect(201);
    assert_eq!(made["spec"]["containers"][1]["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(api.post("/api/v1/namespaces/default/pods", &pod("bad")).await.code, 422);
}

#[tokio::test]
async fn a_webhook_does_not_say_that_a_new_object_was_deleted() {
    let hook = Hook::start(|_, _| {
        patched(json!([
            {"op": "add", "path": "/metadata/deletionTimestamp", "value": "2020-01-01T00:00:00Z"},
            {"op": "add", "path": "/metadata/deletionGracePeriodSeconds", "value": 0},
            {"op": "add", "path": "/metadata/generation", "value": 77},
            {"op": "add", "path": "/data", "value": {"seen": "yes"}},
        ]))
    })
    .await;
    let api = Api::new().await;
    api.register("Mutating", "m", vec![hook.webhook("a", "x", json!({}))]).await;
    let made = api.post("/api/v1/namespaces/default/configmaps", &config_map("a")).await.expect(201);
    assert_eq!(made["data"]["seen"], "yes");
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        assert_eq!(made["metadata"][field], Value::Null, "{field}");
    }
}

#[tokio::test]
async fn a_webhook_changes_what_is_written_through_a_path_of_its_own() {
    let hook = Hook::start(|_, request| {
        assert_eq!(request["subResource"], "ephemeralcontainers");
        patched(json!([
            {"op": "replace", "path": "/spec/ephemeralContainers/0/image", "value": "example.com/checked:1"},
            {"op": "replace", "path": "/spec/containers/0/image", "value": "example.com/other:1"},
        ]))
    })
    .await;
    let api = Api::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let image = api.post(pods, &pod("p")).await.expect(201)["spec"]["containers"][0]["image"].clone();
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/ephemeralcontainers"],
        "operations": ["UPDATE"]}]);
    api.register("Mutating", "m", vec![hook.webhook("a", "x", json!({"rules": rules}))]).await;
    let look = json!({"spec": {"ephemeralContainers": [{"name": "look", "image": "example.com/any:1"}]}});
    let path = format!("{pods}/p/ephemeralcontainers");
    let looked = api.patch("strategic-merge-patch", &path, &look).await.expect(200);
    assert_eq!(looked["spec"]["ephemeralContainers"][0]["image"], "example.com/checked:1");
    assert_eq!(looked["spec"]["containers"][0]["image"], image, "only what the path is for");
}

#[tokio::test]
async fn only_what_the_configuration_is_about_is_asked() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let hook = Hook::start(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        json!({"allowed": true})
    })
    .await;
    let api = Api::new().await;
    let expect = async |what: &str, more: Value, asked: usize| {
        let name = what.replace(' ', "-");
        api.register("Validating", &name, vec![hook.webhook("w", "x", more)]).await;
        let before = count.load(Ordering::SeqCst);
        let mut map = config_map(&name);
        map["metadata"]["labels"] = json!({"app": "x"});
        api.post(MAPS, &map).await.expect(201);
        assert_eq!(count.load(Ordering::SeqCst) - before, asked, "{what}");
        api.delete(&format!("{ROOT}/validatingwebhookconfigurations/{name}")).await.expect(200);
        api.settle().await;
    };
    let rule = |more: Value| {
        let mut rule = json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"rules": [rule]})
    };
    expect("a rule of stars", rule(json!({})), 1).await;
    expect("another group", rule(json!({"apiGroups": ["apps"]})), 0).await;
    expect("another operation", rule(json!({"operations": ["DELETE"]})), 0).await;
    expect("a subresource", rule(json!({"resources": ["configmaps/status"]})), 0).await;
    expect("everything and below", rule(json!({"resources": ["*/*"]})), 1).await;
    expect("the cluster scope", rule(json!({"scope": "Cluster"})), 0).await;
    expect("the namespaced scope", rule(json!({"scope": "Namespaced"})), 1).await;
    expect("the labels of the object", json!({"objectSelector": {"matchLabels": {"app": "x"}}}), 1).await;
    expect("other labels", json!({"objectSelector": {"matchLabels": {"app": "y"}}}), 0).await;
    expect(
        "the namespace by its name",
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}),
        1,
    )
    .await;
    expect("another namespace", json!({"namespaceSelector": {"matchLabels": {"a": "b"}}}), 0).await;
    let condition = |text: &str| json!({"matchConditions": [{"name": "c", "expression": text}]});
    expect("a condition that holds", condition("request.userInfo.username != '' && object.data.a == 'b'"), 1).await;
    expect("a condition that does not", condition("object.metadata.name.startsWith('z')"), 0).await;
}

#[tokio::test]
async fn a_webhook_is_shown_the_version_that_its_rule_names() {
    let hook = Hook::start(|_, request| {
        let kinds = (&request["kind"]["version"], &request["requestKind"]["version"]);
        assert_eq!(kinds, (&json!("v2"), &json!("v1")));
        assert_eq!(request["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
        let path = "/spec/metrics/0/resource/target/averageUtilization";
        patched(json!([{"op": "replace", "path": path, "value": 80}]))
    })
    .await;
    let api = Api::new().await;
    let rule = json!({"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"],
        "operations": ["CREATE"]});
    api.register("Mutating", "m", vec![hook.webhook("a", "x", json!({"rules": [rule]}))]).await;
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let scaler = |name: &str| {
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
        "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 70,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}})
    };
    let made = api.post(path, &scaler("x")).await.expect(201);
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 80, "{made:#}");
    let exact = json!({"rules": [rule], "matchPolicy": "Exact"});
    api.register("Validating", "v", vec![hook.webhook("b", "y", exact)]).await;
    api.delete(&format!("{ROOT}/mutatingwebhookconfigurations/m")).await.expect(200);
    api.settle().await;
    assert_eq!(api.post(path, &scaler("y")).await.expect(201)["spec"]["targetCPUUtilizationPercentage"], 70);
    assert_eq!(hook.asked.lock().len(), 1);
}

#[tokio::test]
async fn deletions_are_asked_about_one_by_one() {
    let hook = Hook::start(|_, request| json!({"allowed": request["oldObject"]["metadata"]["name"] != "kept"})).await;
    let api = Api::new().await;
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["DELETE"]}]);
    api.register("Validating", "d", vec![hook.webhook("d", "x", json!({"rules": rules}))]).await;
    for name in ["kept", "other"] {
        api.post(MAPS, &config_map(name)).await.expect(201);
    }
    assert_eq!(api.delete(&format!("{MAPS}/kept")).await.code, 400);
    api.delete(&format!("{MAPS}/other")).await.expect(200);
    assert_eq!(api.delete(&format!("{MAPS}?fieldSelector=metadata.name%3Dkept")).await.code, 400);
    api.get(&format!("{MAPS}/kept")).await.expect(200);
}

#[tokio::test]
async fn a_mutating_webhook_is_shown_a_status_and_changes_nothing_else() {
    let hook = Hook::start(|_, _| {
        patched(json!([{"op": "add", "path": "/status/replicas", "value": 7},
            {"op": "add", "path": "/spec/paused", "value": true},
            {"op": "add", "path": "/metadata/labels", "value": {"own": "label"}}]))
    })
    .await;
    let api = Api::new().await;
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/status"], "operations": ["UPDATE"]});
    api.register("Mutating", "m", vec![hook.webhook("a", "x", json!({"rules": [rule]}))]).await;
    let all = "/apis/apps/v1/namespaces/default/deployments";
    let resource = api.server.registry().by_plural("apps", "v1", "deployments").cloned().unwrap();
    let made = api.post(all, &sample(&resource, "d")).await.expect(201);
    assert!(hook.asked.lock().is_empty(), "the object itself is none of its affair");
    let mut new = made.clone();
    new["status"] = json!({"replicas": 1});
    let put = api.put(&format!("{all}/d/status"), &new).await.expect(200);
    assert_eq!((&put["status"]["replicas"], &put["spec"]), (&json!(7), &made["spec"]));
    assert_eq!(put["metadata"].get("labels"), made["metadata"].get("labels"));
    let asked = hook.asked.lock();
    assert_eq!(asked.len(), 1);
    let request = &asked[0]["request"];
    assert_eq!((&request["subResource"], &request["object"]["status"]["replicas"]), (&json!("status"), &json!(1)));
}

#[tokio::test]
async fn what_a_webhook_adds_is_seen_by_the_plugins_before_it() {
    let hook = Hook::start(|_, request| {
        let there = request["object"]["spec"]["containers"].as_array().map_or(0, Vec::len);
        if there > 1 {
            return json!({"allowed": true});
        }
        patched(json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "added", "image": "example.com/a:1"}}]))
    })
    .await;
    let api = Api::new().await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "defaultRequest": {"cpu": "100m"}}]}});
    api.post("/api/v1/namespaces/default/limitranges", &range).await.expect(201);
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]);
    api.register("Mutating", "m", vec![hook.webhook("a", "x", json!({"rules": rules}))]).await;
    let made = api.post("/api/v1/namespaces/default/pods", &pod("p")).await.expect(201);
    let added = &made["spec"]["containers"][1];
    assert_eq!(added["resources"]["requests"], json!({"cpu": "100m"}));
    assert_eq!(added["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(hook.asked.lock().len(), 1, "it is not asked again, since it does not want to be");
}

#[tokio::test]
async fn all_webhooks_of_a_request_have_one_time_together() {
    let hook = Hook::start(|_, _| json!({"allowed": true})).await;
    let api = Api::new().await;
    tokio::time::pause();
    for policy in ["Ignore", "Fail"] {
        // The first one's failure is another matter.
        let webhooks = ["a", "b", "c"].map(|name| {
            let policy = if name == "a" { "Ignore" } else { policy };
            hook.webhook(name, "slow", json!({"failurePolicy": policy, "timeoutSeconds": 30}))
        });
        api.register("Mutating", &policy.to_lowercase(), webhooks.into()).await;
        let late = api.post(MAPS, &config_map("late")).await;
        assert_eq!((late.code, late.reason().as_str()), (504, "Timeout"), "{policy}: {}", late.message());
    }
}
