//! What create, update and patch promise beside storing.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};
use wherry_api::resource::WRITABLE_METADATA;

use super::{Api, config_map, pod};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn many_writers_lose_no_patch() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    let writers = (0..20).map(|n| {
        let (api, path) = (&api, &path);
        async move { api.patch("merge-patch", path, &json!({"data": {format!("k{n}"): "v"}})).await.expect(200) }
    });
    join_all(writers).await;
    let all = api.get(&path).await.expect(200);
    assert_eq!(all["data"].as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn a_patch_that_names_a_revision_is_a_precondition() {
    let api = Api::new().await;
    let first = api.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    api.patch("merge-patch", &path, &json!({"data": {"b": "c"}})).await.expect(200);
    let stale = json!({"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"b": "d"}});
    assert_eq!(api.patch("merge-patch", &path, &stale).await.expect(409)["reason"], "Conflict");
    let other = json!({"metadata": {"uid": "00000000-0000-4000-8000-000000000000"}});
    let refused = api.patch("merge-patch", &path, &other).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("metadata.uid: Invalid value"), "{refused}");
}

#[tokio::test]
async fn generated_names_differ() {
    let api = Api::new().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}});
    let made = join_all((0..20).map(|_| api.post(CONFIG_MAPS, &object))).await;
    let names: BTreeSet<String> =
        made.into_iter().map(|a| a.expect(201)["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 20);
    assert!(names.iter().all(|n| n.starts_with("gen-") && n.len() == 9));
}

#[tokio::test]
async fn main_part_and_status_are_written_apart() {
    let api = Api::new().await;
    let mut object = pod("p");
    object["status"] = json!({"phase": "Running"});
    let created = api.post(PODS, &object).await.expect(201);
    assert_eq!(created["status"]["phase"], "Pending");
    let path = format!("{PODS}/p");
    let status = json!({"status": {"phase": "Running"}, "spec": {"priority": 7}});
    let after = api.patch("merge-patch", &format!("{path}/status"), &status).await.expect(200);
    assert_eq!((after["status"]["phase"].as_str(), &after["spec"]), (Some("Running"), &created["spec"]));
    let main = api.patch("merge-patch", &path, &json!({"status": {"phase": "Failed"}})).await.expect(200);
    assert_eq!(main["status"]["phase"], "Running");
    assert_eq!(main["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_new_node_has_the_status_that_it_comes_with() {
    const NODES: &str = "/api/v1/nodes";
    let api = Api::new().await;
    let status = json!({"capacity": {"cpu": "2"}, "conditions": [{"type": "Ready", "status": "True"}]});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fresh"}, "status": status});
    let made = api.post(NODES, &node).await.expect(201);
    assert_eq!(made["status"]["conditions"], status["conditions"]);
    assert_eq!(made["status"]["allocatable"], status["capacity"]);
    let mut changed = made.clone();
    changed["status"] = json!({});
    changed["spec"]["unschedulable"] = json!(true);
    let changed = api.put(&format!("{NODES}/fresh"), &changed).await.expect(200);
    assert_eq!((&changed["status"], &changed["spec"]["unschedulable"]), (&made["status"], &json!(true)));
}

#[tokio::test]
async fn a_status_brings_the_metadata_that_kubernetes_takes_with_it() {
    let api = Api::new().await;
    let owner =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "00000000-0000-4000-8000-000000000000"}]);
    let given = json!({"labels": {"new": "b"}, "annotations": {"new": "b"}, "finalizers": ["example.com/f"], "ownerReferences": owner});
    for (group, version, plural, kept) in [
        ("networking.k8s.io", "v1", "ingresses", &[][..]),
        ("apps", "v1", "replicasets", &[]),
        ("apps", "v1", "deployments", &["labels"]),
        ("", "v1", "pods", &["ownerReferences"]),
        ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", WRITABLE_METADATA),
    ] {
        let resource = api.server.registry().by_plural(group, version, plural).cloned().unwrap();
        let path = format!("{}/d", super::collection(&resource));
        let made = api.post(&super::collection(&resource), &super::sample(&resource, "d")).await.expect(201);
        let patch = json!({"metadata": given});
        let after = api.patch("merge-patch", &format!("{path}/status?fieldManager=me"), &patch).await.expect(200);
        let managed = after["metadata"]["managedFields"].as_array().unwrap();
        let mine =
            managed.iter().find(|entry| entry["manager"] == "me").map_or(&Value::Null, |entry| &entry["fieldsV1"]);
        for field in WRITABLE_METADATA {
            let taken = after["metadata"].get(field) != made["metadata"].get(field);
            assert_eq!(taken, !kept.contains(field), "{plural} {field}");
            assert_eq!(mine["f:metadata"].get(format!("f:{field}")).is_some(), taken, "{plural} {field}: {mine}");
        }
    }
}

#[tokio::test]
async fn endpoints_are_stored_as_they_are_written_and_their_writer_is_warned_of_places_in_that() {
    let api = Api::new().await;
    let at = |ips: &[&str]| json!(ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>());
    let port = json!({"port": 80, "protocol": "TCP"});
    let given = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"}, "subsets": [
        {"addresses": at(&["2001:db8:0::2", "2001:db8::1"]), "ports": [port]},
        {"addresses": at(&["2001:db8::1"]), "ports": [port]}]});
    let all = "/api/v1/namespaces/default/endpoints";
    let first =
        |answer: &super::Answer| answer.warnings().iter().any(|text| text.contains("subsets[0].addresses[0].ip: "));
    let made = api.post(all, &given).await;
    assert!(first(&made), "{:?}", made.warnings());
    let made = made.expect(201);
    assert_eq!(made["subsets"], given["subsets"]);
    let changed = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = api.patch("merge-patch", &format!("{all}/e"), &changed).await;
    assert!(first(&changed), "{:?}", changed.warnings());
    let version = changed.expect(200)["metadata"]["resourceVersion"].clone();
    let mut again = given;
    again["metadata"]["labels"] = json!({"a": "b"});
    let again = api.put(&format!("{all}/e"), &again).await.expect(200);
    assert_eq!((&again["subsets"], &again["metadata"]["resourceVersion"]), (&made["subsets"], &version));
}

#[tokio::test]
async fn who_changes_nothing_of_a_template_is_not_warned_of_it_again() {
    let api = Api::new().await;
    let registry = api.server.registry().clone();
    let told =
        |answer: &super::Answer| answer.warnings().iter().any(|text| text.contains("terminationGracePeriodSeconds"));
    for (group, plural) in
        [("apps", "deployments"), ("apps", "daemonsets"), ("batch", "cronjobs"), ("", "podtemplates")]
    {
        let resource = registry.by_plural(group, "v1", plural).unwrap();
        let mut object = super::sample(resource, "w");
        let spec = match plural {
            "cronjobs" => "/spec/jobTemplate/spec/template/spec",
            "podtemplates" => "/template/spec",
            _ => "/spec/template/spec",
        };
        object.pointer_mut(spec).unwrap()["terminationGracePeriodSeconds"] = json!(-1);
        let all = super::collection(resource);
        let path = format!("{all}/w");
        let made = api.post(&all, &object).await;
        assert!(told(&made), "{plural}: {:?}", made.warnings());
        let mut object = made.expect(201);
        object["metadata"]["labels"] = json!({"a": "b"});
        let labelled = api.put(&path, &object).await;
        assert!(!told(&labelled), "{plural}: {:?}", labelled.warnings());
        let mut object = labelled.expect(200);
        object.pointer_mut(spec).unwrap()["terminationGracePeriodSeconds"] = json!(-2);
        assert!(told(&api.put(&path, &object).await), "{plural}");
    }
    let mut pod = pod("p");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(-1);
    let made = api.post(PODS, &pod).await;
    assert!(told(&made));
    let mut changed = made.expect(201);
    changed["spec"]["containers"][0]["image"] = json!("example.com/c:2");
    let changed = api.put(&format!("{PODS}/p"), &changed).await;
    assert!(!told(&changed));
    changed.expect(200);
}

#[tokio::test]
async fn a_warning_about_an_ingress_class_is_for_who_creates() {
    let api = Api::new().await;
    let resource = api.server.registry().by_plural("networking.k8s.io", "v1", "ingresses").cloned().unwrap();
    let mut ingress = super::sample(&resource, "i");
    ingress["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "x"});
    ingress["spec"].as_object_mut().unwrap().remove("ingressClassName");
    let told =
        |answer: &super::Answer| answer.warnings().iter().any(|text| text.contains("kubernetes.io/ingress.class"));
    let all = super::collection(&resource);
    assert!(told(&api.post(&all, &ingress).await));
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    assert!(!told(&api.patch("merge-patch", &format!("{all}/i"), &labels).await));
}

#[tokio::test]
async fn a_default_that_is_newer_than_an_object_is_no_change_of_it() {
    let api = Api::new().await;
    let mut object = pod("p");
    object["spec"]["volumes"] = json!([{"name": "v", "image": {"reference": "example.com/v:1"}}]);
    let mut older = api.post(PODS, &object).await.expect(201);
    older["spec"]["volumes"][0]["image"].as_object_mut().unwrap().remove("pullPolicy").unwrap();
    api.left("pods", &older).await;
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let labelled = api.patch("merge-patch", &format!("{PODS}/p"), &labels).await.expect(200);
    assert_eq!(labelled["metadata"]["labels"]["a"], "b");
    assert_eq!(labelled["metadata"].get("generation"), older["metadata"].get("generation"));
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec() {
    let api = Api::new().await;
    let registry = api.server.registry().clone();
    let deployments = registry.by_plural("apps", "v1", "deployments").unwrap();
    let all = super::collection(deployments);
    let created = api.post(&all, &super::sample(deployments, "d")).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let path = format!("{all}/d");
    let scaled = api.patch("merge-patch", &path, &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(scaled["metadata"]["generation"], 2);
    let status = json!({"status": {"replicas": 3}});
    let observed = api.patch("merge-patch", &format!("{path}/status"), &status).await.expect(200);
    assert_eq!(
        (observed["metadata"]["generation"].as_i64(), observed["status"]["replicas"].as_i64()),
        (Some(2), Some(3))
    );
}

#[tokio::test]
async fn a_put_creates_only_the_kinds_that_allow_it() {
    let api = Api::new().await;
    assert_eq!(api.put(&format!("{CONFIG_MAPS}/none"), &config_map("none")).await.code, 404);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}});
    api.put("/apis/coordination.k8s.io/v1/namespaces/default/leases/l", &lease).await.expect(201);
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": []}});
    api.put("/api/v1/namespaces/default/limitranges/r", &range).await.expect(201);
    let class = json!({"metadata": {"name": "wasm"}, "handler": "wasm"});
    api.put("/apis/node.k8s.io/v1/runtimeclasses/wasm", &class).await.expect(201);
}

#[tokio::test]
async fn a_put_says_which_revision_it_changes_where_the_kind_wants_it() {
    let api = Api::new().await;
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}});
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    assert_eq!(api.put(&format!("{budgets}/b"), &budget).await.code, 404, "that it is missing comes first");
    let made = api.post(budgets, &budget).await.expect(201);
    let said = "poddisruptionbudgets.policy \"b\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for \
                an update";
    for path in [format!("{budgets}/b"), format!("{budgets}/b/status")] {
        let refused = api.put(&path, &budget).await;
        assert_eq!((refused.code, refused.message()), (422, said.to_owned()), "{path}");
        api.put(&path, &made).await.expect(200);
    }
    api.post(CONFIG_MAPS, &config_map("free")).await.expect(201);
    api.put(&format!("{CONFIG_MAPS}/free"), &config_map("free")).await.expect(200);
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_missing_or_ending() {
    let api = Api::new().await;
    let missing = api.post("/api/v1/namespaces/none/configmaps", &config_map("x")).await;
    assert_eq!((missing.code, missing.message()), (404, "namespaces \"none\" not found".to_owned()));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ending"}});
    api.post("/api/v1/namespaces", &namespace).await.expect(201);
    api.delete("/api/v1/namespaces/ending").await.expect(200);
    let refused = api.post("/api/v1/namespaces/ending/configmaps", &config_map("x")).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
}

#[tokio::test]
async fn the_clusters_own_objects_are_there_and_made_once() {
    let api = Api::new().await;
    api.server.bootstrap().await.unwrap();
    let service = api.get("/api/v1/namespaces/default/services/kubernetes").await.expect(200);
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let endpoints = api.get("/api/v1/namespaces/default/endpoints/kubernetes").await.expect(200);
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 6443);
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(api.get(slices).await.expect(200)["endpoints"][0]["addresses"][0], "192.0.2.1");
}
