//! What an operator installs works end to end: a kind in two versions with a conversion webhook that is a Service, and
//! admission webhooks, all served over TLS by the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::Wherry;
use support::run::Following;
use support::webhook::Webhooks;

const GROUP: &str = "fleet.example.com";
/// Where the operator's webhooks listen: an address that an endpoint may have.
const HOST: &str = "127.77.0.1";

struct World {
    server: Wherry,
    hooks: Webhooks,
}

#[test]
fn what_an_operator_installs_works() {
    needs!("kubectl");
    let server = Wherry::start("fleet");
    let world = World { hooks: Webhooks::start(HOST, &["operator.default.svc"], answer), server };
    world.server.apply(&world.service());
    world.server.apply(&[world.definition()]);
    let crd = format!("crd/boats.{GROUP}");
    world.server.kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=30s"]).ok();
    claims!(&world;
        an_object_made_in_one_version_is_read_in_the_other,
        lists_watches_and_patches_are_converted,
        a_conversion_that_fails_is_told_and_leaves_the_stored_version_readable,
        what_a_webhook_denies_is_not_done,
        what_a_webhook_changes_is_kept_and_judged,
        a_webhook_sees_the_version_that_it_knows,
        a_dry_run_asks_and_stores_nothing,
        a_webhook_that_is_down_does_as_its_failure_policy_says,
        a_webhook_is_asked_only_where_its_conditions_hold,
        a_webhook_keeps_users_from_attaching_to_a_pod,
    );
    world.server.kubectl(&["delete", &crd, "--timeout=60s"]).ok();
}

/// What the operator's webhooks answer, by path.
fn answer(path: &str, request: &Value) -> Value {
    let object = &request["object"];
    match path {
        "attach" if request["operation"] == "CONNECT" && request["name"] == "to-be-attached-pod" => {
            deny("attaching to pod 'to-be-attached-pod' is not allowed")
        }
        "convert" => convert(request),
        "validate" => match (request["operation"].as_str().unwrap(), object["spec"]["sails"].as_i64()) {
            ("DELETE", _) if request["oldObject"]["metadata"]["labels"]["at-sea"] == "yes" => deny("it is at sea"),
            (_, Some(0)) => deny("a boat has at least one sail"),
            (_, Some(1)) => json!({"allowed": true, "warnings": ["a boat of one sail is slow"]}),
            _ => json!({"allowed": true}),
        },
        "mutate" if object["spec"]["port"].is_null() => {
            patched(json!([{"op": "add", "path": "/spec/port", "value": "Harwich"}]))
        }
        "spoil" => patched(json!([{"op": "replace", "path": "/spec/sails", "value": -1}])),
        _ => json!({"allowed": true}),
    }
}

fn deny(why: &str) -> Value {
    json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": why}})
}

fn patched(patch: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

/// `v1alpha1` has a captain's whole name, `v1` its two parts.
fn convert(request: &Value) -> Value {
    let desired = &request["desiredAPIVersion"];
    let mut objects = request["objects"].as_array().unwrap().clone();
    if objects.iter().any(|object| object["metadata"]["name"] == "wreck") {
        return json!({"result": {"status": "Failure", "message": "a wreck is not converted"}});
    }
    for object in &mut objects {
        object["apiVersion"] = desired.clone();
        let captain = &object["spec"]["captain"];
        object["spec"]["captain"] = match captain.as_str().map(|name| name.split_once(' ').unwrap_or((name, ""))) {
            Some((first, last)) => json!({"first": first, "last": last}),
            None => format!("{} {}", captain["first"].as_str().unwrap(), captain["last"].as_str().unwrap()).into(),
        };
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}

impl World {
    /// A Service without a selector, whose endpoint is this process.
    fn service(&self) -> Vec<Value> {
        let port = self.hooks.address.port();
        vec![
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "operator"},
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}}),
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "operator-1", "labels": {"kubernetes.io/service-name": "operator"}},
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [HOST], "conditions": {"ready": true}}]}),
        ]
    }

    fn definition(&self) -> Value {
        let version = |name: &str, stored: bool, captain: Value| {
            let spec = json!({"type": "object", "required": ["captain"], "properties": {"captain": captain,
                "sails": {"type": "integer", "minimum": 0, "default": 2}, "port": {"type": "string"}}});
            json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": spec}}},
                "additionalPrinterColumns": [{"name": "Captain", "type": "string", "jsonPath": ".spec.captain"}]})
        };
        let text = json!({"type": "string"});
        let parts = json!({"type": "object", "properties": {"first": text, "last": text}});
        let service = json!({"namespace": "default", "name": "operator", "path": "/convert"});
        let conversion = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"service": service, "caBundle": self.hooks.bundle}}});
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("boats.{GROUP}")},
            "spec": {"group": GROUP, "scope": "Namespaced", "conversion": conversion,
                "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
                "versions": [version("v1", true, parts), version("v1alpha1", false, text.clone())]}})
    }

    fn get(&self, version: &str, name: &str) -> Value {
        self.server.api().get(&format!("/apis/{GROUP}/{version}/namespaces/default/boats/{name}")).ok()
    }

    /// Registers a webhook of a path for `v1` boats, runs, and takes the registration back.
    fn with_webhook(&self, kind: &str, path: &str, more: Value, work: impl FnOnce()) {
        let rule = json!({"apiGroups": [GROUP], "apiVersions": ["v1"], "resources": ["boats"],
            "operations": ["CREATE", "UPDATE", "DELETE"]});
        let mut webhook = json!({"name": format!("{path}.{GROUP}"), "clientConfig": self.hooks.at(path),
            "rules": [rule], "sideEffects": "None", "admissionReviewVersions": ["v1"]});
        webhook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let kind = format!("{kind}WebhookConfiguration");
        self.server.apply(&[json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": path}, "webhooks": [webhook]})]);
        self.hooks.asked(path);
        let done = catch_unwind(AssertUnwindSafe(work));
        self.server.kubectl(&["delete", &kind, path]).ok();
        if let Err(panic) = done {
            resume_unwind(panic);
        }
    }
}

fn boat(version: &str, name: &str, spec: Value) -> String {
    json!({"apiVersion": format!("{GROUP}/{version}"), "kind": "Boat", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn an_object_made_in_one_version_is_read_in_the_other(world: &World) {
    let old = boat("v1alpha1", "dory", json!({"captain": "Ann Bonny"}));
    world.server.kubectl_with(&["create", "-f", "-"], &old).ok();
    assert_eq!(world.get("v1", "dory")["spec"], json!({"captain": {"first": "Ann", "last": "Bonny"}, "sails": 2}));
    assert_eq!(world.get("v1alpha1", "dory")["spec"]["captain"], "Ann Bonny");
    let new = boat("v1", "skiff", json!({"captain": {"first": "Mary", "last": "Read"}, "sails": 3}));
    world.server.kubectl_with(&["apply", "-f", "-"], &new).ok();
    let shown = world.server.kubectl(&["get", "boats.v1alpha1.fleet.example.com", "skiff"]).ok();
    assert!(shown.contains("Mary Read"), "{shown}");
    world.hooks.asked("convert");
    world.get("v1", "skiff");
    assert_eq!(world.hooks.asked("convert"), Vec::<Value>::new(), "what is stored so is not converted");
}

fn lists_watches_and_patches_are_converted(world: &World) {
    let path = format!("/apis/{GROUP}/v1alpha1/namespaces/default/boats");
    world.hooks.asked("convert");
    let list = world.server.api().get(&path).ok();
    let captains: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["spec"]["captain"].as_str().unwrap()).collect();
    assert_eq!(
        (list["apiVersion"].as_str(), captains),
        (Some("fleet.example.com/v1alpha1"), vec!["Ann Bonny", "Mary Read"])
    );
    assert_eq!(world.hooks.asked("convert").len(), 1, "a list is converted at once");
    let columns =
        ["get", "boats.v1alpha1.fleet.example.com", "-w", "--no-headers", "-o", "custom-columns=C:.spec.captain"];
    let mut watching = Following::start(&mut world.server.kubectl_command(&columns));
    watching.until("the state comes first", |line| line.trim() == "Mary Read");
    let merge = json!({"spec": {"captain": {"last": "Read-Rackham"}}}).to_string();
    world.server.kubectl(&["patch", "boat.v1.fleet.example.com", "skiff", "--type=merge", "-p", &merge]).ok();
    watching.until("the change is converted", |line| line.trim() == "Mary Read-Rackham");
    let json_patch = json!([{"op": "replace", "path": "/spec/captain", "value": "Mary Read"}]).to_string();
    let other = ["patch", "boat.v1alpha1.fleet.example.com", "skiff", "--type=json", "-p", &json_patch];
    world.server.kubectl(&other).ok();
    watching.until("and back", |line| line.trim() == "Mary Read");
    let applied = boat("v1alpha1", "skiff", json!({"captain": "Mary Applied"}));
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=old", "-f", "-"];
    world.server.kubectl_with(&apply, &applied).ok();
    assert_eq!(world.get("v1", "skiff")["spec"], json!({"captain": {"first": "Mary", "last": "Applied"}, "sails": 3}));
    let entry = world.get("v1", "skiff")["metadata"]["managedFields"].as_array().unwrap().clone();
    let entry = entry.into_iter().find(|entry| entry["manager"] == "old").unwrap();
    assert_eq!(entry["apiVersion"], "fleet.example.com/v1alpha1");
}

fn a_conversion_that_fails_is_told_and_leaves_the_stored_version_readable(world: &World) {
    let wreck = boat("v1", "wreck", json!({"captain": {"first": "No", "last": "Body"}}));
    world.server.kubectl_with(&["create", "-f", "-"], &wreck).ok();
    let said = world.server.kubectl(&["get", "boats.v1alpha1.fleet.example.com", "wreck"]).fails();
    let expected = "conversion webhook for fleet.example.com/v1, Kind=Boat failed: a wreck is not converted";
    assert!(said.contains(expected), "{said}");
    assert_eq!(world.get("v1", "wreck")["spec"]["captain"]["last"], "Body");
    world.server.kubectl(&["delete", "boats.v1.fleet.example.com", "wreck"]).ok();
}

fn what_a_webhook_denies_is_not_done(world: &World) {
    world.with_webhook("Validating", "validate", json!({}), || {
        let bare = boat("v1", "bare", json!({"captain": {"first": "A", "last": "B"}, "sails": 0}));
        let said = world.server.kubectl_with(&["create", "-f", "-"], &bare).fails();
        let expected = "Error from server (Forbidden): error when creating \"STDIN\": admission webhook \
             \"validate.fleet.example.com\" denied the request: a boat has at least one sail";
        assert!(said.contains(expected), "{said}");
        let path = format!("/apis/{GROUP}/v1/namespaces/default/boats/bare");
        world.server.api().get(&path).refused(404, "NotFound");
        let patch = json!({"spec": {"sails": 0}}).to_string();
        let said = world.server.kubectl(&["patch", "boat", "dory", "--type=merge", "-p", &patch]).fails();
        assert!(said.contains("a boat has at least one sail"), "{said}");
        let slow = json!({"spec": {"sails": 1}, "metadata": {"labels": {"at-sea": "yes"}}}).to_string();
        let warned = world.server.kubectl(&["patch", "boat", "dory", "--type=merge", "-p", &slow]);
        assert!(warned.stderr.contains("Warning: a boat of one sail is slow"), "{warned}");
        let said = world.server.kubectl(&["delete", "boat", "dory"]).fails();
        assert!(said.contains("it is at sea"), "{said}");
        assert_eq!(world.get("v1", "dory")["spec"]["sails"], 1);
        let operations: Vec<Value> =
            world.hooks.asked("validate").iter().map(|request| request["operation"].clone()).collect();
        assert_eq!(operations, ["CREATE", "UPDATE", "UPDATE", "DELETE"]);
    });
}

fn what_a_webhook_changes_is_kept_and_judged(world: &World) {
    let plain = |name: &str| boat("v1", name, json!({"captain": {"first": "A", "last": "B"}}));
    world.with_webhook("Mutating", "mutate", json!({}), || {
        world.server.kubectl_with(&["create", "-f", "-"], &plain("changed")).ok();
        assert_eq!(world.get("v1", "changed")["spec"]["port"], "Harwich");
        assert_eq!(world.hooks.asked("mutate")[0]["object"]["spec"]["sails"], 2, "it sees defaults");
    });
    world.with_webhook("Mutating", "spoil", json!({}), || {
        let said = world.server.kubectl_with(&["create", "-f", "-"], &plain("spoilt")).fails();
        assert!(said.contains("spec.sails"), "what a webhook makes is judged by the schema: {said}");
    });
}

fn a_webhook_sees_the_version_that_it_knows(world: &World) {
    let old = |name: &str, sails: i64| boat("v1alpha1", name, json!({"captain": "Grace OMalley", "sails": sails}));
    world.with_webhook("Mutating", "mutate", json!({}), || {
        world.server.kubectl_with(&["create", "-f", "-"], &old("galley", 3)).ok();
        let request = &world.hooks.asked("mutate")[0];
        let versions = (&request["kind"]["version"], &request["requestKind"]["version"]);
        assert_eq!(versions, (&json!("v1"), &json!("v1alpha1")));
        assert_eq!(request["object"]["spec"]["captain"], json!({"first": "Grace", "last": "OMalley"}));
        assert_eq!(request["object"]["apiVersion"], "fleet.example.com/v1");
        assert_eq!(world.get("v1", "galley")["spec"]["port"], "Harwich");
        assert_eq!(world.get("v1alpha1", "galley")["spec"]["captain"], "Grace OMalley");
    });
    world.with_webhook("Validating", "validate", json!({}), || {
        let said = world.server.kubectl_with(&["create", "-f", "-"], &old("hulk", 0)).fails();
        assert!(said.contains("a boat has at least one sail"), "{said}");
        let patch = json!({"spec": {"sails": 4}}).to_string();
        let path = "boat.v1alpha1.fleet.example.com";
        world.server.kubectl(&["patch", path, "galley", "--type=merge", "-p", &patch]).ok();
        let update = world.hooks.asked("validate").pop().unwrap();
        for field in ["object", "oldObject"] {
            assert_eq!(update[field]["spec"]["captain"]["last"], "OMalley", "{field}: {update:#}");
        }
    });
    world.with_webhook("Validating", "validate", json!({"matchPolicy": "Exact"}), || {
        world.server.kubectl_with(&["create", "-f", "-"], &old("hulk", 0)).ok();
        assert_eq!(world.hooks.asked("validate"), Vec::<Value>::new());
    });
}

fn a_dry_run_asks_and_stores_nothing(world: &World) {
    let tried = boat("v1", "tried", json!({"captain": {"first": "A", "last": "B"}, "sails": 2}));
    world.with_webhook("Mutating", "mutate", json!({"sideEffects": "NoneOnDryRun"}), || {
        let shown = ["create", "--dry-run=server", "-o", "jsonpath={.spec.port}", "-f", "-"];
        assert_eq!(world.server.kubectl_with(&shown, &tried).ok(), "Harwich");
        let request = &world.hooks.asked("mutate")[0];
        assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
        let path = format!("/apis/{GROUP}/v1/namespaces/default/boats/tried");
        world.server.api().get(&path).refused(404, "NotFound");
    });
}

fn a_webhook_that_is_down_does_as_its_failure_policy_says(world: &World) {
    let address = TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap();
    let url = format!("https://{address}/gone");
    let down = |policy: &str| {
        json!({"failurePolicy": policy, "timeoutSeconds": 2,
            "clientConfig": {"url": url, "caBundle": world.hooks.bundle}})
    };
    let made = boat("v1", "brave", json!({"captain": {"first": "A", "last": "B"}}));
    world.with_webhook("Validating", "gone", down("Fail"), || {
        let said = world.server.kubectl_with(&["create", "-f", "-"], &made).fails();
        let expected = format!(
            "Error from server (InternalError): error when creating \"STDIN\": Internal error occurred: failed calling \
             webhook \"gone.fleet.example.com\": failed to call webhook: Post \"{url}?timeout=2s\": "
        );
        assert!(said.contains(&format!("{expected}dial tcp {address}: connect: connection refused")), "{said}");
    });
    world.with_webhook("Validating", "gone", down("Ignore"), || {
        world.server.kubectl_with(&["create", "-f", "-"], &made).ok();
    });
    let stranger = json!({"clientConfig": {"url": world.hooks.at("validate")["url"]}});
    world.with_webhook("Validating", "validate", stranger, || {
        let said = world.server.kubectl(&["delete", "boat", "brave"]).fails();
        assert!(said.contains("certificate"), "who is not in the bundle is not believed: {said}");
    });
    let service = json!({"clientConfig": {"caBundle": world.hooks.bundle,
        "service": {"namespace": "default", "name": "nobody", "path": "/validate"}}});
    world.with_webhook("Validating", "validate", service, || {
        let said = world.server.kubectl(&["delete", "boat", "brave"]).fails();
        assert!(said.contains("https://nobody.default.svc:443/validate") && said.contains("not found"), "{said}");
    });
}

fn a_webhook_is_asked_only_where_its_conditions_hold(world: &World) {
    let conditions = |expression: &str| json!({"matchConditions": [{"name": "big", "expression": expression}]});
    let update = |name: &str| {
        let patch = json!({"metadata": {"annotations": {"seen": "now"}}}).to_string();
        world.server.kubectl(&["patch", "boat", name, "--type=merge", "-p", &patch]).ok();
        world.server.kubectl(&["annotate", "boat", name, "seen-"]).ok();
    };
    let big = "object.spec.sails > 2 && !('system:nodes' in request.userInfo.groups)";
    world.with_webhook("Validating", "validate", conditions(big), || {
        update("dory");
        assert_eq!(world.hooks.asked("validate"), Vec::<Value>::new(), "one sail");
        update("skiff");
        assert_eq!(world.hooks.asked("validate").len(), 2, "three sails");
    });
}

/// As Kubernetes' conformance test "should deny attaching pod".
fn a_webhook_keeps_users_from_attaching_to_a_pod(world: &World) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "to-be-attached-pod"},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "container1", "image": "registry.example/pause:1"}]}});
    world.server.apply(&[pod]);
    let attach = ["attach", "to-be-attached-pod", "-i", "-c=container1"];
    let rules = json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/attach"],
        "operations": ["CONNECT"]}]});
    world.with_webhook("Validating", "attach", rules, || {
        let said = world.server.kubectl(&attach).fails();
        assert!(said.contains("attaching to pod 'to-be-attached-pod' is not allowed"), "{said}");
        assert_eq!(world.hooks.asked("attach")[0]["object"]["container"], "container1");
    });
    let said = world.server.kubectl(&attach).fails();
    assert!(said.contains("attach of pods is not supported yet"), "{said}");
}
