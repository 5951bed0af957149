//! A kind that a user defines is used with an unmodified kubectl like any other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::{Wherry, eventually};

const NAME: &str = "crontabs.stable.example.com";
/// With the version that is served after all: kubectl remembers the other.
const LEFT: &str = "crontabs.v1.stable.example.com";

/// Two versions, of which the first is stored; the second may be left out.
fn definition(both: bool) -> Value {
    let spec = json!({"type": "object", "description": "What is wanted.", "properties": {
        "cronSpec": {"type": "string", "description": "When it runs.", "pattern": "^(\\S+ ){4}\\S+$"},
        "replicas": {"type": "integer", "default": 1, "minimum": 0, "maximum": 10}}});
    let status = json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "description": "A table of times.",
        "properties": {"spec": spec, "status": status}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": schema,
            "subresources": {"status": {},
                "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "additionalPrinterColumns": [
                {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}]})
    };
    let versions: Vec<Value> =
        [version("v1", true), version("v2", false)].into_iter().take(if both { 2 } else { 1 }).collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
        "spec": {"group": "stable.example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]}}})
}

fn table(name: &str, spec: Value) -> String {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

#[test]
fn a_defined_kind_is_used_from_its_definition_to_its_end() {
    needs!("kubectl");
    let server = Wherry::start("definer");
    server.kubectl_with(&["apply", "-f", "-"], &definition(true).to_string()).ok();
    server.kubectl(&["wait", "--for=condition=Established", &format!("crd/{NAME}"), "--timeout=30s"]).ok();
    server.kubectl_with(&["apply", "-f", "-"], &table("mine", json!({"cronSpec": "* * * * *"}))).ok();
    claims!(&server;
        objects_are_shown_by_their_columns_under_every_name,
        explain_tells_what_the_schema_says,
        what_the_schema_refuses_is_refused,
        the_other_version_shows_the_same_object,
        status_and_scale_are_written_apart,
    );
    server.kubectl(&["delete", "crd", NAME, "--timeout=60s"]).ok();
    let gone = server.kubectl(&["get", "crontabs"]).fails();
    // What kubectl says depends on what it remembers of discovery.
    let known = ["the server doesn't have a resource type", "the server could not find the requested resource"];
    assert!(known.iter().any(|text| gone.contains(text)), "{gone}");
    server.kubectl_with(&["apply", "-f", "-"], &definition(false).to_string()).ok();
    eventually("the kind is defined again, without its old objects", || {
        let said = server.kubectl(&["get", LEFT]);
        if said.code == 0 { Ok(()) } else { Err(said.fails()) }
    });
    assert_eq!(server.kubectl(&["get", LEFT, "-o", "name"]).ok(), "");
}

fn objects_are_shown_by_their_columns_under_every_name(server: &Wherry) {
    for name in ["crontabs", "crontab", "ct", "crontabs.v1.stable.example.com"] {
        let shown = server.kubectl(&["get", name]).ok();
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "SPEC", "REPLICAS"], "{shown}");
        assert_eq!(lines[1], ["mine", "*", "*", "*", "*", "*", "1"], "{shown}");
    }
    let all = server.kubectl(&["get", "all"]).ok();
    assert!(all.contains("crontab.stable.example.com/mine"), "{all}");
}

fn explain_tells_what_the_schema_says(server: &Wherry) {
    let said = server.kubectl(&["explain", "crontab.spec.cronSpec"]).ok();
    assert!(said.contains("When it runs.") && said.contains("<string>"), "{said}");
}

fn what_the_schema_refuses_is_refused(server: &Wherry) {
    for (spec, complaint) in [
        (json!({"cronSpec": "often"}), "spec.cronSpec"),
        (json!({"cronSpec": "* * * * *", "replicas": 11}), "spec.replicas"),
        (json!({"cronSpec": "* * * * *", "image": "x"}), "unknown field \"spec.image\""),
    ] {
        let said = server.kubectl_with(&["apply", "-f", "-"], &table("bad", spec)).fails();
        assert!(said.contains(complaint), "{complaint}: {said}");
    }
}

fn the_other_version_shows_the_same_object(server: &Wherry) {
    let other = server.kubectl(&["get", "crontabs.v2.stable.example.com", "mine", "-o", "json"]).ok();
    let other: Value = serde_json::from_str(&other).unwrap();
    assert_eq!((&other["apiVersion"], &other["spec"]["replicas"]), (&json!("stable.example.com/v2"), &json!(1)));
}

fn status_and_scale_are_written_apart(server: &Wherry) {
    let patch = json!({"status": {"replicas": 1}, "spec": {"replicas": 9}}).to_string();
    server.kubectl(&["patch", "ct", "mine", "--subresource=status", "--type=merge", "-p", &patch]).ok();
    server.kubectl(&["scale", "crontab", "mine", "--replicas=3"]).ok();
    let paths = "jsonpath={.spec.replicas} {.status.replicas}";
    assert_eq!(server.kubectl(&["get", "ct", "mine", "-o", paths]).ok(), "3 1");
}
