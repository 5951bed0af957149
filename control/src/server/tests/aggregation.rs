//! Group versions that another server serves, over TLS. The condition that a controller would write is written here.

use std::net::Ipv4Addr;
use std::time::Instant;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use hyper::body::Incoming;

use super::*;
use crate::audit::{Mode, fixture};
use crate::auth::authn::Authenticator;
use crate::auth::pki::{Pki, ServerNames};
use crate::auth::tokens::Tokens;
use crate::auth::{Attributes, Decision, MASTERS};
use crate::outbound::tests::{Answer as Said, Echo};
use crate::server::listen::{Bound, Listen, Listener};

/// Where the other server listens: no endpoint may be in 127.0.0.0/16.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 255, 0, 8);
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const SCHEMA: &str = "com.example.wardle.v1alpha1.Flunder";

/// Told when the other server has a request that it will not answer.
static SILENT: tokio::sync::Notify = tokio::sync::Notify::const_new();

/// Describes itself as extension servers do; says of any other request what it was.
async fn extension(request: Request<Incoming>) -> Said {
    let (parts, body) = request.into_parts();
    let accepts = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let resource = json!({"resource": "flunders", "responseKind": {"group": "wardle.example.com", "version": "v1alpha1",
        "kind": "Flunder"}, "scope": "Namespaced", "singularResource": "flunder", "verbs": ["get", "list", "watch", "create"],
        "shortNames": ["fl"]});
    let answer = match parts.uri.path() {
        "/apis" if accepts.contains("apidiscovery") => json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {"name": "wardle.example.com"}, "versions": [
                {"version": "v1alpha1", "resources": [resource, {"verbs": 7}]}]}]}),
        "/apis/wardle.example.com/v1alpha1" => json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1alpha1", "resources": [{"name": "flunders"}]}),
        "/openapi/v3" => json!({"paths": {"apis/wardle.example.com/v1alpha1":
            {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=A"}}}),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => {
            json!({"openapi": "3.0.0", "info": {"title": "t", "version": "1"},
            "paths": {"/apis/wardle.example.com/v1alpha1/flunders": {"get": {"responses": {"200": {"description": "OK"}}}},
                "/api/v1/pods": {"get": {"responses": {}}}},
            "components": {"schemas": {SCHEMA: {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"lost": {"$ref": "#/components/schemas/nowhere"}}}}}}}})
        }
        "/apis/wardle.example.com/v1alpha1/away" => {
            return Ok(Response::builder()
                .status(302)
                .header("location", "https://a.example")
                .body(body::empty())
                .unwrap());
        }
        _ if parts.uri.query().is_some_and(|query| query.contains("silent=")) => {
            SILENT.notify_one();
            std::future::pending().await
        }
        _ if parts.uri.query().is_some_and(|query| query.contains("watch=")) => {
            let event = |n: u32| bytes::Bytes::from(json!({"type": "ADDED", "object": {"n": n}}).to_string() + "\n");
            let events = futures::stream::iter([Ok(event(1))]).chain(futures::stream::pending());
            return Ok(Response::builder()
                .header(CONTENT_TYPE, "application/json")
                .body(body::stream(events))
                .unwrap());
        }
        _ => {
            let headers: Vec<(String, String)> = parts
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
                .collect();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            json!({"method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers,
                "body": String::from_utf8_lossy(&body)})
        }
    };
    Ok(Response::builder().header("keep-alive", "timeout=5").body(body::full(answer.to_string())).unwrap())
}

impl Api {
    /// An extension server behind a Service and an APIService, which nobody has found available yet.
    async fn extended(&self) -> Echo {
        let extension = Echo::serving(&["api.default.svc"], ADDRESS, |request| Box::pin(extension(request))).await;
        self.leading_to(extension.port, &json!({"caBundle": extension.bundle})).await;
        extension
    }

    /// An APIService that leads to this port of [`ADDRESS`], with this of how its certificate is judged.
    async fn leading_to(&self, port: u16, trust: &Value) {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"},
            "spec": {"ports": [{"port": 443, "name": "tls"}]}});
        self.post("/api/v1/namespaces/default/services", &service).await.expect(201);
        let labels = json!({"kubernetes.io/service-name": "api"});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "api-1", "labels": labels}, "addressType": "IPv4",
            "endpoints": [{"addresses": [ADDRESS.to_string()]}], "ports": [{"name": "tls", "port": port}]});
        self.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.expect(201);
        let mut api_service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": NAME}, "spec": {"group": "wardle.example.com", "version": "v1alpha1",
                "groupPriorityMinimum": 17_790, "versionPriority": 15,
                "service": {"namespace": "default", "name": "api"}}});
        api_service["spec"].as_object_mut().unwrap().extend(trust.as_object().unwrap().clone());
        self.post(SERVICES, &api_service).await.expect(201);
    }

    async fn find(&self, available: bool) {
        let status = if available { "True" } else { "False" };
        let status = json!({"status": {"conditions": [{"type": "Available", "status": status, "reason": "Testing"}]}});
        self.patch("merge-patch", &format!("{SERVICES}/{NAME}/status"), &status).await.expect(200);
    }

    /// Waits until an answer satisfies.
    async fn until(&self, path: &str, accept: &str, what: &str, found: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.get_as(path, accept).await;
            if found(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{what}: {}", String::from_utf8_lossy(&answer.text));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn reached(&self) {
        self.find(true).await;
        self.until(FLUNDERS, "application/json", "it is passed on", |answer| answer.code == 200).await;
    }
}

/// The version in aggregated discovery, with its group's place.
fn version(list: &Value) -> Option<(usize, Value)> {
    let groups = list["items"].as_array().unwrap();
    let at = groups.iter().position(|group| group["metadata"]["name"] == "wardle.example.com")?;
    Some((at, groups[at]["versions"][0].clone()))
}

#[tokio::test]
async fn requests_for_its_group_reach_the_other_server_in_the_users_name() {
    let api = Api::new().await;
    api.get(FLUNDERS).await.expect(404);
    let _extension = api.extended().await;
    let refused = api.until(FLUNDERS, "application/json", "it is not available", |answer| answer.code == 503).await;
    assert_eq!((refused.reason().as_str(), refused.message().as_str()), ("ServiceUnavailable", "service unavailable"));
    api.reached().await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{FLUNDERS}/a%2Fb?dryRun=All&x=%20"))
            .version(http::Version::HTTP_2)
            .header("x-remote-user", "intruder")
            .header("x-remote-group", "intruders")
            .header("x-remote-extra-scopes", "all")
            .header("authorization", "Bearer secret")
            .header("impersonate-user", "jane")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-mine", "kept");
        let answer = api.send(request, "{\"spec\":1}").await;
        assert!(answer.headers.get("keep-alive").is_none() && answer.headers.contains_key("audit-id"));
        let said = answer.expect(200);
        assert_eq!(said["method"], method.as_str());
        assert_eq!(said["uri"], format!("{FLUNDERS}/a%2Fb?dryRun=All&x=%20"));
        assert_eq!(said["body"], "{\"spec\":1}");
        let headers = said["headers"].as_array().unwrap();
        let all = |name: &str| -> Vec<&str> {
            headers.iter().filter(|h| h[0] == name).map(|h| h[1].as_str().unwrap()).collect()
        };
        assert_eq!(all("x-remote-user"), [UserInfo::admin().name]);
        assert_eq!(all("x-remote-group"), UserInfo::admin().groups);
        assert_eq!((all("x-mine"), all("host")), (vec!["kept"], vec!["api.default.svc:443"]));
        for gone in ["x-remote-extra-scopes", "authorization", "impersonate-user", "x-hop", "connection"] {
            assert!(all(gone).is_empty(), "{gone}");
        }
    }
    let mut events = api.watch(&format!("{FLUNDERS}?watch=true")).await;
    assert_eq!(events.next().await.unwrap(), ("ADDED".to_owned(), json!({"n": 1})));
    let upgrade = api.send(Request::get(FLUNDERS).header("upgrade", "websocket"), "").await;
    assert_eq!(upgrade.code, 501);
    let redirected = api.get("/apis/wardle.example.com/v1alpha1/away").await;
    assert_eq!(redirected.code, 502, "{}", redirected.message());
    api.get("/api/v1/namespaces/default/services").await.expect(200);
    api.find(false).await;
    api.until(FLUNDERS, "application/json", "it is unavailable again", |answer| answer.code == 503).await;
    api.delete(&format!("{SERVICES}/{NAME}")).await.expect(200);
    api.until(FLUNDERS, "application/json", "it is gone", |answer| answer.code == 404).await;
}

#[tokio::test]
async fn a_watch_that_the_other_server_does_not_begin_ends_after_a_minute() {
    let api = Api::new().await;
    let _extension = api.extended().await;
    api.reached().await;
    let server = api.server.clone();
    let asking = tokio::spawn(async move { Api { server }.get(&format!("{FLUNDERS}?watch=true&silent=true")).await });
    // From here on the clock is the test's: it goes on when everybody waits.
    SILENT.notified().await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let answer = asking.await.unwrap();
    assert_eq!((answer.code, answer.reason().as_str()), (504, "Timeout"));
    assert!(began.elapsed() < Duration::from_secs(61), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_the_other_server_serves_is_described_until_it_goes() {
    let api = Api::new().await;
    let extension = api.extended().await;
    let stale = api.until("/apis", DISCOVERY, "it is listed", |answer| version(&answer.json()).is_some()).await;
    assert_eq!(
        version(&stale.json()).unwrap().1,
        json!({"version": "v1alpha1", "resources": [], "freshness": "Stale"})
    );
    api.find(true).await;
    let current = |answer: &Answer| version(&answer.json()).is_some_and(|(_, v)| v["freshness"] == "Current");
    let list = api.until("/apis", DISCOVERY, "it is current", current).await.json();
    let (place, shown) = version(&list).unwrap();
    assert_eq!(
        (&shown["resources"][0]["resource"], shown["resources"].as_array().unwrap().len()),
        (&json!("flunders"), 1)
    );
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|g| g["metadata"]["name"].clone()).collect();
    assert_eq!(names[..4], ["apiregistration.k8s.io", "apps", "wardle.example.com", "events.k8s.io"], "by priority");
    assert_eq!(place, 2);
    let groups = api.get("/apis").await.expect(200);
    assert_eq!(groups["groups"][2]["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    assert_eq!(api.get("/apis/wardle.example.com").await.expect(200)["name"], "wardle.example.com");
    let own = api.get("/apis/wardle.example.com/v1alpha1").await.expect(200);
    assert_eq!(own["resources"], json!([{"name": "flunders"}]), "as the other server says it");

    let path = "apis/wardle.example.com/v1alpha1";
    let index = api.get("/openapi/v3").await.expect(200);
    let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = api.get(&url).await;
    assert_eq!(document.headers["cache-control"], "public, max-age=31536000, immutable");
    let document = document.expect(200);
    assert_eq!(document["components"]["schemas"][SCHEMA]["type"], "object");
    assert_eq!(document["paths"].as_object().unwrap().len(), 1, "of its own paths only");
    assert!(index["paths"]["api/v1"].is_object());
    let v2 = api.get("/openapi/v2").await.expect(200);
    let lost = &v2["definitions"][SCHEMA]["properties"]["spec"]["properties"]["lost"];
    assert_eq!(*lost, json!({"type": "object"}), "what leads nowhere would make clients refuse all of it");
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    assert!(v2["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object());

    drop(extension);
    api.find(false).await;
    let stale = |answer: &Answer| version(&answer.json()).is_some_and(|(_, v)| v["freshness"] == "Stale");
    let list = api.until("/apis", DISCOVERY, "it is stale", stale).await.json();
    assert_eq!(version(&list).unwrap().1["resources"][0]["resource"], "flunders", "what it said last");
    api.delete(&format!("{SERVICES}/{NAME}")).await.expect(200);
    api.until("/apis", DISCOVERY, "it is gone", |answer| version(&answer.json()).is_none()).await;
    api.get(&url).await.expect(404);
    assert!(api.get("/openapi/v3").await.expect(200)["paths"].get(path).is_none());
}

#[tokio::test]
async fn another_servers_certificate_is_that_of_its_service() {
    let api = Api::new().await;
    let _extension = api.extended().await;
    api.reached().await;
    let other = rcgen::generate_simple_self_signed(vec!["api.default.svc".to_owned()]).unwrap();
    let spec = |change: Value| json!({ "spec": change });
    let path = format!("{SERVICES}/{NAME}");
    let bundle = STANDARD.encode(other.cert.pem());
    api.patch("merge-patch", &path, &spec(json!({"caBundle": bundle}))).await.expect(200);
    let refused = api.until(FLUNDERS, "application/json", "it is not trusted", |answer| answer.code == 503).await;
    assert!(refused.message().contains("certificate"), "{}", refused.message());
    let anybody = spec(json!({"caBundle": null, "insecureSkipTLSVerify": true}));
    api.patch("merge-patch", &path, &anybody).await.expect(200);
    api.until(FLUNDERS, "application/json", "anybody is trusted", |answer| answer.code == 200).await;
}

/// Lets administrators do everything and others nothing.
#[derive(Debug)]
struct Administrators;

#[async_trait]
impl Authorizer for Administrators {
    async fn authorize(&self, user: &UserInfo, _: &Attributes) -> Decision {
        if user.in_group(MASTERS) { Decision::Allow } else { Decision::deny("") }
    }
}

#[tokio::test]
async fn who_may_not_use_a_group_does_not_reach_its_server() {
    let api = Api::with(|_, _| Arc::new(Administrators)).await;
    let _extension = api.extended().await;
    api.reached().await;
    let jane = UserInfo::authenticated("jane", &[]);
    let (code, text) = api.status_as(Request::get(format!("{FLUNDERS}/a")), "", &jane).await;
    let message = "flunders.wardle.example.com \\\"a\\\" is forbidden: User \\\"jane\\\" cannot get resource \\\"flunders\\\" in \
        API group \\\"wardle.example.com\\\" in the namespace \\\"default\\\"";
    assert!(code == 403 && text.contains(message), "{text}");
    let (code, _) = api.status_as(Request::get("/apis/wardle.example.com/v1alpha1"), "", &jane).await;
    assert_eq!(code, 403);
}

#[tokio::test]
async fn what_another_server_answers_is_not_read_for_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let policy =
        "omitStages: [RequestReceived]\nrules: [{level: RequestResponse, resources: [{group: wardle.example.com}]}]";
    let audit = fixture::audit(policy, &path, Mode::Blocking);
    let api = Api::configured(|_, _| Arc::new(AllowAll), |config| config.audit = Some(audit)).await;
    let _extension = api.extended().await;
    api.reached().await;
    // No watch for this server, and yet without an end.
    let request = Request::get(format!("{FLUNDERS}/a?stopwatch=1")).body(body::empty()).unwrap();
    let asked = api.server.handle(request, UserInfo::admin());
    let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("it is read to its end");
    assert_eq!(answer.status(), 200);
    let text = std::fs::read_to_string(&path).unwrap();
    let event: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&event["objectRef"]["name"], &event["responseStatus"]["code"]), (&json!("a"), &json!(200)));
    assert_eq!(event["responseObject"], Value::Null);
}

/// An APIService that leads back: a request is passed on once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_service_that_leads_to_this_server_itself_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let proxy = pki.front_proxy().unwrap();
    let api = Api::configured(|_, _| Arc::new(AllowAll), |config| config.front_proxy = Some(proxy)).await;
    let tokens = Tokens::new(pki.token_key_pem(), api.server.cache().clone()).unwrap();
    let authenticator = Authenticator::new(pki.ca_der(), tokens).unwrap().with_proxies(pki.front_proxy_der()).unwrap();
    let listen = Listen {
        pki: Arc::clone(&pki),
        names: ServerNames::api_server([10, 96, 0, 1].into(), ADDRESS.into(), &[]),
        authenticator,
        authorizer: Arc::new(AllowAll),
        handler: Arc::new(api.server.clone()),
    };
    let listener = Listener::start(Bound::bind((ADDRESS, 0).into()).await.unwrap(), listen).unwrap();
    api.leading_to(listener.address().port(), &json!({"insecureSkipTLSVerify": true})).await;
    api.find(true).await;
    let told = api.until(FLUNDERS, "application/json", "it is found out", |answer| answer.code == 508).await;
    assert_eq!(told.reason(), "LoopDetected");
    assert_eq!(told.message(), "the APIService of wardle.example.com/v1alpha1 leads back to this server");
    listener.shutdown(Duration::from_secs(10)).await;
}
