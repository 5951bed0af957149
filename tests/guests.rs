//! Guests of every form run, reach each other and nothing else; and a guest that misbehaves costs its own share and no
//! one else's.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::server::{node_port, pod, served, text};
use support::{Wherry, eventually, http, manifest, within};

/// An answer that takes longer was held up by another guest; a machine that is merely busy is quicker.
const HELD_UP: Duration = Duration::from_secs(10);

#[test]
fn guests_run_and_talk_to_each_other() {
    needs!("kubectl");
    let server = Wherry::start("host");
    claims!(&server;
        a_worker_reads_its_settings_logs_and_completes,
        an_exit_code_is_kept_and_failure_is_shown,
        a_preview_1_core_module_runs,
        a_wasi_0_3_component_serves,
        the_environment_has_what_the_pod_says_and_nothing_else,
        the_guestbook_talks_over_service_names_and_localhost,
        a_guest_cannot_reach_the_hosts_own_ports,
    );
}

#[test]
fn misbehaving_guests_cost_only_their_share() {
    needs!("kubectl");
    let server = Wherry::start("host");
    server.apply(&served("good", &server.image("hello-http"), 2));
    let url = server.url("good");
    eventually("the good one answers", || http::text(&url));
    claims!(&server;
        a_request_that_traps_is_a_500_and_the_pod_lives,
        a_command_that_exits_1_is_restarted_with_backoff,
        a_command_that_traps_says_so,
        one_that_allocates_without_end_is_oom_killed,
        one_that_loops_leaves_room_and_dies_when_deleted,
        one_that_floods_its_log_fills_no_disk,
        all_at_once_and_the_good_one_still_answers,
    );
}

fn terminated(pod: &Value) -> Value {
    pod.pointer("/status/containerStatuses/0/state/terminated").cloned().unwrap_or_default()
}

/// A pod that runs `misbehave` with this argument.
fn misbehaving(server: &Wherry, name: &str, what: &str, policy: &str) -> Value {
    let limits = json!({"limits": {"memory": "48Mi"}});
    let container = json!({"args": [what], "resources": limits});
    pod(name, &server.image("misbehave"), container, json!({"restartPolicy": policy}))
}

fn a_worker_reads_its_settings_logs_and_completes(server: &Wherry) {
    server.wherry_with(&["apply", "-f", "-"], &manifest("worker.yaml")).ok();
    let pod = server.pod_until("worker", "completes", |pod| pod["status"]["phase"] == "Succeeded");
    let end = terminated(&pod);
    assert_eq!((end["exitCode"].as_i64(), text(&end, "/reason")), (Some(0), "Completed"));
    assert!(text(&end, "/startedAt") <= text(&end, "/finishedAt"));
    assert_eq!(server.kubectl(&["logs", "worker", "--tail=2"]).ok(), "5/5 all hands on deck\ndone\n");
    let row = server.kubectl(&["get", "pod", "worker", "--no-headers"]).ok();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[..4], ["worker", "0/1", "Completed", "0"]);
}

fn an_exit_code_is_kept_and_failure_is_shown(server: &Wherry) {
    let env = json!([{"name": "EXIT_CODE", "value": "3"}, {"name": "LINES", "value": "1"}]);
    server.apply(&[pod("three", &server.image("worker"), json!({"env": env}), json!({"restartPolicy": "Never"}))]);
    let pod = server.pod_until("three", "fails", |pod| pod["status"]["phase"] == "Failed");
    let end = terminated(&pod);
    assert_eq!((end["exitCode"].as_i64(), text(&end, "/reason")), (Some(3), "Error"));
    assert!(server.kubectl(&["get", "pod", "three", "--no-headers"]).ok().contains(" Error "));
}

fn a_preview_1_core_module_runs(server: &Wherry) {
    server.apply(&[misbehaving(server, "module", "nothing-known", "Never")]);
    let pod = server.pod_until("module", "ends", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(terminated(&pod)["exitCode"], 2);
    let log = server.kubectl(&["logs", "module"]).ok();
    assert!(
        log.contains("misbehaving: nothing-known\n") && log.contains("unknown argument \"nothing-known\""),
        "{log}"
    );
}

fn a_wasi_0_3_component_serves(server: &Wherry) {
    server.apply(&served("p3", &server.image("hello-http-p3"), 1));
    let url = server.url("p3");
    let said = eventually("it answers", || http::text(&url));
    assert!(said.starts_with("Hello from p3-"), "{said}");
}

fn the_environment_has_what_the_pod_says_and_nothing_else(server: &Wherry) {
    server.apply(&[
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "words"}, "stringData": {"greeting": "ahoy"}}),
        pod(
            "told",
            &server.image("worker"),
            json!({"env": [
                {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "words", "key": "greeting"}}},
                {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "GREETING", "value": "$(WORD) from $(ME) at $(KUBERNETES_SERVICE_PORT) $$(WORD) $(HOME)"},
                {"name": "LINES", "value": "1"},
            ]}),
            json!({"restartPolicy": "Never"}),
        ),
        pod(
            "untold",
            &server.image("worker"),
            json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "nowhere", "key": "x"}}}]}),
            json!({}),
        ),
    ]);
    server.pod_until("told", "ends", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(server.kubectl(&["logs", "told"]).ok(), "1/1 ahoy from told at 443 $(WORD) $(HOME)\ndone\n");
    server.pod_until("untold", "says what is missing", |pod| {
        let waiting = pod.pointer("/status/containerStatuses/0/state/waiting").cloned().unwrap_or_default();
        text(&waiting, "/reason") == "CreateContainerConfigError"
            && text(&waiting, "/message").contains("configmap \"nowhere\" not found")
    });
}

fn the_guestbook_talks_over_service_names_and_localhost(server: &Wherry) {
    server.wherry_with(&["apply", "-f", "-"], &manifest("guestbook.yaml")).ok();
    for name in ["guestbook-store", "guestbook"] {
        server.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"]).ok();
    }
    let url = server.url("guestbook");
    let said = eventually("an entry is written, filtered and kept", || {
        let answer = http::post(&url, "well, heck")?;
        if answer.status == 200 { Ok(answer.text()) } else { Err(answer.text()) }
    });
    assert!(said.ends_with("well, ****\n"), "the sidecar starred it out: {said}");
    for _ in 0..4 {
        assert!(http::text(&url).unwrap().contains("well, ****"), "either front end reads the same store");
    }
    assert_eq!(http::post(&url, "").unwrap().status, 400);
    let answer = what_is_under_way_when_its_pods_are_deleted(server, url.trim_start_matches("http://"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("oh, ****\n"), "its sidecar answered: {answer}");
}

/// The answer to a request whose body comes in two parts, between which all front ends are deleted.
fn what_is_under_way_when_its_pods_are_deleted(server: &Wherry, address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: guestbook\r\nConnection: close\r\nContent-Length: 8\r\n\r\noh, ";
    stream.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    server.kubectl(&["delete", "pods", "-l", "app=guestbook,tier=front", "--wait=false"]).ok();
    std::thread::sleep(Duration::from_millis(1500));
    stream.write_all(b"heck").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn a_guest_cannot_reach_the_hosts_own_ports(server: &Wherry) {
    let secret = TcpListener::bind("0.0.0.0:0").unwrap();
    secret.set_nonblocking(true).unwrap();
    let port = secret.local_addr().unwrap().port();
    let api = server.api().client.default_namespace().to_owned();
    assert_eq!(api, "default");
    let mut objects = Vec::new();
    let hosts = ["127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0", "169.254.169.254"];
    for (index, host) in hosts.iter().enumerate() {
        let name = format!("spy{index}");
        let env = json!([{"name": "STORE_URL", "value": format!("http://{host}:{port}/")}]);
        let container = json!({"env": env, "ports": [{"name": "http", "containerPort": 8080}]});
        objects.push(pod(&name, &server.image("guestbook"), container, json!({})));
        objects.push(node_port(&name));
    }
    server.apply(&objects);
    #[allow(clippy::needless_range_loop)]
    for index in 0..hosts.len() {
        let name = format!("spy{index}");
        server.pod_ready(&name);
        let url = server.url(&name);
        let answer = eventually("the spy answers", || http::get(&url));
        assert_eq!(answer.status, 502, "{}: {}", hosts[index], answer.text());
        assert!(secret.accept().is_err(), "{} led to the host", hosts[index]);
    }
}

fn good_answers(server: &Wherry, times: u32) -> Duration {
    let url = server.url("good");
    let slowest = (0..times).map(|_| {
        let began = Instant::now();
        assert!(http::text(&url).unwrap().starts_with("Hello from good-"));
        began.elapsed()
    });
    slowest.max().unwrap()
}

fn a_request_that_traps_is_a_500_and_the_pod_lives(server: &Wherry) {
    server.apply(&served("touchy", &server.image("misbehave-http"), 1));
    let url = server.url("touchy");
    assert_eq!(eventually("it answers", || http::text(&url)), "fine\n");
    for _ in 0..3 {
        let answer = http::get(&format!("{url}/trap")).unwrap();
        assert_eq!(answer.status, 500, "{}", answer.text());
    }
    assert_eq!(http::text(&url).unwrap(), "fine\n");
    let pods = server.kubectl(&["get", "pods", "-l", "app=touchy", "--no-headers"]).ok();
    let row: Vec<&str> = pods.split_whitespace().collect();
    assert_eq!(row[1..4], ["1/1", "Running", "0"]);
}

fn a_command_that_exits_1_is_restarted_with_backoff(server: &Wherry) {
    server.apply(&[misbehaving(server, "quitter", "exit", "Always")]);
    let pod = server.pod_until("quitter", "is in CrashLoopBackOff", |pod| {
        text(pod, "/status/containerStatuses/0/state/waiting/reason") == "CrashLoopBackOff"
    });
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(text(status, "/lastState/terminated/reason"), "Error");
    assert!(status["restartCount"].as_u64() >= Some(1), "{status:#}");
    assert!(
        text(status, "/state/waiting/message").contains("back-off 10s restarting failed container=main"),
        "{status:#}"
    );
    server.event_until("quitter", &["BackOff", "Back-off restarting failed container main"]);
    server.kubectl(&["delete", "pod", "quitter", "--timeout=20s"]).ok();
}

fn a_command_that_traps_says_so(server: &Wherry) {
    server.apply(&[misbehaving(server, "trapped", "trap", "Never")]);
    let pod = server.pod_until("trapped", "fails", |pod| pod["status"]["phase"] == "Failed");
    let end = terminated(&pod);
    assert_eq!((end["exitCode"].as_i64(), text(&end, "/reason")), (Some(134), "Error"), "{end}");
    assert!(text(&end, "/message").contains("out of bounds memory access"), "{end}");
}

fn one_that_allocates_without_end_is_oom_killed(server: &Wherry) {
    server.apply(&[misbehaving(server, "greedy", "allocate", "Never")]);
    let pod = server.pod_until("greedy", "ends", |pod| pod["status"]["phase"] == "Failed");
    let end = terminated(&pod);
    assert_eq!((end["exitCode"].as_i64(), text(&end, "/reason")), (Some(137), "OOMKilled"), "{end}");
    assert!(server.kubectl(&["get", "pod", "greedy"]).ok().contains("OOMKilled"));
}

fn one_that_loops_leaves_room_and_dies_when_deleted(server: &Wherry) {
    server.apply(&[misbehaving(server, "looper", "loop", "Always")]);
    server.pod_ready("looper");
    let slowest = good_answers(server, 50);
    assert!(slowest < HELD_UP, "the slowest answer took {slowest:?}");
    let began = Instant::now();
    server.kubectl(&["delete", "pod", "looper", "--timeout=30s"]).ok();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "deleting it took {took:?} of a grace of 2 s");
}

/// Bytes of a folder's files.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) })
        .sum()
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            if entry.path().is_dir() {
                files(&entry.path())
            } else {
                [entry.file_name().to_string_lossy().into_owned()].into()
            }
        })
        .collect()
}

fn one_that_floods_its_log_fills_no_disk(server: &Wherry) {
    server.apply(&[misbehaving(server, "flooder", "flood", "Always")]);
    let uid = text(&server.pod_ready("flooder"), "/metadata/uid").to_owned();
    let folder = server.data_dir().join("pods").join(format!("default_flooder_{uid}"));
    let kept = within(Duration::from_secs(120), "its log is rotated", || {
        let names = files(&folder);
        if names.len() >= 3 { Ok(names) } else { Err(format!("{names:?}, {} bytes", size(&folder))) }
    });
    let slowest = good_answers(server, 50);
    assert!(slowest < HELD_UP, "the slowest answer took {slowest:?}");
    assert!(size(&folder) <= 55 << 20, "{kept:?} hold {} bytes", size(&folder));
    // What is written while it is read may follow.
    let tail = server.kubectl(&["logs", "flooder", "--tail=3"]).ok();
    let flood = |line: &str| line.starts_with("line ") && line.ends_with("a flood that says nothing and does not end");
    assert!(tail.lines().count() >= 3 && tail.lines().all(flood), "{}", tail.lines().take(10).collect::<String>());
    server.kubectl(&["delete", "pod", "flooder", "--timeout=30s"]).ok();
    eventually("its log goes with it", || if folder.exists() { Err(folder.display().to_string()) } else { Ok(()) });
}

fn all_at_once_and_the_good_one_still_answers(server: &Wherry) {
    let bad = [("all-loop", "loop"), ("all-flood", "flood"), ("all-allocate", "allocate")];
    server.apply(&bad.map(|(name, what)| misbehaving(server, name, what, "Always")));
    server.pod_ready("all-loop");
    server.pod_ready("all-flood");
    let slowest = good_answers(server, 100);
    assert!(slowest < HELD_UP, "the slowest answer took {slowest:?}");
    for (name, _) in bad {
        server.kubectl(&["delete", "pod", name, "--timeout=30s"]).ok();
    }
}
