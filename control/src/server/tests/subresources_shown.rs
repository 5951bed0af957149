//! What admission is shown of subresources: the documents that they exchange, and connections.

use super::webhooks::{Hook, patched};
use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Rules about resources of the core group and of `apps`.
fn rules(operations: &[&str], resources: &[&str]) -> Value {
    json!([{"apiGroups": ["", "apps"], "apiVersions": ["v1"], "operations": operations, "resources": resources}])
}

/// The kind, resource and subresource of a review's request.
fn subject(request: &Value) -> String {
    assert_eq!((&request["kind"], &request["resource"]), (&request["requestKind"], &request["requestResource"]));
    assert_eq!(request["subResource"], request["requestSubResource"]);
    let text = |path: &str| request.pointer(path).and_then(Value::as_str).unwrap_or_default();
    format!(
        "{} {} of {}/{} in {}/{}",
        text("/operation"),
        text("/kind/kind"),
        text("/resource/resource"),
        text("/subResource"),
        text("/kind/group"),
        text("/kind/version")
    )
}

impl Hook {
    /// The requests of the reviews so far.
    fn requests(&self) -> Vec<Value> {
        self.asked.lock().iter().map(|review| review["request"].clone()).collect()
    }
}

#[tokio::test]
async fn an_eviction_is_shown_and_not_the_delete_that_follows() {
    let hook = Hook::start(|path, request| match path {
        "mutate" => patched(json!([{"op": "add", "path": "/deleteOptions", "value": {"dryRun": ["All"]}}])),
        _ => json!({"allowed": request["object"]["deleteOptions"]["dryRun"] == json!(["All"])}),
    })
    .await;
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.expect(201);
    let all = json!({"rules": rules(&["CREATE", "DELETE"], &["pods", "pods/*"])});
    api.register("Mutating", "m", vec![hook.webhook("m", "mutate", all.clone())]).await;
    api.register("Validating", "v", vec![hook.webhook("v", "validate", all)]).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let path = format!("{PODS}/p/eviction");
    assert_eq!(api.post(&path, &eviction).await.expect(201)["status"], "Success");
    api.get(&format!("{PODS}/p")).await.expect(200);
    let requests = hook.requests();
    assert_eq!(requests.len(), 2, "the delete is not asked about: {requests:#?}");
    for request in &requests {
        assert_eq!(subject(request), "CREATE Eviction of pods/eviction in policy/v1");
        assert_eq!((&request["name"], &request["namespace"]), (&json!("p"), &json!("default")));
        let (object, options) = (&request["object"], &request["options"]["kind"]);
        assert_eq!((&object["apiVersion"], &object["metadata"]["namespace"]), (&json!("policy/v1"), &json!("default")));
        assert_eq!((&request["oldObject"], options), (&Value::Null, &json!("CreateOptions")));
    }
    for kind in ["mutating", "validating"] {
        let name = kind.get(..1).unwrap();
        let configuration = format!("/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/{name}");
        api.delete(&configuration).await.expect(200);
    }
    api.settle().await;
    api.post(&path, &eviction).await.expect(201);
    api.get(&format!("{PODS}/p")).await.expect(404);
}

#[tokio::test]
async fn who_forbids_evictions_forbids_no_deletes() {
    let hook = Hook::start(|_, _| json!({"allowed": false, "status": {"message": "it stays", "code": 403}})).await;
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.expect(201);
    let only = json!({"rules": rules(&["*"], &["pods/eviction"])});
    api.register("Validating", "v", vec![hook.webhook("v", "x", only)]).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = api.post(&format!("{PODS}/p/eviction"), &eviction).await;
    assert!(refused.code == 403 && refused.message().ends_with("it stays"), "{}", refused.message());
    api.delete(&format!("{PODS}/p")).await.expect(200);
}

#[tokio::test]
async fn a_binding_is_shown_and_not_the_change_of_its_pod() {
    let hook =
        Hook::start(|_, _| patched(json!([{"op": "add", "path": "/metadata/annotations", "value": {"seen": "yes"}}])))
            .await;
    let api = Api::new().await;
    let all = json!({"rules": rules(&["*"], &["pods/binding", "bindings", "pods"])});
    for name in ["a", "b"] {
        api.post(PODS, &pod(name)).await.expect(201);
    }
    api.register("Mutating", "m", vec![hook.webhook("m", "x", all)]).await;
    let binding = |name: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    api.post(&format!("{PODS}/a/binding"), &binding("a")).await.expect(201);
    let beside = "/api/v1/namespaces/default/bindings";
    assert_eq!(api.post(beside, &binding("b")).await.expect(201)["status"], "Success");
    assert_eq!(api.post(beside, &binding("b")).await.code, 409);
    assert_eq!(api.post(beside, &binding("none")).await.code, 404);
    for name in ["a", "b"] {
        let bound = api.get(&format!("{PODS}/{name}")).await.expect(200);
        assert_eq!(
            (&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["seen"]),
            (&json!("n"), &json!("yes"))
        );
    }
    let requests = hook.requests();
    assert_eq!(subject(&requests[0]), "CREATE Binding of pods/binding in /v1");
    assert_eq!(subject(&requests[1]), "CREATE Binding of bindings/ in /v1");
    let named = (&requests[1]["name"], &requests[1]["object"]["target"]["name"]);
    assert_eq!((requests.len(), named), (4, (&json!("b"), &json!("n"))));
}

#[tokio::test]
async fn a_request_for_a_token_is_shown_with_its_defaults() {
    let hook = Hook::start(|path, request| {
        let spec = &request["object"]["spec"];
        match path {
            "mutate" if spec["expirationSeconds"] == 3600 => {
                patched(json!([{"op": "replace", "path": "/spec/expirationSeconds", "value": 700}]))
            }
            _ => json!({"allowed": spec["expirationSeconds"] == 700 && spec["audiences"].is_array()}),
        }
    })
    .await;
    let api = Api::new().await;
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    api.post(path, &account).await.expect(201);
    let all = json!({"rules": rules(&["CREATE"], &["serviceaccounts/token"])});
    api.register("Mutating", "m", vec![hook.webhook("m", "mutate", all.clone())]).await;
    api.register("Validating", "v", vec![hook.webhook("v", "validate", all)]).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
    let answer = api.post(&format!("{path}/robot/token"), &request).await;
    assert_eq!((answer.code, answer.message().as_str()), (503, "this server issues no tokens"));
    for request in hook.requests() {
        assert_eq!(subject(&request), "CREATE TokenRequest of serviceaccounts/token in authentication.k8s.io/v1");
        assert_eq!((&request["name"], &request["object"]["metadata"]["name"]), (&json!("robot"), &json!("robot")));
    }
    assert_eq!(hook.requests().len(), 2);
}

#[tokio::test]
async fn a_scale_is_shown_as_what_it_is_and_may_be_changed() {
    let hook = Hook::start(|path, request| match (path, request["object"]["spec"]["replicas"].as_i64()) {
        ("mutate", Some(n)) if n > 5 => patched(json!([{"op": "replace", "path": "/spec/replicas", "value": 5}])),
        _ => json!({"allowed": request["object"]["spec"]["replicas"] != 4}),
    })
    .await;
    let api = Api::new().await;
    let all = "/apis/apps/v1/namespaces/default/deployments";
    let resource = api.server.registry().by_plural("apps", "v1", "deployments").cloned().unwrap();
    let made = api.post(all, &sample(&resource, "d")).await.expect(201);
    let about = json!({"rules": rules(&["UPDATE"], &["deployments/scale", "deployments"])});
    api.register("Mutating", "m", vec![hook.webhook("m", "mutate", about.clone())]).await;
    api.register("Validating", "v", vec![hook.webhook("v", "validate", about)]).await;
    let path = format!("{all}/d/scale");
    let mut scale = api.get(&path).await.expect(200);
    scale["spec"]["replicas"] = 9.into();
    assert_eq!(api.put(&path, &scale).await.expect(200)["spec"]["replicas"], 5);
    assert_eq!(api.patch("merge-patch", &path, &json!({"spec": {"replicas": 4}})).await.code, 400);
    assert_eq!(
        api.patch("merge-patch", &path, &json!({"spec": {"replicas": 7}})).await.expect(200)["spec"]["replicas"],
        5
    );
    let whole = api.get(&format!("{all}/d")).await.expect(200);
    assert_eq!((&whole["spec"]["replicas"], &whole["spec"]["template"]), (&json!(5), &made["spec"]["template"]));
    let requests = hook.requests();
    assert!(requests.len() >= 4, "{requests:#?}");
    for request in requests {
        assert_eq!(subject(&request), "UPDATE Scale of deployments/scale in autoscaling/v1");
        for object in ["object", "oldObject"] {
            assert_eq!(
                (&request[object]["kind"], &request[object]["metadata"]["name"]),
                (&json!("Scale"), &json!("d"))
            );
            assert!(request[object]["spec"].get("template").is_none() && request[object]["status"].is_object());
        }
    }
}

#[tokio::test]
async fn a_connection_is_shown_with_the_options_of_its_query() {
    let hook = Hook::start(|path, request| match path {
        "mutate" if request["object"]["container"].is_null() => {
            patched(json!([{"op": "add", "path": "/container", "value": "chosen"}]))
        }
        "mutate" => json!({"allowed": true}),
        _ => json!({"allowed": request["object"]["container"] != "closed", "status": {"message": "it is closed"}}),
    })
    .await;
    let api = Api::new().await;
    let connect = |operations: &[&str]| json!({"rules": rules(operations, &["*/*"])});
    api.register("Mutating", "m", vec![hook.webhook("m", "mutate", connect(&["CONNECT"]))]).await;
    api.register("Validating", "v", vec![hook.webhook("v", "validate", connect(&["*"]))]).await;
    // It selects by labels, and options have none.
    let labels = json!({"rules": rules(&["CONNECT"], &["pods/*"]),
        "objectSelector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}});
    api.register("Validating", "w", vec![hook.webhook("w", "unasked", labels)]).await;
    let denied = api.post(&format!("{PODS}/p/attach?container=closed&stdin=true"), &json!({})).await;
    assert_eq!(
        (denied.code, denied.message().as_str()),
        (400, "admission webhook \"v.example.com\" denied the request: it is closed")
    );
    hook.asked.lock().clear();
    let services = "/api/v1/namespaces/default/services";
    for (path, shown) in [
        (
            format!("{PODS}/p/exec?command=ls&command=-l&tty=1"),
            json!({"kind": "PodExecOptions", "command": ["ls", "-l"], "tty": true}),
        ),
        (format!("{PODS}/p/attach?stdin=true"), json!({"kind": "PodAttachOptions", "stdin": true})),
        (format!("{PODS}/p/portforward?ports=80"), json!({"kind": "PodPortForwardOptions", "ports": [80]})),
        (format!("{PODS}/p/proxy/some/where"), json!({"kind": "PodProxyOptions", "path": "/some/where"})),
        (format!("{services}/s/proxy/"), json!({"kind": "ServiceProxyOptions", "path": "/"})),
        ("/api/v1/nodes/n/proxy".to_owned(), json!({"kind": "NodeProxyOptions"})),
    ] {
        assert_eq!(api.get(&path).await.code, 501, "{path}");
        let requests = std::mem::take(&mut *hook.asked.lock());
        let [first, second] = requests.as_slice() else { panic!("{path}: {requests:#?}") };
        for review in [first, second] {
            let request = &review["request"];
            assert_eq!(
                (&request["operation"], &request["kind"]["kind"]),
                (&json!("CONNECT"), &shown["kind"]),
                "{path}"
            );
            assert_eq!((&request["oldObject"], &request["options"]), (&Value::Null, &Value::Null));
            assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": shown["kind"]}));
        }
        let mut wanted = shown.clone();
        wanted["apiVersion"] = "v1".into();
        assert_eq!(first["request"]["object"], wanted, "{path}");
        // What a webhook adds has to be a field of the kind.
        if matches!(wanted["kind"].as_str(), Some("PodExecOptions" | "PodAttachOptions")) {
            wanted["container"] = "chosen".into();
        }
        assert_eq!(second["request"]["object"], wanted, "{path}");
    }
}

#[tokio::test]
async fn a_policy_judges_connections_and_evictions() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.expect(201);
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": rules(&["CONNECT", "CREATE"], &["pods/exec", "pods/eviction"])},
        "validations": [
            {"expression": "request.operation != 'CONNECT' || (request.options == null && oldObject == null)"},
            {"expression": "request.operation != 'CONNECT' || object.command[0] == 'ls'", "message": "only ls"},
            {"expression": "request.kind.kind != 'Eviction' || has(object.deleteOptions)", "message": "say how"},
        ]}});
    api.bind("Validating", &policy, json!({})).await;
    assert_eq!(api.get(&format!("{PODS}/p/exec?command=ls")).await.code, 501);
    let refused = api.get(&format!("{PODS}/p/exec?command=sh")).await;
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-b' denied request: only ls"
    );
    let mut eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let path = format!("{PODS}/p/eviction");
    assert!(api.post(&path, &eviction).await.message().ends_with("say how"));
    eviction["deleteOptions"] = json!({"gracePeriodSeconds": 0});
    api.post(&path, &eviction).await.expect(201);
}

#[tokio::test]
async fn nothing_is_bound_or_evicted_in_a_namespace_that_ends() {
    let api = Api::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}});
    api.post("/api/v1/namespaces", &namespace).await.expect(201);
    let pods = "/api/v1/namespaces/old/pods";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    api.post("/api/v1/namespaces/old/serviceaccounts", &account).await.expect(201);
    api.post(pods, &pod("p")).await.expect(201);
    api.delete("/api/v1/namespaces/old").await.expect(200);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "target": {"name": "n"}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction"});
    for (path, document) in [("binding", binding), ("eviction", eviction)] {
        let refused = api.post(&format!("{pods}/p/{path}"), &document).await;
        let why =
            "pods \"p\" is forbidden: unable to create new content in namespace old because it is being terminated";
        assert_eq!((refused.code, refused.message().as_str()), (403, why), "{path}");
    }
    assert_eq!(api.get("/api/v1/namespaces/none/pods/p/exec").await.code, 404);
}

#[tokio::test]
async fn what_a_subresource_is_asked_with_is_decoded_like_any_object() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "target": {"name": "n", "strange": 1}});
    let path = format!("{PODS}/p/binding");
    let strict = api.post(&format!("{path}?fieldValidation=Strict"), &binding).await;
    assert!(
        strict.code == 400 && strict.message().contains("unknown field \"target.strange\""),
        "{}",
        strict.message()
    );
    let wrong = json!({"apiVersion": "v1", "kind": "Binding", "target": {"name": 1}});
    assert_eq!(api.post(&path, &wrong).await.code, 400);
    assert_eq!(api.post(&path, &binding).await.warnings(), ["299 - \"unknown field \\\"target.strange\\\"\""]);
}
