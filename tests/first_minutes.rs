//! A user's first ten minutes: one command from a manifest to an answer, and back again after every way of stopping.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::server::{is_ready, text};
use support::{Wherry, eventually, http, root};

/// The node port that the manifest names, unless somebody on this machine has it.
fn port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::once(30080).chain(30200..30300).find(free).unwrap()
}

#[test]
fn one_command_brings_hello_up_and_it_survives_ctrl_c_and_kill_9() {
    let mut server = Wherry::prepare("boat").without_rights();
    let port = port();
    let url = &format!("http://127.0.0.1:{port}");
    let text = std::fs::read_to_string(root().join("manifests/hello.yaml")).unwrap();
    let text = text.replace("../examples-wasm", &root().join("examples-wasm").display().to_string());
    assert!(text.contains("nodePort: 30080"));
    let manifest = server.file("hello.yaml", text.replace("nodePort: 30080", &format!("nodePort: {port}")));
    let manifest = manifest.display().to_string();
    server.up(&["-f", &manifest]);
    let said = eventually("the pods and the URL are printed", || {
        let said = server.stdout();
        if said.contains(url.as_str()) { Ok(said) } else { Err(format!("{said}{}", server.log())) }
    });
    let first = pods(&server);
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|(name, _)| said.contains(name.as_str())), "every pod is printed: {said}");
    assert_eq!(answering(url), names(&first));
    let code = compiled(&server);
    assert_eq!(code.len(), 1, "one image, compiled once: {code:?}");

    let (status, took) = server.interrupt();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < Duration::from_secs(15), "it drained for {took:?}");
    assert!(http::get(url).is_err(), "nobody listens any more");

    server.up(&["--quiet"]);
    found_again(&server, &first, url);
    eventually("the restart is recorded", || {
        let all = statuses(&server);
        if all.iter().all(|status| status["restartCount"] == 1) { Ok(()) } else { Err(format!("{all:?}")) }
    });

    server.kill();
    server.up(&["--quiet"]);
    found_again(&server, &first, url);
    for status in statuses(&server) {
        assert_eq!(status["restartCount"], 2, "one for each way of stopping: {status:#}");
        assert_eq!(status["lastState"]["terminated"]["reason"], "Unknown");
    }

    server.kill();
    server.forget_output();
    server.up(&["-f", &manifest]);
    eventually("the manifest is found as it was", || {
        if server.stdout().contains(url.as_str()) { Ok(()) } else { Err(server.log()) }
    });
    found_again(&server, &first, url);
    assert_eq!(compiled(&server), code, "what is compiled is found on disk, not made again");
    let deployment = server.api().get("/apis/apps/v1/namespaces/default/deployments/hello").ok();
    assert_eq!(deployment["metadata"]["generation"], 1, "applying the same again changes nothing");
}

/// The status of each pod's container.
fn statuses(server: &Wherry) -> Vec<Value> {
    let list = server.api().get("/api/v1/namespaces/default/pods?labelSelector=app%3Dhello").ok();
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    pods.iter().map(|pod| pod["status"]["containerStatuses"][0].clone()).collect()
}

#[test]
fn a_node_port_that_somebody_has_is_not_shown_as_a_url() {
    let mut server = Wherry::prepare("boat");
    let held = (31000..32000).find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok()).unwrap();
    let port = held.local_addr().unwrap().port();
    let service = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    // An address that is nobody's: without an endpoint the port would be refused.
    let slice = serde_json::json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}]});
    let manifest = server.file("service.yaml", format!("{service}\n---\n{slice}")).display().to_string();
    server.up(&["-f", &manifest]);
    let said = eventually("what stands in the way is said", || {
        let said = server.log();
        if said.contains("cannot be reached at port") { Ok(said) } else { Err(said) }
    });
    for part in ["Service default/web", &port.to_string(), "stop what has"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!server.stdout().contains("http://"), "{}", server.stdout());
    drop(held);
    eventually("the port is opened once it is free", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
    });
    let mut second = server.up_command(&["--quiet"]);
    let second = second.output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another `wherry up` runs on") && said.contains("wherry apply -f FILE"), "{said}");
}

#[test]
fn of_a_pod_that_ends_again_and_again_the_reason_and_its_last_words_are_told() {
    let mut server = Wherry::prepare("boat");
    let image = root().join("examples-wasm/prebuilt/worker.wasm").display().to_string();
    let env = serde_json::json!([{"name": "EXIT_CODE", "value": "3"}, {"name": "PAUSE_MS", "value": "0"}]);
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "quitter"},
        "spec": {"containers": [{"name": "main", "image": image, "env": env}]}});
    let manifest = server.file("pod.yaml", pod.to_string()).display().to_string();
    server.up(&["-f", &manifest]);
    let said = eventually("it is told", || {
        let said = server.log();
        if said.contains("\n    done\n") { Ok(said) } else { Err(said) }
    });
    let told = "! pod quitter: container main ended with exit code 3 (Error";
    assert_eq!(said.matches(told).count(), 1, "{said}");
    let after = said.split(told).nth(1).unwrap_or_default();
    let lines: Vec<&str> = after.lines().filter(|line| line.starts_with("    ")).collect();
    assert_eq!(lines.len(), 4, "{said}");
}

#[test]
fn a_request_to_stop_that_comes_twice_at_once_is_one() {
    let mut server = Wherry::prepare("boat");
    server.up(&[]);
    // As `timeout` and terminals do it: one signal to the process, and one to its group.
    server.signal(Signal::TERM);
    let (status, _) = server.interrupt();
    assert!(status.success(), "{status}");
    let said = server.log();
    assert!(said.contains("stopped") && !said.contains("at once"), "{said}");
}

#[test]
fn what_up_takes_over_from_others_it_names() {
    let mut server = Wherry::prepare("boat");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"a": "1"}});
    let manifest = server.file("map.yaml", map.to_string()).display().to_string();
    let log_has = |server: &Wherry, words: &str| {
        eventually(words, || if server.log().contains(words) { Ok(()) } else { Err(server.log()) });
    };
    server.up(&["-f", &manifest]);
    log_has(&server, "configmap shared created");
    let path = "/api/v1/namespaces/default/configmaps/shared";
    let theirs = json!({"data": {"a": "2", "b": "2"}});
    let patch = format!("{path}?fieldManager=their-tool");
    server.api().send("PATCH", &patch, "application/merge-patch+json", theirs.to_string()).ok();
    server.interrupt();
    server.forget_output();
    server.up(&["-f", &manifest]);
    log_has(&server, "configmap shared configured, took over data.a (from their-tool using v1)");
    assert_eq!(server.api().get(path).ok()["data"], json!({"a": "1", "b": "2"}));
}

#[test]
fn a_cause_that_pods_share_is_said_once() {
    let mut server = Wherry::prepare("boat");
    let pod = |name: &str| {
        let containers = json!([{"name": "main", "image": "127.0.0.1:1/team/app:v1"}]);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}})
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [pod("first"), pod("second")]});
    let manifest = server.file("pods.yaml", list.to_string()).display().to_string();
    server.up(&["-f", &manifest]);
    let said = eventually("what is waited for is told", || {
        let said = server.log();
        if said.contains("… pods first pending, second pending (2 pods as said above)") {
            Ok(said)
        } else {
            Err(said)
        }
    });
    let cause = "127.0.0.1:1 cannot be reached: the connection was refused";
    let told: Vec<&str> = said.lines().filter(|line| line.starts_with("! ") && line.contains(cause)).collect();
    assert_eq!(told.len(), 1, "{said}");
    let (one, other) = if told[0].starts_with("! pod first:") { ("first", "second") } else { ("second", "first") };
    assert_eq!(said.matches(&format!("! pod {other}: the same as pod {one}\n")).count(), 1, "{said}");
}

#[test]
fn up_says_which_pods_of_before_do_not_run() {
    let mut server = Wherry::start("boat");
    let image = server.image("hello-http");
    for (name, policy) in [("pulls", "IfNotPresent"), ("never", "Never")] {
        let containers = json!([{"name": "main", "image": image, "imagePullPolicy": policy}]);
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}});
        server.wherry_with(&["apply", "-f", "-"], &pod.to_string()).ok();
        server.pod_ready(name);
    }
    server.kill();
    // What the node knew of images is lost: one pod has its image again, the other may not ask for it.
    std::fs::remove_dir_all(server.data_dir().join("images/references")).unwrap();
    server.up(&[]);
    let said = eventually("the one is told of", || {
        let said = server.log();
        if said.contains("\u{2717} pods that ran before do not run yet: ") { Ok(said) } else { Err(said) }
    });
    assert!(said.contains("do not run yet: default/never"), "{said}");
}

/// Everything is as it was: the same objects, ready again, nothing compiled.
fn found_again(server: &Wherry, first: &BTreeSet<(String, String)>, url: &str) {
    assert_eq!(pods(server), *first, "the same names and uids");
    assert_eq!(answering(url), names(first));
}

/// Names and uids, once all are ready in this process' life.
fn pods(server: &Wherry) -> BTreeSet<(String, String)> {
    let api = server.api();
    eventually("three pods are ready", || {
        let list = api.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dhello").ok();
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let identity = |pod: &Value| (text(pod, "/metadata/name").to_owned(), text(pod, "/metadata/uid").to_owned());
        if pods.len() == 3 && pods.iter().all(is_ready) {
            Ok(pods.iter().map(identity).collect())
        } else {
            Err(list.to_string())
        }
    })
}

fn names(pods: &BTreeSet<(String, String)>) -> BTreeSet<String> {
    pods.iter().map(|(name, _)| name.clone()).collect()
}

/// Who answers at the URL, once three different ones have.
fn answering(url: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    eventually("all three pods answer", || {
        let said = http::text(url)?;
        seen.insert(said.trim().strip_prefix("Hello from ").ok_or(said.clone())?.to_owned());
        if seen.len() >= 3 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    seen
}

/// The compiled code on disk, and when each file was written.
fn compiled(server: &Wherry) -> BTreeMap<PathBuf, SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![server.data_dir()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "cwasm") {
                found.insert(path, entry.metadata().unwrap().modified().unwrap());
            }
        }
    }
    found
}
