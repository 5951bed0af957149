//! What the audit log says of requests.

use std::path::PathBuf;

use async_trait::async_trait;

use super::*;
use crate::audit::{Mode, Origin, fixture};
use crate::auth::rbac::Rbac;
use crate::auth::{Attributes, Decision};
use crate::server::listen::a_connection;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that records, and where.
struct Audited {
    api: Api,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Audited {
    async fn new(policy: &str) -> Self {
        Self::with(policy, |_, _| Arc::new(AllowAll)).await
    }

    async fn with(policy: &str, authorizer: impl FnOnce(&Cache, &Registry) -> Arc<dyn Authorizer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = fixture::audit(policy, &path, Mode::Blocking);
        let api = Api::configured(authorizer, |config| {
            audit.register_in(&mut config.metrics);
            config.audit = Some(audit);
        })
        .await;
        Self { api, path, _dir: dir }
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for the event of a stage.
    async fn event_until(&self, stage: &str) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(event) = self.events().into_iter().find(|event| event["stage"] == stage) {
                return event;
            }
            assert!(tokio::time::Instant::now() < deadline, "no event {stage}: {:?}", self.events());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["stage"].as_str()).collect()
}

#[tokio::test]
async fn a_create_is_recorded_with_what_was_sent_and_what_was_answered() {
    let audited = Audited::new("rules: [{level: RequestResponse, omitManagedFields: true, verbs: [create]}]").await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}, "data": {"a": "b"}});
    let request = Request::post(format!("{MAPS}?fieldManager=me"))
        .header(CONTENT_TYPE, "application/json")
        .header("user-agent", "test/1")
        .header("audit-id", "my-own-id");
    let answer = audited.api.send(request, body.to_string()).await;
    assert_eq!(answer.headers["audit-id"], "my-own-id");
    let made = answer.expect(201);
    // What is not recorded leaves no trace.
    audited.api.get(MAPS).await.expect(200);
    let events = audited.events();
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(events[0]["responseStatus"], Value::Null);
    let event = &events[1];
    assert_eq!(event["auditID"], "my-own-id");
    assert_eq!(event["requestURI"], format!("{MAPS}?fieldManager=me"));
    assert_eq!((&event["level"], &event["verb"]), (&json!("RequestResponse"), &json!("create")));
    assert_eq!(event["user"], UserInfo::admin().to_json());
    assert_eq!((&event["sourceIPs"], &event["userAgent"]), (&json!(["127.0.0.1"]), &json!("test/1")));
    let reference = json!({"resource": "configmaps", "namespace": "default", "name": made["metadata"]["name"],
        "apiVersion": "v1"});
    assert_eq!(event["objectRef"], reference);
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(event["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(event["responseObject"]["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(event["responseObject"]["metadata"]["managedFields"], Value::Null);
    let annotations = json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""});
    assert_eq!(event["annotations"], annotations);
    let scraped = audited.api.get("/metrics").await;
    let scraped = String::from_utf8(scraped.text).unwrap();
    assert!(scraped.contains("apiserver_audit_event_total 2"), "{scraped}");
    assert!(scraped.contains("apiserver_audit_level_total{level=\"None\"}"), "{scraped}");
}

#[tokio::test]
async fn a_read_for_whose_answer_there_is_no_room_is_recorded_as_refused() {
    let audited = Audited::new("omitStages: [RequestReceived]\nrules: [{level: Metadata, verbs: [get, list]}]").await;
    audited.api.put_large_map().await;
    let (connection, _) = a_connection();
    let eve = (&connection, "eve");
    let unread = audited.api.leave_unread(eve).await;
    let pretty = format!("{MAPS}?pretty=true");
    for (path, accept) in [(MAPS, "application/yaml"), (&pretty, "application/json"), (MAPS, "application/cbor")] {
        assert_eq!(audited.api.get_over(eve, path, accept).await.status(), 429, "{accept}");
    }
    let codes: Vec<_> =
        audited.events().iter().map(|event| event["responseStatus"]["code"].as_u64().unwrap()).collect();
    let (told, refused) = codes.split_at(unread.len());
    assert_eq!((refused, told.iter().all(|code| *code == 200)), (&[429; 4][..], true), "{codes:?}");
}

#[tokio::test]
async fn whose_client_leaves_before_it_is_answered_is_recorded_and_counted() {
    let audited = Audited::new("omitStages: [RequestReceived]\nrules: [{level: Request, verbs: [create]}]").await;
    let request = Request::post(MAPS).header(CONTENT_TYPE, "application/json");
    let request = request.body(body::full(config_map("left").to_string())).unwrap();
    let mut asked = Box::pin(audited.api.server.handle(request, UserInfo::admin()));
    assert!(futures::poll!(asked.as_mut()).is_pending());
    let path = format!("{MAPS}/left");
    let written = async {
        while audited.api.get(&path).await.code != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("it is written, whoever waits");
    drop(asked);
    let numbers = audited.api.server.config().metrics.respond().unwrap().into_body().collect().await.unwrap();
    let numbers = String::from_utf8(numbers.to_bytes().to_vec()).unwrap();
    let counted = r#"apiserver_request_total{verb="POST",dry_run="",group="",version="v1",resource="configmaps",subresource="",scope="resource",component="apiserver",code="504"} 1"#;
    assert!(numbers.contains(counted), "{numbers}");
    let event = audited.event_until("ResponseComplete").await;
    assert_eq!((&event["verb"], &event["objectRef"]["name"]), (&json!("create"), &json!("left")));
    assert_eq!(event["requestObject"]["metadata"]["name"], "left");
    let early = json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200});
    assert_eq!(event["responseStatus"], early);
    assert_eq!(audited.events().len(), 1);
}

#[tokio::test]
async fn every_verb_says_what_it_was_sent() {
    let audited = Audited::new("omitStages: [RequestReceived]\nrules: [{level: Request}]").await;
    let api = &audited.api;
    api.post(MAPS, &config_map("m")).await.expect(201);
    let path = format!("{MAPS}/m");
    api.put(&path, &config_map("m")).await.expect(200);
    api.patch("merge-patch", &path, &json!({"data": {"a": "c"}})).await.expect(200);
    api.patch("json-patch", &path, &json!([{"op": "remove", "path": "/data"}])).await.expect(200);
    let apply = Request::patch(format!("{path}?fieldManager=me")).header(CONTENT_TYPE, "application/apply-patch+yaml");
    api.send(apply, config_map("m").to_string()).await;
    api.call(Method::DELETE, &path, &json!({"gracePeriodSeconds": 0})).await.expect(200);
    api.call(Method::DELETE, MAPS, &json!({"propagationPolicy": "Background"})).await.expect(200);
    let events = audited.events();
    let sent: Vec<_> = events.iter().map(|e| (e["verb"].as_str().unwrap(), &e["requestObject"])).collect();
    assert_eq!(sent.len(), 7, "{sent:?}");
    assert!(events.iter().all(|event| event["responseObject"].is_null()));
    for (at, verb, pointer, wanted) in [
        (0, "create", "/data/a", json!("b")),
        (1, "update", "/data/a", json!("b")),
        (2, "patch", "/data/a", json!("c")),
        (3, "patch", "/0/op", json!("remove")),
        (4, "patch", "/data/a", json!("b")),
        (5, "delete", "/gracePeriodSeconds", json!(0)),
        (6, "deletecollection", "/propagationPolicy", json!("Background")),
    ] {
        assert_eq!((sent[at].0, sent[at].1.pointer(pointer)), (verb, Some(&wanted)), "{at}");
    }
    assert_eq!(events[5]["responseStatus"]["status"], "Success");
    assert_eq!(events[5]["responseStatus"]["details"]["kind"], "configmaps");
}

#[tokio::test]
async fn a_refusal_is_recorded_with_its_reason() {
    let policy = "omitStages: [RequestReceived]\nrules: [{level: Metadata}]";
    let audited = Audited::with(policy, |cache, _| Arc::new(OnlyRoles(Rbac::new(cache.clone())))).await;
    let jane = UserInfo::authenticated("jane", &[]);
    let (code, _) = audited.api.status_as(Request::get(MAPS), "", &jane).await;
    assert_eq!(code, 403);
    let missing = format!("{MAPS}/none");
    audited.api.status_as(Request::get("/metrics"), "", &jane).await;
    audited.api.get(&missing).await.expect(403);
    let events = audited.events();
    assert_eq!(events.len(), 3);
    let status = &events[0]["responseStatus"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(403), &json!("Forbidden")));
    assert!(status["message"].as_str().unwrap().contains("cannot list resource"), "{status}");
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!((&events[1]["objectRef"], &events[1]["verb"]), (&Value::Null, &json!("get")));
}

/// Kubernetes' roles without the administrator's group.
#[derive(Debug)]
struct OnlyRoles(Rbac);

#[async_trait]
impl Authorizer for OnlyRoles {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        // Who makes what every server has.
        if user.name == "system:apiserver" { Decision::Allow } else { self.0.authorize(user, attributes) }
    }
}

#[tokio::test]
async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
    let audited = Audited::new("rules: [{level: RequestResponse, verbs: [watch]}]").await;
    let mut lines = audited.api.watch(&format!("{MAPS}?watch=1")).await;
    audited.api.post(MAPS, &config_map("m")).await.expect(201);
    lines.next().await.unwrap();
    assert_eq!(stages(&audited.events()), ["RequestReceived", "ResponseStarted"]);
    drop(lines);
    let event = audited.event_until("ResponseComplete").await;
    assert_eq!(event["responseStatus"]["code"], 200);
    assert_eq!(event["responseObject"], Value::Null);
}

#[tokio::test]
async fn whom_somebody_acts_as_is_recorded_beside_them() {
    let audited = Audited::new("rules: [{level: Metadata, users: [wherry-admin]}]").await;
    let origin = Origin { address: [192, 0, 2, 7].into(), authenticated: Some(UserInfo::admin()), ..Origin::default() };
    let request = Request::get(MAPS).header("x-forwarded-for", "192.0.2.8").extension(origin);
    let jane = UserInfo::authenticated("jane", &[]);
    audited.api.status_as(request, "", &jane).await;
    let event = audited.event_until("ResponseComplete").await;
    assert_eq!(event["user"]["username"], "wherry-admin");
    assert_eq!(event["impersonatedUser"], jane.to_json());
    assert_eq!(event["sourceIPs"], json!(["192.0.2.8", "192.0.2.7"]));
}

#[tokio::test]
async fn what_admission_has_to_tell_is_an_annotation() {
    let audited = Audited::new("omitStages: [RequestReceived]\nrules: [{level: Metadata, verbs: [create]}]").await;
    let labels = json!({"pod-security.kubernetes.io/audit": "restricted"});
    audited.api.patch("merge-patch", "/api/v1/namespaces/default", &json!({"metadata": {"labels": labels}})).await;
    audited.api.post("/api/v1/namespaces/default/pods", &pod("p")).await.expect(201);
    let event = audited.event_until("ResponseComplete").await;
    let said = event["annotations"]["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
    assert!(said.contains("would violate PodSecurity \"restricted:latest\""), "{event}");
    assert_eq!(event["annotations"]["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
}

#[derive(Debug)]
struct Panics;

#[async_trait]
impl Authorizer for Panics {
    async fn authorize(&self, _user: &UserInfo, attributes: &Attributes) -> Decision {
        assert_ne!(attributes.resource, "secrets", "no secrets here");
        Decision::Allow
    }
}

#[tokio::test]
async fn a_panic_is_a_stage_of_its_own() {
    let policy = "rules: [{level: Metadata, resources: [{group: '', resources: [secrets]}]}]";
    let audited = Audited::with(policy, |_, _| Arc::new(Panics)).await;
    audited.api.get("/api/v1/secrets").await.expect(500);
    let events = audited.events();
    assert_eq!(stages(&events), ["RequestReceived", "Panic"]);
    let status = &events[1]["responseStatus"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(500), &json!("InternalError")));
    assert!(status["message"].as_str().unwrap().contains("no secrets here"), "{status}");
}

#[tokio::test]
async fn a_disk_without_room_stops_what_must_be_recorded_and_is_counted_otherwise() {
    for (mode, code) in [(Mode::Blocking, 201), (Mode::BlockingStrict, 500)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let audit = fixture::audit("rules: [{level: Metadata, verbs: [create]}]", &path, mode);
        let api = Api::configured(
            |_, _| Arc::new(AllowAll),
            |config| {
                audit.register_in(&mut config.metrics);
                config.audit = Some(audit);
            },
        )
        .await;
        let answer = api.post(MAPS, &config_map("m")).await;
        assert_eq!(answer.code, code, "{mode:?}");
        assert_eq!(api.get(&format!("{MAPS}/m")).await.code, if code == 201 { 200 } else { 404 });
        let scraped = String::from_utf8(api.get("/metrics").await.text).unwrap();
        assert!(scraped.contains("apiserver_audit_error_total{plugin=\"log\"}"), "{scraped}");
    }
}

#[tokio::test]
async fn a_request_to_what_is_deprecated_is_marked() {
    let audited = Audited::new("omitStages: [RequestReceived]\nrules: [{level: Metadata}]").await;
    audited.api.get("/api/v1/namespaces/default/endpoints").await.expect(200);
    audited.api.get(MAPS).await.expect(200);
    let marked: Vec<_> = audited.events().iter().map(|e| e["annotations"]["k8s.io/deprecated"].clone()).collect();
    assert_eq!(marked, [json!("true"), Value::Null]);
}
