//! What a Service promises the host: its port is open from its first moment to its last, whatever happens to it and to the
//! pods behind it meanwhile.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::{Value, json};
use support::server::{node_port, served};
use support::{Wherry, eventually, http};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const SERVICE: &str = "/api/v1/namespaces/default/services/web";

/// Clients that ask without rest, each time on a connection of its own.
struct Clients {
    stop: Arc<AtomicBool>,
    began: Instant,
    threads: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Clients {
    fn start(url: &str, number: usize) -> Self {
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let threads = (0..number).map(|_| {
            let (stop, url) = (Arc::clone(&stop), url.to_owned());
            std::thread::spawn(move || {
                let (mut answered, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match http::text(&url) {
                        Ok(_) => answered += 1,
                        Err(error) => failed.push(format!("{:?}: {error}", began.elapsed())),
                    }
                }
                (answered, failed)
            })
        });
        Self { threads: threads.collect(), stop, began }
    }

    /// Tells in the output of a test that fails what was done when.
    fn step(&self, what: &str) {
        eprintln!("{:?}: {what}", self.began.elapsed());
    }

    /// How many requests were answered; none may have failed.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let failed: Vec<&String> = ended.iter().flat_map(|(_, failed)| failed).collect();
        let answered = ended.iter().map(|(answered, _)| answered).sum();
        assert!(failed.is_empty(), "{} of {} requests failed: {:?}", failed.len(), answered + failed.len(), failed[0]);
        answered
    }
}

fn ready(server: &Wherry, replicas: u64) {
    eventually("all copies are ready, and no others are left", || {
        let deployment = server.api().get(DEPLOYMENT).ok();
        let status = &deployment["status"];
        let seen = status["observedGeneration"] == deployment["metadata"]["generation"];
        let counts = ["replicas", "readyReplicas", "updatedReplicas"].map(|field| status[field].as_u64().unwrap_or(0));
        (seen && counts == [replicas; 3]).then_some(()).ok_or_else(|| status.to_string())
    });
}

fn patch(server: &Wherry, path: &str, patch: &Value) {
    server.api().patch(path, "merge", patch).ok();
}

#[test]
fn no_connection_is_lost_while_a_service_and_its_pods_change() {
    let server = Wherry::start("host");
    server.apply(&served("web", &server.image("hello-http"), 3));
    ready(&server, 3);
    let url = server.url("web");
    eventually("it answers", || http::text(&url));
    let clients = Clients::start(&url, 3);
    for round in 0..3 {
        // What nobody looks at, another port, and that port gone again.
        clients.step("the Service changes");
        for n in 0..10 {
            patch(&server, SERVICE, &json!({"metadata": {"annotations": {"round": format!("{round}.{n}")}}}));
        }
        let kept = json!({"name": "", "port": 80, "targetPort": 8080, "nodePort": port(&url)});
        let mut named = kept.clone();
        named["name"] = "main".into();
        patch(&server, SERVICE, &json!({"spec": {"ports": [named, {"name": "more", "port": 81, "targetPort": 8080}]}}));
        patch(&server, SERVICE, &json!({"spec": {"ports": [kept]}}));
        // Fewer, more, and all replaced.
        clients.step("one copy");
        patch(&server, DEPLOYMENT, &json!({"spec": {"replicas": 1}}));
        ready(&server, 1);
        clients.step("four copies");
        patch(&server, DEPLOYMENT, &json!({"spec": {"replicas": 4}}));
        ready(&server, 4);
        clients.step("all copies are replaced");
        let restarted = json!({"restarted": round.to_string()});
        patch(&server, DEPLOYMENT, &json!({"spec": {"template": {"metadata": {"annotations": restarted}}}}));
        ready(&server, 4);
    }
    let answered = clients.finish();
    assert!(answered > 100, "{answered} requests are too few to tell");
    eprintln!("{answered} requests were answered");
}

fn port(url: &str) -> u16 {
    url::Url::parse(url).unwrap().port().unwrap()
}

#[test]
fn a_port_that_goes_from_one_service_to_another_opens_again_at_once() {
    let server = Wherry::start("host");
    server.apply(&served("web", &server.image("hello-http"), 1));
    ready(&server, 1);
    let url = server.url("web");
    eventually("it answers", || http::text(&url));
    let mut other = node_port("other");
    other["spec"]["selector"]["app"] = "web".into();
    other["spec"]["ports"][0]["nodePort"] = port(&url).into();
    server.api().delete(SERVICE).ok();
    server.apply(&[other]);
    eventually("the other answers on the same port", || http::text(&url));
    assert!(!server.log().contains("a Service's port cannot be opened"), "{}", server.log());
}

#[test]
fn node_ports_are_this_machines_alone_unless_they_are_asked_to_be_more() {
    for (more, elsewhere) in [(&[][..], false), (&["--nodeport-address", "0.0.0.0"], true)] {
        let mut server = Wherry::prepare("host");
        server.up(&[&["--quiet"], more].concat());
        server.apply(&served("web", &server.image("hello-http"), 1));
        ready(&server, 1);
        let url = server.url("web");
        eventually("it answers", || http::text(&url));
        // Another address of this machine, which only a port on all of them has.
        let other = std::net::TcpStream::connect(("127.0.0.2", port(&url)));
        assert_eq!(other.is_ok(), elsewhere, "{more:?}");
    }
}

#[test]
fn services_have_their_addresses_as_objects_and_in_other_ranges_too() {
    needs!("kubectl");
    let server = Wherry::start("host");
    let table = server.kubectl(&["get", "ipaddress,servicecidr"]).ok();
    let kubernetes = server.api().get("/api/v1/namespaces/default/services/kubernetes").ok();
    let address = kubernetes["spec"]["clusterIP"].as_str().unwrap();
    let row = |table: &str, name: &str| -> Vec<String> {
        let found = table.lines().find(|line| line.starts_with(&format!("{name} ")));
        found.unwrap_or_else(|| panic!("no {name} in:\n{table}")).split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(
        row(&table, &format!("ipaddress.networking.k8s.io/{address}"))[1],
        "services/default/kubernetes",
        "{table}"
    );
    assert!(row(&table, "servicecidr.networking.k8s.io/kubernetes")[1].ends_with(".0.0/16"), "{table}");

    let range = |name: &str, cidr: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
            "spec": {"cidrs": [cidr]}})
    };
    let refused = server.kubectl_with(&["create", "-f", "-"], &range("pods", "127.64.0.0/16").to_string()).fails();
    assert!(refused.contains("which the nodes' network uses itself"), "{refused}");
    server.apply(&[range("near", "127.222.0.0/24"), range("far", "203.0.113.0/24")]);
    server.kubectl(&["wait", "--for=condition=Ready", "servicecidr", "--all", "--timeout=30s"]).ok();

    // The host reaches a Service in loopback, guests reach one anywhere.
    let mut near = node_port("web");
    near["spec"]["clusterIP"] = "127.222.0.10".into();
    near["spec"]["ports"][0]["port"] = 8088.into();
    let mut web = served("web", &server.image("hello-http"), 1);
    web.retain(|object| object["kind"] != "Service");
    web.push(near);
    server.apply(&web);
    ready(&server, 1);
    eventually("the host reaches it by its address", || http::text("http://127.222.0.10:8088"));
    let guestbook = support::manifest("guestbook.yaml");
    let far = guestbook.replacen(
        "spec:\n  selector:\n    app: guestbook\n    tier: store",
        "spec:\n  clusterIP: 203.0.113.10\n  selector:\n    app: guestbook\n    tier: store",
        2,
    );
    assert_ne!(far, guestbook);
    server.wherry_with(&["apply", "-f", "-"], &far).ok();
    assert_eq!(
        server.api().get("/api/v1/namespaces/default/services/guestbook-store").ok()["spec"]["clusterIP"],
        "203.0.113.10"
    );
    let url = server.url("guestbook");
    eventually("a guest reaches the other by its name", || {
        let answer = http::post(&url, "hello")?;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    });

    server.kubectl(&["delete", "servicecidr", "far", "--wait=false"]).ok();
    let condition = "jsonpath={.status.conditions[0].reason}: {.status.conditions[0].message}";
    eventually("it says what it waits for", || {
        let said = server.kubectl(&["get", "servicecidr", "far", "-o", condition]).ok();
        if said.starts_with("Terminating: There are still IPAddresses") { Ok(()) } else { Err(said) }
    });
    server.kubectl(&["delete", "service", "guestbook-store"]).ok();
    server.kubectl(&["wait", "--for=delete", "servicecidr/far", "--timeout=30s"]).ok();
    server.kubectl(&["delete", "service", "web"]).ok();
    let table = server.kubectl(&["get", "ipaddress", "--no-headers"]).ok();
    assert_eq!(table.lines().filter(|line| line.contains("services/default/")).count(), 2, "{table}");
}
