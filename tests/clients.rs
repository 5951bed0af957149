//! Programs of others work: those written with the official clients of other languages, of which `tests/clients/` has a
//! session each, and Helm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use support::run::{Following, run};
use support::{Wherry, absent, root};

fn folder(client: &str) -> PathBuf {
    root().join("tests/clients").join(client)
}

/// Runs a session to its end; in its midst it asks for a restart of the server, and for a ConfigMap after that.
fn session(client: &str, command: &mut Command) {
    let mut server = Wherry::start("quay");
    command.env("KUBECONFIG", server.kubeconfig()).env("IMAGE", server.image("worker"));
    let mut session = Following::start(command.current_dir(folder(client)));
    session.until("it wants the server restarted", |line| line == "restart the server");
    server.restart();
    let late = json!({"metadata": {"name": "after-restart", "labels": {"made-by": client}}});
    server.api().post(&format!("/api/v1/namespaces/{client}/configmaps"), &late).ok();
    let code = session.to_end();
    eprintln!("{}", session.seen.join("\n"));
    assert_eq!(code, 0, "claims of the session do not hold");
}

#[test]
fn the_python_client_works() {
    needs!("python3");
    let installed = run(Command::new("python3").args(["-c", "import kubernetes"]), "").code == 0;
    if absent("the Python package `kubernetes`", installed) {
        return;
    }
    session("python", Command::new("python3").args(["-B", "session.py"]));
}

#[test]
fn the_javascript_client_works() {
    needs!("node");
    if absent("`npm install` in tests/clients/node", folder("node").join("node_modules").is_dir()) {
        return;
    }
    session("node", Command::new("node").arg("session.mjs"));
}

#[test]
fn helm_installs_upgrades_tests_and_removes_a_chart() {
    needs!("helm", "kubectl");
    let server = Wherry::start("quay");
    let chart = folder("helm").join("chart").display().to_string();
    let helm = |args: &[&str]| {
        let mut command = Command::new("helm");
        command.args(args).env("KUBECONFIG", server.kubeconfig()).env("HOME", server.home());
        run(&mut command, "")
    };
    let (web, test) = (server.image("hello-http"), server.image("worker"));
    let images = format!("image={web},testImage={test}");
    let installed = helm(&["install", "ferry", &chart, "--set", &images, "--wait", "--timeout", "2m"]).ok();
    assert!(installed.contains("ferry sails on Kubernetes v1.36"), "{installed}");
    server.kubectl(&["get", "route.ferry.example.com/ferry", "serviceaccount/ferry"]).ok();
    let count =
        |what: &str| server.kubectl(&["get", "deployment", "ferry", "-o", &format!("jsonpath={{{what}}}")]).ok();
    let upgrade = |more: &[&str]| {
        helm(&[&["upgrade", "ferry", &chart, "--reuse-values", "--wait", "--timeout", "2m"], more].concat())
    };
    upgrade(&["--set", "replicas=2,greeting=hi"]).ok();
    assert_eq!(count(".status.readyReplicas"), "2");
    let tested = helm(&["test", "ferry", "--timeout", "2m"]).ok();
    assert!(tested.contains("Phase:          Succeeded"), "{tested}");
    server.kubectl(&["scale", "deployment", "ferry", "--replicas=3"]).ok();
    let said = upgrade(&["--set", "replicas=1"]).fails();
    assert!(said.contains("conflict with \"kubectl\" with subresource \"scale\""), "what others set is theirs: {said}");
    upgrade(&["--set", "replicas=1", "--force-conflicts"]).ok();
    assert_eq!(count(".spec.replicas"), "1");
    helm(&["rollback", "ferry", "1", "--wait", "--timeout", "2m"]).ok();
    let greeting = server.kubectl(&["get", "configmap", "ferry", "-o", "jsonpath={.data.GREETING}"]).ok();
    assert_eq!(greeting, "ahoy");
    let history = helm(&["history", "ferry"]).ok();
    assert!(history.contains("Rollback to 1"), "{history}");
    helm(&["uninstall", "ferry", "--wait", "--timeout", "2m"]).ok();
    let left = server.kubectl(&["get", "deployments,services,routes,secrets", "-l", "owner=helm", "-o", "name"]).ok();
    assert_eq!(left, "");
    assert!(!server.kubectl(&["get", "deployments,routes", "-o", "name"]).ok().contains("ferry"));
}
