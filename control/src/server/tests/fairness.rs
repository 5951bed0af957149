//! Priority and fairness through the whole server: the objects, the headers, and who is served.

use std::time::Duration;

use http::Request;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Api, config_map};
use crate::auth::UserInfo;

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
    for name in ["catch-all", "global-default"] {
        api.patch("merge-patch", &format!("{SCHEMAS}/{name}"), &off).await.expect(200);
    }
    let changed = json!({"spec": {"matchingPrecedence": 7001}});
    api.patch("merge-patch", &format!("{SCHEMAS}/service-accounts"), &changed).await.expect(200);
    api.delete(&format!("{LEVELS}/exempt")).await.expect(200);
    api.server.bootstrap_flow().await.unwrap();
    for (name, wanted) in [("catch-all", 10_000), ("global-default", 7000), ("service-accounts", 9000)] {
        let schema = api.get(&format!("{SCHEMAS}/{name}")).await.expect(200);
        assert_eq!(schema["spec"]["matchingPrecedence"], wanted, "{name}");
    }
    api.get(&format!("{LEVELS}/exempt")).await.expect(200);
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

#[tokio::test]
async fn a_watch_holds_no_seat_after_it_has_begun() {
    let api = bootstrapped().await;
    let one = json!({"metadata": {"name": "one"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    api.post(LEVELS, &one).await.expect(201);
    let robots = json!([{"kind": "User", "user": {"name": "watcher"}}]);
    let rule = json!({"subjects": robots, "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
        "namespaces": ["*"], "clusterScope": true}]});
    let schema = json!({"metadata": {"name": "one"}, "spec": {"matchingPrecedence": 50,
        "priorityLevelConfiguration": {"name": "one"}, "rules": [rule]}});
    api.post(SCHEMAS, &schema).await.expect(201);
    let watcher = UserInfo::authenticated("watcher", &[]);
    let mut open = Vec::new();
    for _ in 0..50 {
        let request = Request::get(format!("{CONFIG_MAPS}?watch=1")).body(crate::server::body::empty()).unwrap();
        let answer = api.server.handle(request, watcher.clone()).await;
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
}
