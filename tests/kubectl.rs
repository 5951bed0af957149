//! An unmodified kubectl does its everyday work: every verb, with the output that its user reads.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use support::server::{pod, served, text};
use support::{Wherry, eventually};

#[test]
fn kubectl_reads_the_cluster() {
    needs!("kubectl");
    let server = with_web("reader");
    claims!(&server;
        get_prints_tables_wide_yaml_json_and_jsonpath,
        get_selects_by_label_and_field_and_in_all_namespaces,
        get_watches,
        describe_tells_a_pods_story,
        logs_are_cut_by_tail_since_and_timestamps,
        logs_follow_a_running_container_to_its_end,
        logs_of_the_previous_run_are_kept,
        a_pods_status_has_the_end_of_its_log_if_it_asks_for_it,
        explain_api_resources_and_versions_come_from_the_server,
        whoami_names_the_administrator,
        events_are_listed,
        what_components_write_is_recorded_as_theirs,
    );
}

#[test]
fn kubectl_changes_the_cluster() {
    needs!("kubectl");
    let server = with_web("writer");
    claims!(&server;
        apply_creates_configures_and_leaves_alone,
        create_makes_objects_of_every_everyday_kind,
        edit_saves_what_the_editor_wrote,
        the_three_patches_do_what_each_is_for,
        labels_and_annotations_are_added_changed_and_removed,
        scale_changes_the_number_of_pods,
        rollouts_advance_undo_and_restart,
        dry_run_on_the_server_validates_and_keeps_nothing,
        unknown_fields_are_refused_by_the_server,
        delete_removes_and_waits,
    );
}

/// A server with a Deployment `web` of two ready pods and its Service.
fn with_web(node: &str) -> Wherry {
    let server = Wherry::start(node);
    let image = server.image("hello-http");
    server.apply(&served("web", &image, 2));
    rolled_out(&server, "web");
    server
}

fn rolled_out(server: &Wherry, name: &str) {
    let said = server.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]).ok();
    assert!(said.contains("successfully rolled out"), "{said}");
}

fn get(server: &Wherry, what: &[&str]) -> String {
    server.kubectl(&[&["get"], what].concat()).ok()
}

fn jsonpath(server: &Wherry, object: &str, path: &str) -> String {
    get(server, &[object, "-o", &format!("jsonpath={path}")])
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn columns(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn get_prints_tables_wide_yaml_json_and_jsonpath(server: &Wherry) {
    let table = get(server, &["pods"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(columns(lines[0]), ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(columns(lines[1])[1..4], ["1/1", "Running", "0"]);
    let wide = get(server, &["pods", "-o", "wide"]);
    has(&wide, &["IP", "NODE", "NOMINATED NODE", "READINESS GATES", "127.", "reader"]);
    let everything = get(server, &["all"]);
    has(&everything, &["pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-", "80:3"]);
    assert_eq!(columns(get(server, &["deploy", "web", "--no-headers"]).trim())[..4], ["web", "2/2", "2", "2"]);
    let node = get(server, &["nodes"]);
    has(&node, &["reader", "Ready"]);
    has(&get(server, &["pods", "-o", "yaml"]), &["kind: List", "kind: Pod", "podIP: 127."]);
    let list: Value = serde_json::from_str(&get(server, &["deploy,svc", "-o", "json"])).unwrap();
    let kinds: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"Deployment") && kinds.contains(&"Service"), "{kinds:?}");
    assert_eq!(jsonpath(server, "deploy/web", "{.status.readyReplicas}"), "2");
    assert_eq!(get(server, &["deploy", "web", "-o", "name"]).trim(), "deployment.apps/web");
    let missing = server.kubectl(&["get", "pod", "nobody"]).fails();
    assert_eq!(missing.trim(), r#"Error from server (NotFound): pods "nobody" not found"#);
}

fn get_selects_by_label_and_field_and_in_all_namespaces(server: &Wherry) {
    assert_eq!(get(server, &["pods", "-l", "app in (web, other)", "-o", "name"]).lines().count(), 2);
    assert_eq!(get(server, &["pods", "-l", "app!=web", "-o", "name"]), "");
    assert_eq!(
        get(server, &["pods", "--field-selector=status.phase=Running,spec.nodeName=reader", "-o", "name"])
            .lines()
            .count(),
        2
    );
    let everywhere = get(server, &["svc", "-A"]);
    let named: Vec<[&str; 2]> = everywhere.lines().map(columns).map(|c| [c[0], c[1]]).collect();
    assert!(named.contains(&["NAMESPACE", "NAME"]) && named.contains(&["default", "kubernetes"]), "{everywhere}");
    has(&get(server, &["ns"]), &["default", "kube-system", "kube-node-lease", "Active"]);
}

fn get_watches(server: &Wherry) {
    let mut watching = server.follow(&["get", "configmaps", "-w", "-o", "name"]);
    watching.until("the state comes first", |line| line.starts_with("configmap/"));
    server.kubectl_with(&["create", "-f", "-"], &config("watched", json!({}))).ok();
    watching.until("then changes as they happen", |line| line == "configmap/watched");
}

fn describe_tells_a_pods_story(server: &Wherry) {
    let pod = get(server, &["pods", "-l", "app=web", "-o", "name"]).lines().next().unwrap().to_owned();
    let story = eventually("all events are there", || {
        let story = server.kubectl(&["describe", &pod]).ok();
        if story.contains("Started") { Ok(story) } else { Err(story) }
    });
    has(&story, &["Node:", "reader/127.0.0.1", "Status:", "Running", "Controlled By:", "ReplicaSet/web-", "wasm://"]);
    has(&story, &["Scheduled", "Successfully assigned default/web-", "Pulled", "Created", "Started"]);
    has(
        &server.kubectl(&["describe", "deployment", "web"]).ok(),
        &["RollingUpdateStrategy", "2 available", "NewReplicaSet", "ScalingReplicaSet"],
    );
    has(&server.kubectl(&["describe", "service", "web"]).ok(), &["NodePort", "Endpoints:", ":8080"]);
    has(
        &server.kubectl(&["describe", "node", "reader"]).ok(),
        &["Capacity:", "Allocatable:", "KubeletReady", "web-", "Lease:"],
    );
}

/// A pod that writes `lines` lines, this many milliseconds apart, and ends.
fn worker(server: &Wherry, name: &str, lines: u32, pause: u32, policy: &str) {
    let env = json!([{"name": "LINES", "value": lines.to_string()}, {"name": "PAUSE_MS", "value": pause.to_string()},
                     {"name": "GREETING", "value": name}]);
    let image = server.image("worker");
    server.apply(&[pod(name, &image, json!({"env": env}), json!({"restartPolicy": policy}))]);
}

fn logs_are_cut_by_tail_since_and_timestamps(server: &Wherry) {
    worker(server, "talker", 5, 0, "Never");
    server.pod_until("talker", "ends", |pod| pod["status"]["phase"] == "Succeeded");
    let logs = |more: &[&str]| server.kubectl(&[&["logs", "talker"], more].concat()).ok();
    assert_eq!(logs(&[]), "1/5 talker\n2/5 talker\n3/5 talker\n4/5 talker\n5/5 talker\ndone\n");
    assert_eq!(logs(&["--tail=2"]), "5/5 talker\ndone\n");
    assert_eq!(logs(&["--since=1h"]).lines().count(), 6);
    assert_eq!(logs(&["--since-time=2999-01-01T00:00:00Z"]), "");
    let stamped = logs(&["--timestamps", "--tail=1"]);
    let (time, line) = stamped.trim().split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && line == "done", "{stamped}");
    assert_eq!(logs(&["--limit-bytes=4"]), "1/5 ");
    has(&server.kubectl(&["logs", "talker", "-c", "other"]).fails(), &["other"]);
}

fn logs_follow_a_running_container_to_its_end(server: &Wherry) {
    worker(server, "counter", 30, 50, "Never");
    server.pod_until("counter", "runs", |pod| pod["status"]["phase"] != "Pending");
    let mut following = server.follow(&["logs", "-f", "counter"]);
    following.until("lines come while it runs", |line| line == "3/30 counter");
    assert_eq!(following.to_end(), 0);
    assert_eq!(following.seen.last().map(String::as_str), Some("done"));
    assert_eq!(following.seen.len(), 31);
}

fn logs_of_the_previous_run_are_kept(server: &Wherry) {
    worker(server, "again", 1, 0, "Always");
    server.pod_until("again", "was restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    });
    assert_eq!(server.kubectl(&["logs", "again", "--previous"]).ok(), "1/1 again\ndone\n");
    let never = server.kubectl(&["logs", "deployment/web", "--previous"]).fails();
    has(&never, &["previous terminated container", "not found"]);
}

fn a_pods_status_has_the_end_of_its_log_if_it_asks_for_it(server: &Wherry) {
    let image = server.image("worker");
    for (policy, code, message) in
        [("FallbackToLogsOnError", "3", "1/1 brief\ndone\n"), ("FallbackToLogsOnError", "0", ""), ("File", "3", "")]
    {
        let name = format!("{}-{code}", policy.to_lowercase());
        let env = json!([{"name": "EXIT_CODE", "value": code}, {"name": "LINES", "value": "1"}]);
        let container = json!({"args": ["brief"], "env": env, "terminationMessagePolicy": policy});
        server.apply(&[pod(&name, &image, container, json!({"restartPolicy": "Never"}))]);
        let ended = |pod: &Value| pod.pointer("/status/containerStatuses/0/state/terminated").cloned();
        let pod = server.pod_until(&name, "has ended", |pod| ended(pod).is_some());
        assert_eq!(text(&ended(&pod).unwrap(), "/message"), message, "{name}: {:#}", pod["status"]);
    }
}

fn explain_api_resources_and_versions_come_from_the_server(server: &Wherry) {
    let explained = server.kubectl(&["explain", "deployment.spec.strategy.rollingUpdate"]).ok();
    has(&explained, &["GROUP:", "apps", "KIND:", "Deployment", "maxSurge", "maxUnavailable"]);
    has(&server.kubectl(&["explain", "pod", "--recursive"]).ok(), &["containers", "readinessProbe", "<[]Container>"]);
    let resources = server.kubectl(&["api-resources"]).ok();
    has(&resources, &["configmaps", "cm", "deployments", "deploy", "apps/v1", "endpointslices", "leases"]);
    let namespaced = server.kubectl(&["api-resources", "--namespaced=false", "-o", "name"]).ok();
    has(&namespaced, &["namespaces", "nodes"]);
    assert!(!namespaced.contains("pods"));
    has(&server.kubectl(&["api-versions"]).ok(), &["v1", "apps/v1", "coordination.k8s.io/v1", "discovery.k8s.io/v1"]);
    has(&server.kubectl(&["version"]).ok(), &["Server Version: v1.36"]);
    has(&server.kubectl(&["cluster-info"]).ok(), &["control plane", "https://127.0.0.1:"]);
}

fn whoami_names_the_administrator(server: &Wherry) {
    has(&server.kubectl(&["auth", "whoami"]).ok(), &["Username", "Groups", "system:masters", "system:authenticated"]);
    assert_eq!(server.kubectl(&["auth", "can-i", "delete", "nodes"]).stdout.trim(), "yes");
}

fn events_are_listed(server: &Wherry) {
    let events = server.kubectl(&["events", "--for", "deployment/web"]).ok();
    has(&events, &["LAST SEEN", "ScalingReplicaSet", "Deployment/web"]);
    has(&get(server, &["events", "-A"]), &["NAMESPACE", "Scheduled", "pod/web-"]);
}

fn what_components_write_is_recorded_as_theirs(server: &Wherry) {
    let managers = |path: &str| {
        let list = server.api().get(path).ok();
        let items = list["items"].as_array().unwrap().iter();
        let fields = items.flat_map(|item| item["metadata"]["managedFields"].as_array().unwrap());
        fields.map(|of| text(of, "/manager").to_owned()).collect::<BTreeSet<_>>()
    };
    let known = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let pods = "/api/v1/namespaces/default/pods?labelSelector=app=web";
    eventually("the pods' statuses are there", || {
        let managers = managers(pods);
        if managers == known(&["kube-controller-manager", "kubelet"]) { Ok(()) } else { Err(format!("{managers:?}")) }
    });
    let events = managers("/api/v1/namespaces/default/events");
    assert_eq!(events, known(&["kube-controller-manager", "kube-scheduler", "kubelet"]));
}

fn config(name: &str, data: Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string()
}

fn apply_creates_configures_and_leaves_alone(server: &Wherry) {
    let apply = |data: Value| server.kubectl_with(&["apply", "-f", "-"], &config("applied", data)).ok();
    assert_eq!(apply(json!({"a": "1", "b": "2"})), "configmap/applied created\n");
    assert_eq!(apply(json!({"a": "1", "b": "2"})), "configmap/applied unchanged\n");
    server.kubectl(&["patch", "cm", "applied", "--type=merge", "-p", r#"{"data":{"mine":"3"}}"#]).ok();
    assert_eq!(apply(json!({"a": "0"})), "configmap/applied configured\n");
    assert_eq!(jsonpath(server, "cm/applied", "{.data}"), r#"{"a":"0","mine":"3"}"#);
    // A list with merge keys is merged, not replaced.
    let image = server.image("hello-http");
    let web = |env: &str| {
        let mut objects = served("web", &image, 2);
        objects[0]["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": env, "value": "x"}]);
        objects[0].to_string()
    };
    server.kubectl_with(&["apply", "-f", "-"], &web("ONE")).ok();
    server.kubectl(&["set", "env", "deployment/web", "OWN=1"]).ok();
    server.kubectl_with(&["apply", "-f", "-"], &web("TWO")).ok();
    let names = jsonpath(server, "deploy/web", "{.spec.template.spec.containers[0].env[*].name}");
    let mut names: Vec<&str> = names.split(' ').collect();
    names.sort_unstable();
    assert_eq!(names, ["OWN", "TWO"]);
    rolled_out(server, "web");
    has(&server.kubectl_with(&["diff", "-f", "-"], &config("applied", json!({"a": "9"}))).stdout, &["+  a: \"9\""]);
}

fn create_makes_objects_of_every_everyday_kind(server: &Wherry) {
    let create = |args: &[&str]| server.kubectl(&[&["create"], args].concat()).ok();
    assert_eq!(create(&["namespace", "made"]), "namespace/made created\n");
    create(&["configmap", "made", "-n", "made", "--from-literal=a=b"]);
    create(&["secret", "generic", "made", "-n", "made", "--from-literal=password=pw"]);
    let password = get(server, &["secret", "made", "-n", "made", "-o", "jsonpath={.data.password}"]);
    assert_eq!(password, "cHc=");
    create(&["serviceaccount", "made", "-n", "made"]);
    create(&["service", "clusterip", "made", "-n", "made", "--tcp=80:8080"]);
    create(&["deployment", "made", "-n", "made", &format!("--image={}", server.image("hello-http")), "--port=8080"]);
    has(&create(&["token", "made", "-n", "made"]), &["."]);
    let twice = server.kubectl(&["create", "namespace", "made"]).fails();
    assert_eq!(twice.trim(), r#"Error from server (AlreadyExists): namespaces "made" already exists"#);
    let everything = get(server, &["all,cm,secret,sa", "-n", "made", "-o", "name"]);
    has(
        &everything,
        &[
            "deployment.apps/made",
            "service/made",
            "configmap/made",
            "secret/made",
            "serviceaccount/default",
            "configmap/kube-root-ca.crt",
        ],
    );
    server.kubectl(&["delete", "namespace", "made", "--timeout=60s"]).ok();
    let gone = server.kubectl(&["get", "deploy", "-n", "made"]);
    has(&gone.stderr, &["No resources found in made namespace."]);
}

fn edit_saves_what_the_editor_wrote(server: &Wherry) {
    server.kubectl_with(&["create", "-f", "-"], &config("edited", json!({"colour": "red"}))).ok();
    let editor = server.file("editor", "#!/bin/sh\nsed -i 's/colour: red/colour: green/' \"$1\"\n");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let edit = || {
        let mut command = server.kubectl_command(&["edit", "configmap", "edited"]);
        support::run::run(command.env("KUBE_EDITOR", &editor), "")
    };
    has(&edit().ok(), &["configmap/edited edited"]);
    assert_eq!(jsonpath(server, "cm/edited", "{.data.colour}"), "green");
    has(&edit().stderr, &["no changes made"]);
}

fn the_three_patches_do_what_each_is_for(server: &Wherry) {
    let image = server.image("hello-http");
    let mut objects = served("patched", &image, 0);
    objects.truncate(1);
    server.apply(&objects);
    let patch = |kind: &str, patch: Value| {
        server.kubectl(&["patch", "deployment", "patched", "--type", kind, "-p", &patch.to_string()])
    };
    let containers = || jsonpath(server, "deploy/patched", "{.spec.template.spec.containers[*].name}");
    let added = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}});
    patch("strategic", added).ok();
    assert_eq!(containers().split(' ').collect::<BTreeSet<_>>(), ["main", "side"].into());
    patch("strategic", json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "$patch": "delete"}]}}}}))
        .ok();
    assert_eq!(containers(), "main");
    patch("merge", json!({"spec": {"template": {"spec": {"containers": [{"name": "only", "image": "only:1"}]}}}})).ok();
    assert_eq!(containers(), "only");
    patch("json", json!([{"op": "test", "path": "/spec/replicas", "value": 0}, {"op": "replace", "path": "/spec/paused", "value": true}])).fails();
    patch("json", json!([{"op": "add", "path": "/spec/paused", "value": true}])).ok();
    assert_eq!(jsonpath(server, "deploy/patched", "{.spec.paused}"), "true");
    let same = patch("merge", json!({"spec": {"paused": true}})).ok();
    has(&same, &["deployment.apps/patched patched (no change)"]);
    server.kubectl(&["delete", "deployment", "patched"]).ok();
}

fn labels_and_annotations_are_added_changed_and_removed(server: &Wherry) {
    server.kubectl_with(&["create", "-f", "-"], &config("marked", json!({}))).ok();
    has(&server.kubectl(&["label", "cm", "marked", "tier=front"]).ok(), &["labeled"]);
    has(&server.kubectl(&["label", "cm", "marked", "tier=back"]).fails(), &["--overwrite"]);
    server.kubectl(&["label", "cm", "marked", "tier=back", "--overwrite"]).ok();
    assert_eq!(get(server, &["cm", "-l", "tier=back", "-o", "name"]), "configmap/marked\n");
    has(&server.kubectl(&["label", "cm", "marked", "tier-"]).ok(), &["unlabeled"]);
    server.kubectl(&["annotate", "cm", "marked", "note=it's here"]).ok();
    assert_eq!(jsonpath(server, "cm/marked", "{.metadata.annotations.note}"), "it's here");
    server.kubectl(&["annotate", "cm", "marked", "note-"]).ok();
    assert_eq!(jsonpath(server, "cm/marked", "{.metadata.annotations}"), "");
    has(&server.kubectl(&["label", "cm", "marked", "bad label=x"]).fails(), &["bad label"]);
}

fn scale_changes_the_number_of_pods(server: &Wherry) {
    assert_eq!(server.kubectl(&["scale", "deployment/web", "--replicas=4"]).ok(), "deployment.apps/web scaled\n");
    server.kubectl(&["wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=4", "--timeout=60s"]).ok();
    has(
        &server.kubectl(&["scale", "deployment/web", "--current-replicas=9", "--replicas=1"]).fails(),
        &["Expected replicas to be 9, was 4"],
    );
    server.kubectl(&["scale", "deployment/web", "--replicas=2"]).ok();
    eventually("two pods are left", || {
        let pods = get(server, &["pods", "-l", "app=web", "-o", "name"]);
        if pods.lines().count() == 2 { Ok(()) } else { Err(pods) }
    });
}

fn rollouts_advance_undo_and_restart(server: &Wherry) {
    let image = server.image("hello-http");
    server.apply(&served("rolled", &image, 2));
    rolled_out(server, "rolled");
    let url = server.url("rolled");
    eventually("the Service knows its endpoints", || {
        let answer = support::http::text(&url)?;
        if answer.contains("Hello from rolled-") { Ok(()) } else { Err(answer) }
    });
    server.kubectl(&["set", "image", "deployment/rolled", &format!("main={}", server.image("misbehave-http"))]).ok();
    rolled_out(server, "rolled");
    eventually("the new image answers", || match support::http::text(&url)?.as_str() {
        "fine\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    let history = server.kubectl(&["rollout", "history", "deployment/rolled"]).ok();
    assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
    has(&server.kubectl(&["rollout", "history", "deployment/rolled", "--revision=2"]).ok(), &["misbehave-http"]);
    has(&server.kubectl(&["rollout", "undo", "deployment/rolled"]).ok(), &["rolled back"]);
    rolled_out(server, "rolled");
    assert_eq!(jsonpath(server, "deploy/rolled", "{.spec.template.spec.containers[0].image}"), image);
    let before = get(server, &["pods", "-l", "app=rolled", "-o", "name"]);
    has(&server.kubectl(&["rollout", "restart", "deployment/rolled"]).ok(), &["restarted"]);
    rolled_out(server, "rolled");
    eventually("every pod is a new one", || {
        let after = get(server, &["pods", "-l", "app=rolled", "-o", "name"]);
        let old = after.lines().any(|pod| before.contains(pod));
        if !old && after.lines().count() == 2 { Ok(()) } else { Err(after) }
    });
    server.kubectl(&["rollout", "pause", "deployment/rolled"]).ok();
    server.kubectl(&["rollout", "resume", "deployment/rolled"]).ok();
    server.kubectl(&["delete", "deployment,service", "rolled"]).ok();
}

fn dry_run_on_the_server_validates_and_keeps_nothing(server: &Wherry) {
    let said = server.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &config("dry", json!({"a": "b"}))).ok();
    assert_eq!(said, "configmap/dry created (server dry run)\n");
    server.kubectl(&["get", "cm", "dry"]).fails();
    let defaulted =
        server.kubectl(&["create", "deployment", "dry", "--image=dry:1", "--dry-run=server", "-o", "yaml"]).ok();
    has(&defaulted, &["progressDeadlineSeconds: 600", "terminationGracePeriodSeconds: 30", "uid:"]);
    server.kubectl(&["delete", "deployment", "web", "--dry-run=server"]).ok();
    has(&get(server, &["deploy", "-o", "name"]), &["deployment.apps/web"]);
    let bad = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry"}, "spec": {"containers": []}});
    has(
        &server.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &bad.to_string()).fails(),
        &["spec.containers: Required value"],
    );
}

fn unknown_fields_are_refused_by_the_server(server: &Wherry) {
    let mut wrong = served("wrong", "wrong:1", 1).remove(0);
    wrong["spec"]["replicaz"] = json!(3);
    wrong["spec"]["template"]["spec"]["containers"][0]["imagee"] = json!("x");
    let refused = server.kubectl_with(&["apply", "-f", "-"], &wrong.to_string()).fails();
    has(
        &refused,
        &[
            "strict decoding error",
            r#"unknown field "spec.replicaz""#,
            r#"unknown field "spec.template.spec.containers[0].imagee""#,
        ],
    );
    let warned = server.kubectl_with(&["create", "--validate=warn", "-f", "-"], &wrong.to_string());
    has(&warned.stderr, &[r#"Warning: unknown field "spec.replicaz""#]);
    has(&warned.ok(), &["deployment.apps/wrong created"]);
    server.kubectl(&["delete", "deployment", "wrong"]).ok();
}

fn delete_removes_and_waits(server: &Wherry) {
    let image = server.image("hello-http");
    server.apply(&served("doomed", &image, 1));
    rolled_out(server, "doomed");
    let pods = get(server, &["pods", "-l", "app=doomed", "-o", "name"]);
    assert_eq!(server.kubectl(&["delete", "deployment", "doomed"]).ok(), "deployment.apps \"doomed\" deleted\n");
    server.kubectl(&["wait", "--for=delete", pods.trim(), "--timeout=60s"]).ok();
    let own = get(server, &["pods", "-l", "app=web", "-o", "name"]).lines().next().unwrap().to_owned();
    server.kubectl(&["delete", &own, "--timeout=60s"]).ok();
    server.kubectl(&["wait", "deployment/web", "--for=condition=Available", "--timeout=60s"]).ok();
    server.kubectl_with(&["create", "-f", "-"], &config("one", json!({}))).ok();
    server.kubectl(&["label", "cm", "one", "kill=me"]).ok();
    assert_eq!(server.kubectl(&["delete", "cm", "-l", "kill=me"]).ok(), "configmap \"one\" deleted\n");
    assert_eq!(server.kubectl(&["delete", "cm", "one", "--ignore-not-found"]).ok(), "");
    has(&server.kubectl(&["delete", "cm", "one"]).fails(), &[r#"configmaps "one" not found"#]);
}
