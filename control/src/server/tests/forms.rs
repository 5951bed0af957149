//! Bodies and answers in other forms than JSON, and what clients are warned of.

use std::io::Read;
use std::time::Duration;

use futures::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use wherry_api::cbor;
use wherry_api::decode::{self, Format};

use super::{Answer, Api, config_map};
use crate::auth::UserInfo;
use crate::server::body;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CBOR: &str = "application/cbor";
const YAML: &str = "application/yaml";

impl Answer {
    fn content_type(&self) -> &str {
        self.headers.get(CONTENT_TYPE).unwrap().to_str().unwrap()
    }

    #[track_caller]
    fn cbor(&self) -> Value {
        assert_eq!(self.content_type(), CBOR);
        assert!(self.text.starts_with(&cbor::SELF_DESCRIBED));
        decode::tree(&self.text, Format::Cbor).unwrap().object
    }

    #[track_caller]
    fn yaml(&self) -> Value {
        assert_eq!(self.content_type(), YAML);
        serde_yaml::from_slice(&self.text).unwrap()
    }
}

fn tagged(value: &Value) -> Vec<u8> {
    [&cbor::SELF_DESCRIBED[..], &cbor::encode(value)].concat()
}

async fn send(api: &Api, method: Method, path: &str, media: &str, bytes: impl Into<bytes::Bytes>) -> Answer {
    api.send(Request::builder().method(method).uri(path).header(CONTENT_TYPE, media).header(ACCEPT, media), bytes).await
}

#[tokio::test]
async fn every_write_verb_reads_yaml_and_answers_in_it() {
    let api = Api::new().await;
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 0\n  selector: {matchLabels: {a: b}}\n  \
        template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers: [{name: c, image: 'i:1'}]\n";
    let made = send(&api, Method::POST, DEPLOYMENTS, YAML, text).await;
    assert_eq!((made.code, &made.yaml()["metadata"]["name"]), (201, &json!("d")));
    let path = format!("{DEPLOYMENTS}/d");
    let more = text.replace("replicas: 0", "replicas: 1");
    assert_eq!(send(&api, Method::PUT, &path, YAML, more).await.yaml()["spec"]["replicas"], 1);
    let scale =
        "kind: Scale\napiVersion: autoscaling/v1\nmetadata: {name: d, namespace: default}\nspec: {replicas: 3}\n";
    let scaled = send(&api, Method::PUT, &format!("{path}/scale"), YAML, scale).await;
    assert_eq!(scaled.yaml()["spec"]["replicas"], 3);
    let status = format!("{text}status:\n  observedGeneration: 7\n");
    let told = send(&api, Method::PUT, &format!("{path}/status"), YAML, status).await;
    assert_eq!(told.yaml()["status"]["observedGeneration"], 7);
    let options = "apiVersion: v1\nkind: DeleteOptions\ndryRun: [All]\n";
    assert_eq!(send(&api, Method::DELETE, &path, YAML, options).await.yaml()["status"], "Success");
    assert_eq!(send(&api, Method::DELETE, DEPLOYMENTS, YAML, options).await.yaml()["kind"], "DeploymentList");
    let list = api.get_as(DEPLOYMENTS, YAML).await.yaml();
    assert_eq!(list, api.get(DEPLOYMENTS).await.expect(200));
    let missing = api.get_as(&format!("{DEPLOYMENTS}/none"), YAML).await;
    assert_eq!((missing.code, &missing.yaml()["reason"]), (404, &json!("NotFound")));
    let review = "apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectAccessReview\nspec:\n  nonResourceAttributes: \
        {verb: get, path: /version}\n";
    let reviewed =
        send(&api, Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", YAML, review).await;
    assert_eq!(reviewed.yaml()["status"]["allowed"], true);
}

#[tokio::test]
async fn cbor_is_read_written_and_applied() {
    let api = Api::new().await;
    let made = send(&api, Method::POST, CONFIG_MAPS, CBOR, tagged(&config_map("c"))).await;
    assert_eq!((made.code, &made.cbor()["data"]["a"]), (201, &json!("b")));
    let path = format!("{CONFIG_MAPS}/c");
    let json = api.get(&path).await.expect(200);
    assert_eq!(api.get_as(&path, CBOR).await.cbor(), json);
    let list = api.get_as(CONFIG_MAPS, CBOR).await;
    assert_eq!(list.cbor(), api.get(CONFIG_MAPS).await.expect(200));
    assert_eq!(list.headers.get("content-length"), None);
    let mut changed = json.clone();
    changed["data"]["a"] = "c".into();
    // Without the tag it is as good.
    let put = send(&api, Method::PUT, &path, CBOR, cbor::encode(&changed)).await;
    assert_eq!((put.code, &put.cbor()["data"]["a"]), (200, &json!("c")));
    let table = api.get_as(&path, "application/cbor;as=Table;g=meta.k8s.io;v=v1").await.cbor();
    assert_eq!((table["kind"].as_str(), table["rows"].as_array().unwrap().len()), (Some("Table"), 1));
    let partial = api.get_as(&path, "application/cbor;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await.cbor();
    assert_eq!((partial["kind"].as_str(), partial.get("data")), (Some("PartialObjectMetadata"), None));

    let applied =
        tagged(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"x": "y"}}));
    let request = Request::patch(format!("{CONFIG_MAPS}/d?fieldManager=m"))
        .header(CONTENT_TYPE, "application/apply-patch+cbor")
        .header(ACCEPT, CBOR);
    let answer = api.send(request, applied).await;
    assert_eq!((answer.code, &answer.cbor()["data"]["x"]), (201, &json!("y")));
    let bad = send(&api, Method::POST, CONFIG_MAPS, CBOR, &b"\xd9\xd9\xf7\xa1\x01\x02"[..]).await;
    assert_eq!((bad.code, &bad.cbor()["reason"]), (400, &json!("BadRequest")));
    let options = tagged(&json!({"kind": "DeleteOptions", "apiVersion": "v1"}));
    assert_eq!(send(&api, Method::DELETE, &path, CBOR, options).await.cbor()["status"], "Success");
}

#[tokio::test]
async fn a_watch_in_cbor_is_a_sequence_of_events() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    for accept in ["application/cbor-seq", CBOR] {
        let request =
            Request::get(format!("{CONFIG_MAPS}?watch=1")).header(ACCEPT, accept).body(body::empty()).unwrap();
        let answer = api.server.handle(request, UserInfo::admin());
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await.expect("the answer begins at once");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/cbor-seq");
        let mut events = answer.into_body().into_data_stream();
        let first =
            tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("an event").unwrap().unwrap();
        assert!(first.starts_with(&cbor::SELF_DESCRIBED));
        let event = decode::tree(&first, Format::Cbor).unwrap().object;
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    }
    let refused = api.get_as(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), YAML).await;
    assert_eq!((refused.code, refused.reason()), (406, "NotAcceptable".to_owned()));
}

#[tokio::test]
async fn what_is_neither_read_nor_written_is_415_or_406() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    for (method, path) in
        [(Method::POST, CONFIG_MAPS), (Method::PUT, &path), (Method::DELETE, &path), (Method::PATCH, &path)]
    {
        let request = Request::builder().method(method.clone()).uri(path).header(CONTENT_TYPE, "text/plain");
        let refused = api.send(request, "{}").await;
        assert_eq!((refused.code, refused.reason()), (415, "UnsupportedMediaType".to_owned()), "{method}");
        assert!(refused.message().contains("accepted media types include: application/json"), "{}", refused.message());
    }
    let refused = api.get_as(&path, "application/vnd.kubernetes.protobuf").await;
    assert_eq!(refused.code, 406);
    assert!(
        refused.message().ends_with("application/json, application/yaml, application/cbor"),
        "{}",
        refused.message()
    );
    // What else is taken is answered.
    api.get_as(&path, "application/vnd.kubernetes.protobuf,application/json").await.expect(200);
}

#[tokio::test]
async fn large_answers_are_compressed_in_every_form() {
    let api = Api::new().await;
    let mut large = config_map("large");
    large["data"] = json!({"text": "x".repeat(300_000)});
    api.post(CONFIG_MAPS, &large).await.expect(201);
    for accept in [CBOR, YAML, "application/json;as=Table;g=meta.k8s.io;v=v1", "application/json"] {
        let uri = format!("{CONFIG_MAPS}?includeObject=Object");
        let request = || Request::get(&uri).header(ACCEPT, accept);
        let plain = api.send(request(), "").await;
        let packed = api.send(request().header("accept-encoding", "gzip"), "").await;
        assert_eq!(packed.headers.get("content-encoding").unwrap(), "gzip", "{accept}");
        assert_eq!(packed.headers.get("vary").unwrap(), "Accept-Encoding", "{accept}");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.text.as_slice()).read_to_end(&mut unpacked).unwrap();
        // A table's ages may differ by a second.
        assert!(unpacked.len() == plain.text.len() && packed.text.len() < plain.text.len() / 10, "{accept}");
    }
    let small = api.send(Request::get("/api/v1/namespaces/default").header("accept-encoding", "gzip"), "").await;
    assert_eq!(small.headers.get("content-encoding"), None);
}

#[tokio::test]
async fn clients_of_what_is_deprecated_are_warned() {
    let api = Api::new().await;
    let warning = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    let endpoints = "/api/v1/namespaces/default/endpoints";
    assert_eq!(api.get(endpoints).await.warnings(), [warning]);
    assert_eq!(api.get(&format!("{endpoints}/none")).await.warnings(), [warning]);
    let made = api.post(endpoints, &json!({"metadata": {"name": "e"}})).await;
    assert_eq!((made.code, made.warnings()), (201, vec![warning]));
    assert!(api.get(CONFIG_MAPS).await.warnings().is_empty());
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.7"]}});
    let made = api.post("/api/v1/namespaces/default/services", &service).await;
    let warning = "299 - \"spec.externalIPs is deprecated and may no longer be implemented in some clusters\"";
    assert_eq!((made.code, made.warnings()), (201, vec![warning]));
}

#[tokio::test]
async fn who_makes_an_object_is_warned_of_its_name_once() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let web = json!({"metadata": {"name": "web.v1"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}}});
    let made = api.post(deployments, &web).await;
    let warning = "299 - \"metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; \
                   a DNS label is recommended: [must not contain dots]\"";
    assert_eq!((made.code, made.warnings()), (201, vec![warning]));
    let path = format!("{deployments}/web.v1");
    let patched = api.patch("merge-patch", &path, &json!({"metadata": {"labels": {"c": "d"}}})).await;
    assert_eq!((patched.code, patched.warnings()), (200, vec![]));
}

#[tokio::test]
async fn fields_that_kubernetes_selects_by_are_selected_by() {
    let api = Api::new().await;
    let pod = super::pod("p");
    api.post("/api/v1/namespaces/default/pods", &pod).await.expect(201);
    let event = |name: &str, component: &str| {
        json!({"metadata": {"name": name}, "involvedObject": {"namespace": "default"}, "reason": "R",
            "source": {"component": component}})
    };
    for (name, component) in [("a", "kubelet"), ("b", "scheduler")] {
        api.post("/api/v1/namespaces/default/events", &event(name, component)).await.expect(201);
    }
    for (path, selector, wanted) in [
        ("events", "source=kubelet", 1),
        ("events", "reason=R", 2),
        ("pods", "spec.host=", 1),
        ("pods", "spec.hostNetwork=false", 1),
        ("pods", "status.phase!=Pending", 0),
    ] {
        let selector: String = url::form_urlencoded::byte_serialize(selector.as_bytes()).collect();
        let list = api.get(&format!("/api/v1/namespaces/default/{path}?fieldSelector={selector}")).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), wanted, "{path} {selector}");
    }
    let jobs = "/apis/batch/v1/namespaces/default/jobs?fieldSelector=status.successful%3D0";
    api.get(jobs).await.expect(200);
}
