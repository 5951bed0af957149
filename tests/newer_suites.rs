//! What Kubernetes' conformance suites from 1.21 to 1.36 ask of the API and its controllers alone, and the suite that can be
//! run against this server does not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use support::{Answer, Api, Wherry, eventually};

const DEFAULT: &str = "/api/v1/namespaces/default";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const REGISTRATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

#[test]
fn what_newer_suites_ask_of_the_api_holds() {
    let server = Wherry::start("newer");
    let api = server.api();
    claims!(&api;
        every_group_has_its_preferred_version_and_something_to_list,
        an_apply_of_a_custom_resource_is_validated,
        custom_resources_are_selected_by_their_fields,
        a_namespaces_status_and_finalizers_are_written_through_their_paths,
        a_quotas_status_is_put_right,
        conditions_are_written_to_the_status_of_every_workload,
        a_services_and_an_ingress_status_are_written,
        volumes_and_claims_have_a_status,
        a_volume_attachment_has_a_status,
        the_root_certificate_comes_back,
        a_token_is_created_and_reviewed,
        expressions_that_do_not_compile_are_refused,
        a_policy_speaks_for_its_binding_only,
        a_pods_generation_counts_and_its_status_is_written,
        a_fake_node_lives_and_goes,
        a_pod_of_an_absent_runtime_class_is_refused,
        what_has_no_table_is_not_acceptable_as_one,
    );
}

/// Writes what `change` makes of the object until no controller was faster.
#[track_caller]
fn update(api: &Api, read: &str, write: &str, change: impl Fn(&mut Value)) -> Value {
    eventually(&format!("{write} is updated"), || {
        let mut object = api.get(read).ok();
        change(&mut object);
        let answer = api.put(write, &object);
        if answer.status == 409 { Err(answer.text()) } else { Ok(answer.ok()) }
    })
}

fn apply(api: &Api, path: &str, body: String) -> Answer {
    api.send(
        "PATCH",
        &format!("{path}?fieldManager=suite&fieldValidation=Strict"),
        "application/apply-patch+yaml",
        body,
    )
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "E2E", "message": "Set by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn has_condition(object: &Value, kind: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "suite"}}, "spec": {"schedulerName": "nobody",
        "containers": [{"name": "main", "image": "registry.example/main:1"}]}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": template()["spec"]})
}

fn every_group_has_its_preferred_version_and_something_to_list(api: &Api) {
    for group in api.get("/apis/").ok()["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        assert_eq!(api.get(&format!("/apis/{name}/")).ok()["preferredVersion"], group["preferredVersion"]);
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        let list = api.get(&format!("/apis/{version}/")).ok();
        let verbs = list["resources"].as_array().unwrap().iter().flat_map(|r| r["verbs"].as_array().unwrap());
        // Questions to the server are created and not listed.
        let asked = ["authentication.k8s.io", "authorization.k8s.io"].contains(&name);
        assert!(asked || verbs.into_iter().any(|verb| verb == "list"), "{name} lists nothing");
    }
}

/// Defines a kind with this schema of its spec; returns the path of its objects and the head of an object `mine`.
fn define(api: &Api, plural: &str, spec: &Value, rest: &Value) -> (String, String) {
    let (group, kind) = ("newer.example.com", plural.trim_end_matches('s').to_uppercase());
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let mut version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
    version.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let name = format!("{plural}.{group}");
    let definition = json!({"metadata": {"name": name}, "spec": {"group": group, "scope": "Cluster",
        "names": {"plural": plural, "kind": kind}, "versions": [version]}});
    api.post(DEFINITIONS, &definition).ok();
    eventually("the kind is established", || {
        let shown = api.get(&format!("{DEFINITIONS}/{name}")).ok();
        if has_condition(&shown, "Established") { Ok(()) } else { Err(shown.to_string()) }
    });
    let head = format!("\napiVersion: {group}/v1\nkind: {kind}\nmetadata:\n  name: mine\n");
    (format!("/apis/{group}/v1/{plural}"), head)
}

fn an_apply_of_a_custom_resource_is_validated(api: &Api) {
    let template = json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object"}}});
    let ports = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
        "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}}}});
    let properties = json!({"foo": {"type": "string"}, "ports": ports, "template": template});
    let strict = json!({"type": "object", "properties": properties});
    let (path, head) = define(api, "stricts", &strict, &json!({}));
    let mine = format!("{path}/mine");
    let spec = "spec:\n  foo: one\n  ports:\n  - port: 80\n";
    apply(api, &mine, format!("{head}{spec}")).ok();
    let said = apply(api, &mine, format!("{head}odd: 1\n{spec}")).refused(400, "BadRequest");
    assert!(said.contains(".odd: field not declared in schema"), "{said}");
    let embedded = "  template:\n    apiVersion: v1\n    kind: Sub\n    metadata:\n      name: sub\n      odd: 1\n";
    let said = apply(api, &mine, format!("{head}{spec}{embedded}")).refused(400, "BadRequest");
    assert!(said.contains(".spec.template.metadata.odd: field not declared in schema"), "{said}");

    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": properties});
    let (path, head) = define(api, "frees", &free, &json!({}));
    let mine = format!("{path}/mine");
    apply(api, &mine, format!("{head}{spec}  odd: 1\n")).ok();
    let said = apply(api, &mine, format!("{head}spec:\n  foo: one\n  foo: two\n")).refused(400, "BadRequest");
    assert!(said.contains("line 8: key \"foo\" already set in map"), "{said}");
}

fn custom_resources_are_selected_by_their_fields(api: &Api) {
    let spec = json!({"type": "object", "properties": {"colour": {"type": "string"}, "size": {"type": "string"}}});
    let fields = json!({"selectableFields": [{"jsonPath": ".spec.colour"}, {"jsonPath": ".spec.size"}]});
    let (path, _) = define(api, "shirts", &spec, &fields);
    for (name, colour, size) in [("a", "blue", "S"), ("b", "blue", "M"), ("c", "green", "M")] {
        let shirt = json!({"apiVersion": "newer.example.com/v1", "kind": "SHIRT", "metadata": {"name": name},
            "spec": {"colour": colour, "size": size}});
        api.post(&path, &shirt).ok();
    }
    let names = |selector: &str| -> Vec<String> {
        let list = api.get(&format!("{path}?fieldSelector={selector}")).ok();
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("spec.colour%3Dblue"), ["a", "b"]);
    assert_eq!(names("spec.colour%3Dgreen,spec.size%3DM"), ["c"]);
    assert_eq!(api.get(&format!("{path}?fieldSelector=spec.weight%3D1")).status, 400);
    api.delete(&format!("{path}?fieldSelector=spec.colour%3Dblue")).ok();
    assert_eq!(names(""), ["c"]);
}

fn a_namespaces_status_and_finalizers_are_written_through_their_paths(api: &Api) {
    let path = "/api/v1/namespaces/newer";
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "newer"}})).ok();
    let status = format!("{path}/status");
    let patch = json!({"metadata": {"annotations": {"by": "patch"}}, "status": {"conditions": [condition("Patched")]}});
    let patched = api.patch(&status, "merge", &patch).ok();
    assert!(patched["metadata"]["annotations"]["by"] == "patch" && has_condition(&patched, "Patched"), "{patched}");
    let shown = update(api, &status, &status, |object| {
        object["status"]["conditions"].as_array_mut().unwrap().push(condition("Updated"));
    });
    assert!(has_condition(&shown, "Patched") && has_condition(&shown, "Updated"), "{shown}");
    let finalize = format!("{path}/finalize");
    let held = update(api, path, &finalize, |object| {
        object["spec"]["finalizers"].as_array_mut().unwrap().push(json!("example.com/held"));
    });
    assert_eq!(held["spec"]["finalizers"], json!(["kubernetes", "example.com/held"]));
    update(api, path, &finalize, |object| object["spec"]["finalizers"] = json!(["kubernetes"]));
    api.delete(path).ok();
    eventually("the namespace is gone", || match api.get(path).status {
        404 => Ok(()),
        _ => Err(api.get(path).text()),
    });
}

fn a_quotas_status_is_put_right(api: &Api) {
    let path = format!("{DEFAULT}/resourcequotas");
    api.post(&path, &json!({"metadata": {"name": "q"}, "spec": {"hard": {"services.loadbalancers": "5"}}})).ok();
    let one = format!("{path}/q");
    let right = |what: &str| {
        eventually(what, || {
            let status = api.get(&one).ok()["status"].clone();
            let right = json!({"hard": {"services.loadbalancers": "5"}, "used": {"services.loadbalancers": "0"}});
            if status == right { Ok(()) } else { Err(status.to_string()) }
        });
    };
    right("the status is calculated");
    let wrong = json!({"status": {"hard": {"services.loadbalancers": "7"}}});
    let patched = api.patch(&format!("{one}/status"), "merge", &wrong).ok();
    assert_eq!(patched["status"]["hard"]["services.loadbalancers"], "7");
    right("it is calculated again");
    api.delete(&one).ok();
}

fn conditions_are_written_to_the_status_of_every_workload(api: &Api) {
    for (plural, extra) in [
        ("deployments", json!({"replicas": 0})),
        ("replicasets", json!({"replicas": 0})),
        ("statefulsets", json!({"replicas": 0, "serviceName": "suite"})),
        ("daemonsets", json!({})),
    ] {
        let path = format!("/apis/apps/v1/namespaces/default/{plural}");
        let mut spec = json!({"selector": {"matchLabels": {"app": "suite"}}, "template": template()});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        api.post(&path, &json!({"metadata": {"name": "s"}, "spec": spec})).ok();
        let (one, status) = (format!("{path}/s"), format!("{path}/s/status"));
        let shown = update(api, &one, &status, |object| {
            let old = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            object["status"]["conditions"] = old.into_iter().chain([condition("Updated")]).collect();
        });
        assert!(has_condition(&shown, "Updated"), "{plural}: {shown}");
        let patch = json!({"status": {"conditions": [condition("Patched")]}});
        assert!(has_condition(&api.patch(&status, "merge", &patch).ok(), "Patched"), "{plural}");
        if plural != "daemonsets" {
            let scaled =
                update(api, &format!("{one}/scale"), &format!("{one}/scale"), |s| s["spec"]["replicas"] = json!(0));
            assert_eq!(scaled["kind"], "Scale");
        }
        api.delete(&format!("{path}?fieldSelector=metadata.name%3Ds")).ok();
    }
}

fn a_services_and_an_ingress_status_are_written(api: &Api) {
    let balanced = json!({"metadata": {"annotations": {"by": "patch"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    let service = json!({"metadata": {"name": "balanced"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}],
        "loadBalancerClass": "example.com/other"}});
    let ingress = json!({"metadata": {"name": "balanced"},
        "spec": {"defaultBackend": {"service": {"name": "balanced", "port": {"number": 80}}}}});
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses".to_owned();
    // How a Service's address is reached has a default; an Ingress's has no such field.
    let (of_service, of_ingress) = (json!({"ip": "203.0.113.1", "ipMode": "VIP"}), json!({"ip": "203.0.113.1"}));
    for (path, object, shown) in
        [(format!("{DEFAULT}/services"), service, of_service), (ingresses, ingress, of_ingress)]
    {
        api.post(&path, &object).ok();
        let patched = api.patch(&format!("{path}/balanced/status"), "merge", &balanced).ok();
        assert_eq!(patched["metadata"]["annotations"]["by"], "patch");
        let status = api.get(&format!("{path}/balanced")).ok()["status"].clone();
        assert_eq!(status["loadBalancer"]["ingress"], json!([shown]));
        api.delete(&format!("{path}/balanced")).ok();
    }
}

fn volumes_and_claims_have_a_status(api: &Api) {
    let (volumes, claims) = ("/api/v1/persistentvolumes".to_owned(), format!("{DEFAULT}/persistentvolumeclaims"));
    let spec = |rest: Value| {
        let mut spec = json!({"storageClassName": "none", "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({"metadata": {"name": "v"}, "spec": spec})
    };
    let volume = spec(json!({"capacity": {"storage": "1Gi"}, "csi": {"driver": "d.example.com", "volumeHandle": "h"}}));
    api.post(&volumes, &volume).ok();
    api.post(&claims, &spec(json!({"resources": {"requests": {"storage": "1Gi"}}}))).ok();
    let patch = json!({"status": {"reason": "E2E", "message": "Set by a test"}});
    assert_eq!(api.patch(&format!("{volumes}/v/status"), "merge", &patch).ok()["status"]["reason"], "E2E");
    let patch = json!({"status": {"conditions": [condition("Patched")]}});
    assert!(has_condition(&api.patch(&format!("{claims}/v/status"), "merge", &patch).ok(), "Patched"));
    for path in [claims, volumes] {
        api.delete(&format!("{path}/v")).ok();
        eventually(&format!("{path}/v is gone"), || match api.get(&format!("{path}/v")).status {
            404 => Ok(()),
            other => Err(other.to_string()),
        });
    }
}

fn a_volume_attachment_has_a_status(api: &Api) {
    let path = "/apis/storage.k8s.io/v1/volumeattachments";
    let spec = json!({"attacher": "e.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    api.post(path, &json!({"metadata": {"name": "a"}, "spec": spec})).ok();
    let attached = api.patch(&format!("{path}/a/status"), "merge", &json!({"status": {"attached": true}})).ok();
    assert_eq!(attached["status"]["attached"], true);
    api.delete(&format!("{path}/a")).ok();
}

fn the_root_certificate_comes_back(api: &Api) {
    let path = format!("{DEFAULT}/configmaps/kube-root-ca.crt");
    let certificate = || api.get(&path).json()["data"]["ca.crt"].clone();
    let right = eventually("it is there", || Some(certificate()).filter(Value::is_string).ok_or("none".to_owned()));
    let back =
        |what: &str| eventually(what, || if certificate() == right { Ok(()) } else { Err("not yet".to_owned()) });
    api.delete(&path).ok();
    back("it is made again");
    api.patch(&path, "merge", &json!({"data": {"ca.crt": ""}})).ok();
    back("it is mended");
}

fn a_token_is_created_and_reviewed(api: &Api) {
    let token = json!({"spec": {"audiences": [], "expirationSeconds": 600}});
    let token = api.post(&format!("{DEFAULT}/serviceaccounts/default/token"), &token).ok();
    let review = json!({"spec": {"token": token["status"]["token"]}});
    let review = api.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).ok();
    assert_eq!(review["status"]["authenticated"], true);
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:default");
}

fn rules(plural: &str) -> Value {
    json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [plural]}])
}

fn expressions_that_do_not_compile_are_refused(api: &Api) {
    let webhook = |expression: &str| {
        json!({"metadata": {"name": "w"}, "webhooks": [{"name": "w.example.com", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": "Ignore",
            "rules": rules("podtemplates"), "matchConditions": [{"name": "c", "expression": expression}]}]})
    };
    for plural in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
        let path = format!("{REGISTRATIONS}/{plural}");
        let said = api.post(&path, &webhook("... [] bad")).refused(422, "Invalid");
        assert!(
            said.contains("webhooks[0].matchConditions[0].expression") && said.contains("compilation failed"),
            "{said}"
        );
        let said = api.post(&path, &webhook("1 + 1")).refused(422, "Invalid");
        assert!(said.contains("must evaluate to bool"), "{said}");
        api.post(&path, &webhook("request.name != 'x'")).ok();
        api.delete(&format!("{path}/w")).ok();
    }
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": rules("podtemplates")},
        "validations": [{"expression": "object.metadata.name == missing", "messageExpression": "1"}]}});
    let said = api.post(&format!("{REGISTRATIONS}/validatingadmissionpolicies"), &policy).refused(422, "Invalid");
    assert!(said.contains("undeclared reference to 'missing'") && said.contains("must evaluate to string"), "{said}");
}

fn a_policy_speaks_for_its_binding_only(api: &Api) {
    let policies = format!("{REGISTRATIONS}/validatingadmissionpolicies");
    let bindings = format!("{REGISTRATIONS}/validatingadmissionpolicybindings");
    let policy = json!({"metadata": {"name": "named"}, "spec": {"matchConstraints": {"resourceRules": rules("podtemplates")},
        "variables": [{"name": "label", "expression": "object.metadata.?labels.?app.orValue('none')"}],
        "validations": [{"expression": "variables.label == 'good'", "messageExpression": "'label is ' + variables.label"}]}});
    api.post(&policies, &policy).ok();
    let patch = json!({"metadata": {"annotations": {"by": "patch"}}, "status": {"conditions": [condition("Patched")]}});
    assert!(has_condition(&api.patch(&format!("{policies}/named/status"), "merge", &patch).ok(), "Patched"));
    let create = |labels: Value| {
        let object = json!({"metadata": {"name": "t", "labels": labels}, "template": template()});
        api.post(&format!("{DEFAULT}/podtemplates?dryRun=All"), &object)
    };
    create(json!({})).ok();
    let matching = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}});
    let binding = json!({"metadata": {"name": "named"}, "spec": {"policyName": "named", "validationActions": ["Deny"],
        "matchResources": matching}});
    api.post(&bindings, &binding).ok();
    let said = create(json!({"app": "bad"})).refused(422, "Invalid");
    assert!(said.contains("label is bad"), "{said}");
    create(json!({"app": "good"})).ok();
    api.delete(&format!("{bindings}/named")).ok();
    api.delete(&format!("{policies}/named")).ok();
}

fn a_pods_generation_counts_and_its_status_is_written(api: &Api) {
    let path = format!("{DEFAULT}/pods");
    assert_eq!(api.post(&path, &pod("counted")).ok()["metadata"]["generation"], 1);
    let one = format!("{path}/counted");
    let patch = json!({"status": {"message": "Set by a test", "reason": "E2E"}});
    let patched = api.patch(&format!("{one}/status"), "strategic-merge", &patch).ok();
    assert_eq!((&patched["status"]["reason"], &patched["metadata"]["generation"]), (&json!("E2E"), &json!(1)));
    let deadline = api.patch(&one, "merge", &json!({"spec": {"activeDeadlineSeconds": 100}})).ok();
    assert_eq!(deadline["metadata"]["generation"], 2);
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "registry.example/d:1"}]}});
    let shown = api.patch(&format!("{one}/ephemeralcontainers"), "strategic-merge", &debugger).ok();
    assert_eq!(shown["spec"]["ephemeralContainers"][0]["name"], "debugger");
    api.delete(&one).ok();
}

fn a_fake_node_lives_and_goes(api: &Api) {
    let node = json!({"metadata": {"name": "fake", "labels": {"suite": "newer"}}, "spec": {"unschedulable": true}});
    api.post("/api/v1/nodes", &node).ok();
    let path = "/api/v1/nodes/fake";
    update(api, path, path, |node| node["metadata"]["labels"]["fake"] = json!("updated"));
    let patch = json!({"status": {"conditions": [condition("Patched")]}});
    assert!(has_condition(&api.patch(&format!("{path}/status"), "strategic-merge", &patch).ok(), "Patched"));
    api.delete("/api/v1/nodes?labelSelector=suite%3Dnewer").ok();
    assert_eq!(api.get(path).status, 404);
}

fn a_pod_of_an_absent_runtime_class_is_refused(api: &Api) {
    let mut pod = pod("classless");
    pod["spec"]["runtimeClassName"] = json!("absent");
    let said = api.post(&format!("{DEFAULT}/pods"), &pod).refused(403, "Forbidden");
    assert!(said.contains("RuntimeClass \"absent\" not found"), "{said}");
}

fn what_has_no_table_is_not_acceptable_as_one(api: &Api) {
    let review = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}});
    let api = api.with_accept("application/json;as=Table;v=v1;g=meta.k8s.io");
    api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).refused(406, "NotAcceptable");
}
