//! Every kubectl from 1.27 to 1.33 that is installed has the same session with one server: what differs between them (how
//! they validate, discover, explain and apply) must not show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Value, json};
use support::run::{Following, Output, run};
use support::{Wherry, eventually, missing};

const MINORS: std::ops::RangeInclusive<u32> = 27..=33;
const DEFINITION: &str = "lamps.light.example.com";
/// A request for a certificate of CN=jane, O=readers.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIY01JR0RBZ0VBTUNFeEVEQU9CZ05WQkFvTUIzSmxZV1JsY25NeERUQUxCZ05WQkFNTUJHcGhibVV3V1RBVApCZ2NxaGtqT1BRSUJCZ2dxaGtqT1BRTUJCd05DQUFTYlZqNFFkcEYvVkZhZStNNWdHVVozTWtlQStycGhzMFllCjY0Ri82SmlQRVdmd0I4K1h0NUVCT1JOSGpLakVlZ1ZZNHRSMnhNL29ZWmY1OGZLWlRuWXNvQUF3Q2dZSUtvWkkKemowRUF3SURTQUF3UlFJZ2FUUTRYY2tKTis0VytkSnRhNWZwZmREZDN5UzYrejIxR1dFeWZHc1hia0VDSVFDUwo0WC9BT1VpWHI1eWhRRndRb1Iyd0xiWEsvUXFabWFsUGNXVmJGWkFBUXc9PQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

#[test]
fn every_kubectl_has_the_same_session() {
    needs!("kubectl");
    let found: Vec<(u32, PathBuf)> = MINORS.filter_map(|minor| Some((minor, program(minor)?))).collect();
    if found.is_empty() {
        return;
    }
    let server = Wherry::start("ages");
    server.kubectl_with(&["apply", "-f", "-"], &definition()).ok();
    server.kubectl(&["wait", "--for=condition=Established", &format!("crd/{DEFINITION}"), "--timeout=30s"]).ok();
    // Two at a time: a command's time is its own more than the server's.
    let sessions = Mutex::new(found.into_iter().map(|(minor, program)| Session { minor, program, server: &server }));
    let failed = Mutex::new(Vec::new());
    let hold_all = || {
        while let Some(session) = { sessions.lock().unwrap().next() } {
            if catch_unwind(AssertUnwindSafe(|| session.hold())).is_err() {
                failed.lock().unwrap().push(session.minor);
            }
        }
    };
    std::thread::scope(|scope| [(); 2].map(|()| scope.spawn(hold_all)).into_iter().for_each(|one| one.join().unwrap()));
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "kubectl 1.x whose session failed, x = {failed:?}");
}

/// `kubectl.1.MINOR` on the path, or beside what `kubectl` is a link to.
fn program(minor: u32) -> Option<PathBuf> {
    let name = format!("kubectl.1.{minor}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let linked =
        folders.iter().filter_map(|folder| folder.join("kubectl").canonicalize().ok()?.parent().map(Into::into));
    let found = folders.iter().cloned().chain(linked).map(|folder| folder.join(&name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

fn definition() -> String {
    let spec = json!({"type": "object", "description": "How it should shine.", "required": ["colour"], "properties": {
        "colour": {"type": "string", "description": "The colour of the light.", "enum": ["red", "green"]},
        "replicas": {"type": "integer", "default": 1}}});
    let schema = json!({"type": "object", "description": "A light at night.", "properties": {"spec": spec}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": DEFINITION},
        "spec": {"group": "light.example.com", "scope": "Namespaced",
            "names": {"plural": "lamps", "kind": "Lamp", "shortNames": ["la"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Colour", "type": "string", "jsonPath": ".spec.colour"}]}]}})
    .to_string()
}

fn config(name: &str, data: Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string()
}

fn lamp(spec: Value) -> String {
    json!({"apiVersion": "light.example.com/v1", "kind": "Lamp", "metadata": {"name": "bow"}, "spec": spec}).to_string()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// One kubectl in a namespace of its own.
struct Session<'a> {
    minor: u32,
    program: PathBuf,
    server: &'a Wherry,
}

impl Session<'_> {
    fn hold(&self) {
        eprintln!("kubectl 1.{}", self.minor);
        let version: Value = serde_json::from_str(&self.run(&["version", "-o", "json"]).ok()).unwrap();
        assert_eq!(version["clientVersion"]["minor"].as_str().unwrap(), self.minor.to_string(), "{version}");
        assert_eq!(version["serverVersion"]["major"], "1");
        self.run(&["create", "namespace", &self.namespace()]).ok();
        claims!(self;
            resources_are_discovered_with_their_short_names,
            apply_tells_created_configured_and_unchanged,
            an_apply_over_an_older_state_conflicts,
            server_side_apply_conflicts_until_it_is_forced,
            diff_shows_what_would_change,
            a_list_of_several_kinds_is_applied_and_waited_for,
            the_server_validates,
            a_defined_kind_is_explained_and_used,
            rights_are_asked_for,
            a_token_is_created_and_known,
            a_certificate_is_approved,
            a_watch_shows_changes,
        );
        self.run(&["delete", "namespace", &self.namespace(), "--timeout=60s"]).ok();
    }

    fn namespace(&self) -> String {
        format!("age-{}", self.minor)
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let namespace = self.namespace();
        self.server.with_kubeconfig(&self.program, &[&["--namespace", &namespace], args].concat())
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        self.with(args, "")
    }

    #[track_caller]
    fn with(&self, args: &[&str], stdin: &str) -> Output {
        run(&mut self.command(args), stdin)
    }
}

fn resources_are_discovered_with_their_short_names(session: &Session<'_>) {
    let all = session.run(&["api-resources"]).ok();
    let find = |name: &str| -> Vec<&str> {
        let line = all.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in:\n{all}")).split_whitespace().collect()
    };
    assert_eq!(find("deployments"), ["deployments", "deploy", "apps/v1", "true", "Deployment"]);
    assert_eq!(find("lamps"), ["lamps", "la", "light.example.com/v1", "true", "Lamp"]);
    assert_eq!(find("nodes"), ["nodes", "no", "v1", "false", "Node"]);
    let listed = session.run(&["api-resources", "--verbs=list", "--namespaced=false", "-o", "name"]).ok();
    has(&listed, &["customresourcedefinitions.apiextensions.k8s.io\n", "persistentvolumes\n"]);
    has(&session.run(&["api-versions"]).ok(), &["light.example.com/v1\n", "apps/v1\n", "\nv1\n"]);
}

fn apply_tells_created_configured_and_unchanged(session: &Session<'_>) {
    let apply = |data: Value| session.with(&["apply", "-f", "-"], &config("plain", data)).ok();
    assert_eq!(apply(json!({"a": "1", "b": "1"})).trim(), "configmap/plain created");
    assert_eq!(apply(json!({"a": "1", "b": "1"})).trim(), "configmap/plain unchanged");
    assert_eq!(apply(json!({"a": "2"})).trim(), "configmap/plain configured");
    let data = session.run(&["get", "configmap", "plain", "-o", "jsonpath={.data}"]).ok();
    assert_eq!(data, r#"{"a":"2"}"#, "what the manifest has no more is removed");
}

fn an_apply_over_an_older_state_conflicts(session: &Session<'_>) {
    let mut old: Value = serde_json::from_str(&config("raced", json!({"a": "1"}))).unwrap();
    session.with(&["apply", "-f", "-"], &old.to_string()).ok();
    let version = session.run(&["get", "configmap", "raced", "-o", "jsonpath={.metadata.resourceVersion}"]).ok();
    session.run(&["patch", "configmap", "raced", "-p", r#"{"data": {"b": "2"}}"#]).ok();
    old["metadata"]["resourceVersion"] = json!(version);
    old["data"]["a"] = json!("2");
    let said = session.with(&["apply", "-f", "-"], &old.to_string()).fails();
    has(&said, &["Error from server (Conflict)", "the object has been modified"]);
    let said = session.with(&["replace", "-f", "-"], &old.to_string()).fails();
    has(&said, &["Error from server (Conflict)", "please apply your changes to the latest version and try again"]);
}

fn server_side_apply_conflicts_until_it_is_forced(session: &Session<'_>) {
    let apply = |manager: &str, more: &[&str], data: Value| {
        let manager = format!("--field-manager={manager}");
        let args = [&["apply", "--server-side", "-f", "-", &manager], more].concat();
        session.with(&args, &config("shared", data))
    };
    assert_eq!(apply("one", &[], json!({"a": "1"})).ok().trim(), "configmap/shared serverside-applied");
    apply("two", &[], json!({"b": "1"})).ok();
    let said = apply("two", &[], json!({"a": "2", "b": "1"})).fails();
    has(&said, &["Apply failed with 1 conflict: conflict with \"one\": .data.a", "--force-conflicts"]);
    apply("two", &["--force-conflicts"], json!({"a": "2", "b": "1"})).ok();
    let shown = session.run(&["get", "configmap", "shared", "-o", "json", "--show-managed-fields"]).ok();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["data"], json!({"a": "2", "b": "1"}));
    let managers: Vec<&str> = shown["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["manager"].as_str().unwrap())
        .collect();
    assert_eq!(managers, ["two"], "who owns nothing is forgotten");
    // From client-side apply to server-side apply without a conflict: the same manager goes on.
    session.with(&["apply", "-f", "-"], &config("moved", json!({"a": "1", "b": "1"}))).ok();
    session.with(&["apply", "--server-side", "-f", "-"], &config("moved", json!({"a": "2"}))).ok();
    let data = session.run(&["get", "configmap", "moved", "-o", "jsonpath={.data}"]).ok();
    assert_eq!(data, r#"{"a":"2"}"#);
}

fn diff_shows_what_would_change(session: &Session<'_>) {
    if missing("diff") {
        return;
    }
    let deployment = |image: &str, replicas: u32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": image}]}}}})
        .to_string()
    };
    session.with(&["apply", "-f", "-"], &deployment("registry.example/a:1", 1)).ok();
    assert_eq!(session.with(&["diff", "-f", "-"], &deployment("registry.example/a:1", 1)).ok(), "");
    for more in [&[][..], &["--server-side"]] {
        let said = session.with(&[&["diff", "-f", "-"], more].concat(), &deployment("registry.example/b:2", 2));
        assert_eq!(said.code, 1, "{said}");
        has(
            &said.stdout,
            &[
                "-  replicas: 1",
                "+  replicas: 2",
                "-      - image: registry.example/a:1",
                "+      - image: registry.example/b:2",
            ],
        );
    }
    let replicas = session.run(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]).ok();
    assert_eq!(replicas, "1", "a diff changes nothing");
}

fn a_list_of_several_kinds_is_applied_and_waited_for(session: &Session<'_>) {
    let items = ["x", "y"].map(|name| serde_json::from_str::<Value>(&config(name, json!({"k": name}))).unwrap());
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [items[0], items[1], service]}).to_string();
    let said = session.with(&["apply", "-f", "-"], &list).ok();
    has(&said, &["configmap/x created", "configmap/y created", "service/front created"]);
    session.run(&["wait", "--for=jsonpath={.spec.type}=ClusterIP", "service/front", "--timeout=30s"]).ok();
    session.with(&["delete", "-f", "-"], &list).ok();
    assert_eq!(session.run(&["get", "configmap/x", "configmap/y", "service/front", "--ignore-not-found"]).ok(), "");
}

fn the_server_validates(session: &Session<'_>) {
    let mut bad: Value = serde_json::from_str(&config("bad", json!({"a": "1"}))).unwrap();
    bad["daat"] = json!({});
    for verb in ["apply", "create"] {
        let said = session.with(&[verb, "-f", "-"], &bad.to_string()).fails();
        has(&said, &["strict decoding error: unknown field \"daat\""]);
    }
    session.with(&["create", "--validate=warn", "--dry-run=server", "-f", "-"], &bad.to_string()).ok();
    let said = session.with(&["apply", "-f", "-"], &lamp(json!({"colour": "blue"}))).fails();
    has(&said, &["spec.colour: Unsupported value: \"blue\": supported values: \"red\", \"green\""]);
    let said = session.with(&["create", "-f", "-"], &lamp(json!({"colour": "red", "size": 3}))).fails();
    has(&said, &["unknown field \"spec.size\""]);
}

fn a_defined_kind_is_explained_and_used(session: &Session<'_>) {
    let said = session.run(&["explain", "lamps.spec"]).ok();
    has(&said, &["light.example.com", "Lamp", "How it should shine.", "colour", "<string>", "-required-", "replicas"]);
    let said = session.run(&["explain", "lamp.spec.colour"]).ok();
    has(&said, &["The colour of the light."]);
    has(&session.run(&["explain", "lamp", "--recursive"]).ok(), &["A light at night.", "replicas"]);
    has(&session.run(&["explain", "deployment.spec.strategy"]).ok(), &["DeploymentStrategy", "rollingUpdate"]);
    session.with(&["apply", "-f", "-"], &lamp(json!({"colour": "red"}))).ok();
    let table = session.run(&["get", "la"]).ok();
    assert_eq!(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["NAME", "COLOUR"], "{table}");
    assert_eq!(table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(), ["bow", "red"], "{table}");
    session.run(&["scale", "lamp/bow", "--replicas=4"]).ok();
    assert_eq!(
        session
            .with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &lamp(json!({"colour": "green"})))
            .ok()
            .trim(),
        "lamp.light.example.com/bow serverside-applied"
    );
    let spec = session.run(&["get", "lamp", "bow", "-o", "jsonpath={.spec.colour} {.spec.replicas}"]).ok();
    assert_eq!(spec, "green 4");
    session.run(&["delete", "lamp", "bow"]).ok();
}

fn rights_are_asked_for(session: &Session<'_>) {
    assert_eq!(session.run(&["auth", "can-i", "create", "lamps.light.example.com"]).ok().trim(), "yes");
    let said = session.run(&["auth", "can-i", "list", "pods", "--as=nobody"]);
    assert!(said.code == 1 && said.stdout.trim() == "no", "{said}");
    session.run(&["create", "role", "reader", "--verb=get,list", "--resource=pods,pods/log"]).ok();
    session.run(&["create", "rolebinding", "reader", "--role=reader", "--user=nobody"]).ok();
    assert_eq!(session.run(&["auth", "can-i", "list", "pods", "--as=nobody"]).ok().trim(), "yes");
    assert_eq!(session.run(&["auth", "can-i", "get", "pods", "--subresource=log", "--as=nobody"]).ok().trim(), "yes");
    let list = session.run(&["auth", "can-i", "--list", "--as=nobody"]).ok();
    let row = list.lines().find(|line| line.starts_with("pods ")).unwrap_or_else(|| panic!("{list}"));
    has(row, &["[get list]"]);
}

fn a_token_is_created_and_known(session: &Session<'_>) {
    session.run(&["create", "serviceaccount", "robot"]).ok();
    let token = session.run(&["create", "token", "robot", "--duration=1h"]).ok();
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.trim()}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = session.with(&["create", "--raw", path, "-f", "-"], &review.to_string()).ok();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["status"]["authenticated"], true, "{answer}");
    let name = format!("system:serviceaccount:{}:robot", session.namespace());
    assert_eq!(answer["status"]["user"]["username"], name);
    has(&session.run(&["create", "token", "nobody"]).fails(), &["serviceaccounts \"nobody\" not found"]);
}

fn a_certificate_is_approved(session: &Session<'_>) {
    let names = [format!("jane-{}", session.minor), format!("joe-{}", session.minor)];
    for name in &names {
        let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": name}, "spec": {"request": REQUEST, "usages": ["client auth"],
                "signerName": "kubernetes.io/kube-apiserver-client"}});
        session.with(&["create", "-f", "-"], &request.to_string()).ok();
    }
    let said = session.run(&["certificate", "approve", &names[0]]).ok();
    has(&said, &[&format!("certificatesigningrequest.certificates.k8s.io/{} approved", names[0])]);
    session.run(&["certificate", "deny", &names[1]]).ok();
    eventually("the certificate is issued", || {
        let table = session.run(&["get", "csr"]).ok();
        let is = |name: &str, state: &str| {
            table.lines().any(|line| line.starts_with(name) && line.trim_end().ends_with(state))
        };
        if is(&names[0], "Approved,Issued") && is(&names[1], "Denied") { Ok(()) } else { Err(table) }
    });
}

fn a_watch_shows_changes(session: &Session<'_>) {
    let mut watching = Following::start(&mut session.command(&["get", "configmaps", "-w"]));
    watching.until("the state comes first", |line| line.starts_with("kube-root-ca.crt"));
    session.with(&["create", "-f", "-"], &config("seen", json!({"a": "1"}))).ok();
    let row = |size: &'static str| move |line: &str| line.split_whitespace().take(2).eq(["seen", size]);
    watching.until("an object comes", row("1"));
    session.run(&["patch", "configmap", "seen", "-p", r#"{"data": {"b": "2"}}"#]).ok();
    watching.until("and changes", row("2"));
    let watch = ["get", "configmap", "seen", "-w", "--output-watch-events"];
    let mut events = Following::start(&mut session.command(&watch));
    let event = |kind: &'static str| move |line: &str| line.split_whitespace().take(2).eq([kind, "seen"]);
    events.until("an event tells its kind", event("ADDED"));
    session.run(&["delete", "configmap", "seen"]).ok();
    events.until("to the end", event("DELETED"));
}
