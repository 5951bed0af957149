//! Priority and fairness through the whole server: the objects, the headers, and who is served.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;

use super::{Api, config_map};
use crate::auth::UserInfo;
use crate::server::body::{Body, BoxError};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn bootstrapped() -> Api {
    let api = Api::new().await;
    api.server.bootstrap_flow().await.unwrap();
    api
}

fn condition(schema: &Value) -> (&str, &str) {
    let found = schema["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Dangling").unwrap();
    (found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
}

#[tokio::test]
async fn the_defaults_are_there_and_are_put_right() {
    let api = bootstrapped().await;
    let schemas = api.get(SCHEMAS).await.expect(200);
    assert_eq!(schemas["items"].as_array().unwrap().len(), 13);
    assert_eq!(api.get(LEVELS).await.expect(200)["items"].as_array().unwrap().len(), 8);
    assert!(schemas["items"].as_array().unwrap().iter().all(|schema| condition(schema) == ("False", "Found")));
    let before = api.get(SCHEMAS).await.expect(200)["metadata"]["resourceVersion"].clone();
    api.server.bootstrap_flow().await.unwrap();
    assert_eq!(api.get(SCHEMAS).await.expect(200)["metadata"]["resourceVersion"], before, "nothing is left to do");

    // What is mandatory comes back whatever its annotation says; what is suggested only if it follows.
    let off = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
        "spec": {"matchingPrecedence": 7000}});
    api.patch("merge-patch", &format!("{SCHEMAS}/global-default"), &off).await.expect(200);
    let refused = api.patch("merge-patch", &format!("{SCHEMAS}/catch-all"), &off).await.expect(422);
    let why = refused["message"].as_str().unwrap_or_default();
    assert!(why.ends_with("spec of 'catch-all' must equal the fixed value"), "{why}");
    let deaf = json!({"metadata": off["metadata"]});
    api.patch("merge-patch", &format!("{SCHEMAS}/catch-all"), &deaf).await.expect(200);
    api.delete(&format!("{SCHEMAS}/exempt")).await.expect(200);
    let changed = json!({"spec": {"matchingPrecedence": 7001}});
    api.patch("merge-patch", &format!("{SCHEMAS}/service-accounts"), &changed).await.expect(200);
    api.delete(&format!("{LEVELS}/exempt")).await.expect(200);
    api.server.bootstrap_flow().await.unwrap();
    for (name, wanted) in [("catch-all", 10_000), ("global-default", 7000), ("service-accounts", 9000)] {
        let schema = api.get(&format!("{SCHEMAS}/{name}")).await.expect(200);
        assert_eq!(schema["spec"]["matchingPrecedence"], wanted, "{name}");
    }
    for object in [format!("{LEVELS}/exempt"), format!("{SCHEMAS}/exempt")] {
        api.get(&object).await.expect(200);
    }
    let note = "apf.kubernetes.io/autoupdate-spec";
    assert_eq!(api.get(&format!("{SCHEMAS}/catch-all")).await.expect(200)["metadata"]["annotations"][note], "true");
}

#[tokio::test]
async fn a_schema_says_whether_its_level_is_missing_and_does_not_count_then() {
    let api = bootstrapped().await;
    let everybody = json!([{"kind": "Group", "group": {"name": "system:authenticated"}}]);
    let rule = json!({"subjects": everybody, "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
        "namespaces": ["*"], "clusterScope": true}]});
    let schema = json!({"metadata": {"name": "mine"}, "spec": {"matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": "later"}, "rules": [rule]}});
    let mine = api.post(SCHEMAS, &schema).await.expect(201);
    api.server.bootstrap_flow().await.unwrap();
    assert_eq!(condition(&api.get(&format!("{SCHEMAS}/mine")).await.expect(200)), ("True", "NotFound"));
    let jane = UserInfo::authenticated("jane", &[]);
    let schema_of = async || {
        let request = Request::get(CONFIG_MAPS).body(crate::server::body::empty()).unwrap();
        let answer = api.server.handle(request, jane.clone()).await;
        answer.headers().get("x-kubernetes-pf-flowschema-uid").unwrap().to_str().unwrap().to_owned()
    };
    assert_ne!(Value::from(schema_of().await), mine["metadata"]["uid"]);
    let level = json!({"metadata": {"name": "later"},
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    api.post(LEVELS, &level).await.expect(201);
    api.server.bootstrap_flow().await.unwrap();
    assert_eq!(condition(&api.get(&format!("{SCHEMAS}/mine")).await.expect(200)), ("False", "Found"));
    assert_eq!(Value::from(schema_of().await), mine["metadata"]["uid"]);
}

/// Lists that wait three seconds for a revision that does not come hold their seats; hundreds of them are in flight. The clock
/// is the test's: it goes on when everybody waits.
#[tokio::test]
async fn a_greedy_user_with_hundreds_of_requests_in_flight_does_not_starve_another() {
    const HELD: Duration = Duration::from_secs(3);
    let api = bootstrapped().await;
    api.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    tokio::time::pause();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let server = api.server.clone();
        tasks.spawn(async move {
            let path = format!("{CONFIG_MAPS}?resourceVersion=99999999&timeoutSeconds=1");
            let request = Request::get(path).body(crate::server::body::empty()).unwrap();
            server.handle(request, UserInfo::authenticated("greedy", &[])).await.status().as_u16()
        });
    }
    let modest = UserInfo::authenticated("modest", &[]);
    for _ in 0..2 {
        let began = Instant::now();
        let (code, text) = api.status_as(Request::get(format!("{CONFIG_MAPS}/a")), "", &modest).await;
        assert_eq!(code, 200, "{text}");
        assert!(
            began.elapsed() <= HELD * 2,
            "the next seats that are free are not all the other's: {:?}",
            began.elapsed()
        );
    }
    // Whoever is exempt does not wait at all.
    let began = Instant::now();
    api.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(began.elapsed(), Duration::ZERO);
    let (mut refused, mut served) = (0, 0);
    while let Some(code) = tasks.join_next().await {
        match code.unwrap() {
            429 => refused += 1,
            _ => served += 1,
        }
    }
    assert!(refused > 0 && served > 0, "the queues of one flow are not all queues: {refused} {served}");
}

impl Api {
    /// Gives these users a level of one seat, which says no at once, or has this queue.
    async fn one_seat(&self, users: &[&str], response: &Value) {
        let limited = json!({"nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": response});
        let one = json!({"metadata": {"name": "one"}, "spec": {"type": "Limited", "limited": limited}});
        self.post(LEVELS, &one).await.expect(201);
        let users: Vec<Value> = users.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect();
        let rule = json!({"subjects": users, "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "namespaces": ["*"], "clusterScope": true}]});
        let schema = json!({"metadata": {"name": "one"}, "spec": {"matchingPrecedence": 50,
            "priorityLevelConfiguration": {"name": "one"}, "rules": [rule]}});
        self.post(SCHEMAS, &schema).await.expect(201);
    }
}

/// A body that says how long it will be, and comes when it is told to.
struct Slow {
    text: Option<Bytes>,
    announced: bool,
    begun: Arc<AtomicUsize>,
    polled: bool,
    go: WatchStream<bool>,
}

impl HttpBody for Slow {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !std::mem::replace(&mut self.polled, true) {
            self.begun.fetch_add(1, Ordering::SeqCst);
        }
        if self.polled && self.text.is_none() {
            return Poll::Ready(None);
        }
        loop {
            match futures::ready!(futures::Stream::poll_next(Pin::new(&mut self.go), cx)) {
                Some(false) => {}
                Some(true) | None => return Poll::Ready(self.text.take().map(|text| Ok(Frame::data(text)))),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.text.as_ref().map_or(0, Bytes::len);
        if self.announced { SizeHint::with_exact(length as u64) } else { SizeHint::new() }
    }
}

#[tokio::test]
async fn who_sends_a_body_slowly_keeps_no_seat_and_is_served_when_it_has_come() {
    let api = bootstrapped().await;
    let queue = json!({"type": "Queue", "queuing": {"queues": 8, "handSize": 4, "queueLengthLimit": 50}});
    api.one_seat(&["slow", "quick"], &queue).await;
    let (go, begun) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..8 {
        let text = Bytes::from(config_map(&format!("slow-{index}")).to_string());
        let (announced, go) = (index % 2 == 0, WatchStream::new(go.subscribe()));
        let slow = Slow { text: Some(text), announced, begun: Arc::clone(&begun), polled: false, go };
        let body: Body = slow.boxed_unsync();
        let server = api.server.clone();
        tasks.spawn(async move {
            let request = Request::post(CONFIG_MAPS).header("content-type", "application/json").body(body).unwrap();
            server.handle(request, UserInfo::authenticated("slow", &[])).await.status().as_u16()
        });
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while begun.load(Ordering::SeqCst) < 8 {
        assert!(Instant::now() < deadline, "all of them are awaited at once");
        tokio::task::yield_now().await;
    }
    for index in 0..3 {
        let quick = UserInfo::authenticated("quick", &[]);
        let request = Request::post(CONFIG_MAPS).header("content-type", "application/json");
        let (code, text) = api.status_as(request, config_map(&format!("quick-{index}")).to_string(), &quick).await;
        assert_eq!(code, 201, "{text}");
    }
    go.send_replace(true);
    while let Some(code) = tasks.join_next().await {
        assert_eq!(code.unwrap(), 201, "what came late is served in its turn");
    }
}

#[tokio::test]
async fn a_watch_holds_no_seat_after_it_has_begun() {
    let api = bootstrapped().await;
    api.one_seat(&["watcher"], &json!({"type": "Reject"})).await;
    let watcher = UserInfo::authenticated("watcher", &[]);
    let mut open = Vec::new();
    for _ in 0..50 {
        let request = Request::get(format!("{CONFIG_MAPS}?watch=1")).body(crate::server::body::empty()).unwrap();
        let answer = api.server.handle(request, watcher.clone()).await;
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
}
