//! The audit log of a real server: what is in it, that nothing acknowledged is missing, and that it does not fill the disk.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Wherry, eventually};

const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ['system:kube-controller-manager', 'system:kube-scheduler']}
- {level: None, userGroups: ['system:nodes']}
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}]}
- {level: Metadata, nonResourceURLs: ['/version', '/backup']}
";

/// A server that records into a folder of its own.
fn recording(node: &str, more: &[&str]) -> (Wherry, PathBuf) {
    let mut server = Wherry::prepare(node);
    let policy = server.file("policy.yaml", POLICY).display().to_string();
    let log = server.home().join("logs/audit.log");
    let path = log.display().to_string();
    let flags = [&["--quiet", "--audit-policy-file", &policy, "--audit-log-path", &path], more].concat();
    server.up(&flags);
    (server, log)
}

fn events(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn of<'a>(events: &'a [Value], resource: &str, verb: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["objectRef"]["resource"] == resource && e["verb"] == verb).collect()
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": value}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

#[test]
fn requests_are_recorded_as_the_policy_says() {
    let (server, log) = recording("scribe", &[]);
    let api = server.api();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "word"},
        "stringData": {"word": "hush-hush"}});
    api.post(SECRETS, &secret).ok();
    let made = api.post(MAPS, &config_map("m", "b"));
    made.ok();
    api.acting_as("jane", &["devs"]).get(SECRETS).refused(403, "Forbidden");
    api.get("/version").ok();
    api.get("/api/v1/nodes").ok();

    let events = events(&log);
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("hush-hush") && !text.contains("aHVzaC1odXNo"), "a Secret's data is in the log");
    let created = of(&events, "secrets", "create");
    let [created] = created.as_slice() else { panic!("{events:?}") };
    assert_eq!((&created["level"], &created["objectRef"]["name"]), (&json!("Metadata"), &json!("word")));
    assert_eq!(created["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(created["user"]["groups"], json!(["system:masters", "system:authenticated"]));

    let maps = of(&events, "configmaps", "create");
    let map = maps.iter().find(|e| e["objectRef"]["name"] == "m").unwrap();
    assert_eq!((&map["requestObject"]["data"]["a"], &map["responseObject"]["data"]["a"]), (&json!("b"), &json!("b")));
    assert_eq!(map["auditID"], made.headers["audit-id"].to_str().unwrap());

    let refused = of(&events, "secrets", "list");
    let refused = refused.iter().find(|e| e["impersonatedUser"]["username"] == "jane").unwrap();
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert!(events.iter().any(|e| e["requestURI"] == "/version" && e["verb"] == "get"));
    assert!(of(&events, "nodes", "list").is_empty());

    // Who is not known is recorded too, if the policy does not ask who it is.
    let stranger = support::api::Api::new(&fs::read_to_string(server.kubeconfig()).unwrap(), |config| {
        config.auth_infos[0].auth_info = Some(serde_json::from_value(json!({"token": "wrong"})).unwrap());
    });
    stranger.get(SECRETS).refused(401, "Unauthorized");
    let event = eventually("the stranger is recorded", || {
        let all = self::events(&log);
        let found = all.iter().find(|e| e["responseStatus"]["code"] == 401).cloned();
        found.ok_or_else(|| format!("{all:?}"))
    });
    assert_eq!((&event["user"], &event["stage"]), (&json!({}), &json!("ResponseStarted")));
    assert_eq!(event["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&log).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_was_answered_is_in_the_log_after_a_kill() {
    let (mut server, log) = recording("stopped", &[]);
    let api = server.api();
    for i in 0..50 {
        api.post(MAPS, &config_map(&format!("m{i}"), "b")).ok();
    }
    server.kill();
    let events = events(&log);
    for i in 0..50 {
        let name = format!("m{i}");
        assert!(of(&events, "configmaps", "create").iter().any(|e| e["objectRef"]["name"] == name.as_str()), "{name}");
    }
}

#[test]
fn the_log_is_parted_and_old_parts_go() {
    let (mut server, log) = recording("turner", &["--audit-log-maxsize", "1", "--audit-log-maxbackup", "2"]);
    let api = server.api();
    let large = "x".repeat(300 * 1024);
    for i in 0..8 {
        api.post(MAPS, &config_map(&format!("m{i}"), &large)).ok();
    }
    assert!(server.interrupt().0.success());
    let parts: Vec<PathBuf> = fs::read_dir(log.parent().unwrap()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(parts.len(), 3, "{parts:?}");
    for part in &parts {
        assert!(fs::metadata(part).unwrap().len() <= 1024 * 1024, "{}", part.display());
    }
    assert!(parts.iter().flat_map(|part| events(part)).any(|e| e["objectRef"]["name"] == "m7"));
}

#[test]
fn a_policy_that_is_not_understood_keeps_the_server_from_starting() {
    let server = Wherry::prepare("strict");
    let policy = server.file("policy.yaml", POLICY.replace("userGroups", "groups")).display().to_string();
    let log = server.home().join("audit.log").display().to_string();
    let said = |args: &[&str]| support::run::run(&mut server.up_command(args), "").fails();
    let both = said(&["--quiet", "--audit-policy-file", &policy, "--audit-log-path", &log]);
    assert!(both.contains(&policy) && both.contains("unknown field `groups`"), "{both}");
    assert!(said(&["--audit-policy-file", &policy]).contains("--audit-log-path"));
    assert!(said(&["--audit-log-path", &log]).contains("--audit-policy-file"));
}
