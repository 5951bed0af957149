//! Subresources through the pipeline.

use serde_json::json;

use super::{Api, collection, pod, sample};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn scale_shows_and_writes_the_replicas() {
    let api = Api::new().await;
    let registry = api.server.registry().clone();
    let scalable: Vec<_> = registry.iter().filter(|r| r.subresource("scale").is_some()).collect();
    assert!(!scalable.is_empty());
    for resource in scalable {
        let all = collection(resource);
        let made = api.post(&all, &sample(resource, "s")).await.expect(201);
        let path = format!("{all}/s/scale");
        let mut scale = api.get(&path).await.expect(200);
        assert_eq!((scale["kind"].as_str(), scale["status"]["selector"].as_str()), (Some("Scale"), Some("app=x")));
        scale["spec"]["replicas"] = 4.into();
        let scaled = api.put(&path, &scale).await.expect(200);
        assert_eq!(scaled["spec"]["replicas"], 4);
        assert_eq!(api.put(&path, &scale).await.code, 409, "the revision of a Scale is a precondition");
        let patched = api.patch("merge-patch", &path, &json!({"spec": {"replicas": 2}})).await.expect(200);
        assert_eq!(patched["spec"]["replicas"], 2);
        assert_eq!(api.patch("merge-patch", &path, &json!({"spec": {"replicas": -1}})).await.code, 422);
        let whole = api.get(&format!("{all}/s")).await.expect(200);
        assert_eq!((&whole["spec"]["replicas"], &whole["metadata"]["uid"]), (&json!(2), &made["metadata"]["uid"]));
    }
}

#[tokio::test]
async fn a_scale_is_shown_in_a_table_of_its_own() {
    let api = Api::new().await;
    let registry = api.server.registry().clone();
    let deployments = registry.by_plural("apps", "v1", "deployments").unwrap();
    let all = collection(deployments);
    api.post(&all, &sample(deployments, "s")).await.expect(201);
    api.patch("merge-patch", &format!("{all}/s/scale"), &json!({"spec": {"replicas": 3}})).await.expect(200);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = api.get_as(&format!("{all}/s/scale"), accept).await.expect(200);
    let columns = table["columnDefinitions"].as_array().unwrap();
    let columns: Vec<_> = columns.iter().map(|c| (c["name"].as_str().unwrap(), c["type"].as_str().unwrap())).collect();
    let expected = [("Name", "string"), ("Desired", "integer"), ("Available", "integer"), ("Age", "string")];
    assert_eq!((&table["kind"], columns), (&json!("Table"), expected.to_vec()));
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("s"), json!(3), json!(0)]);
}

#[tokio::test]
async fn a_pod_is_bound_once_through_its_subresource() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/p/binding");
    assert_eq!(api.post(&path, &binding).await.expect(201)["status"], "Success");
    let bound = api.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert!(bound["status"]["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "PodScheduled"));
    let again = api.post(&path, &binding).await;
    assert!(again.code == 409 && again.message().contains("already assigned to node"), "{}", again.message());
    assert_eq!(api.post(&path, &json!({"kind": "Pod", "apiVersion": "v1"})).await.code, 400);
    assert_eq!(api.get(&path).await.code, 405);
}

#[tokio::test]
async fn an_eviction_deletes_its_pod() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.expect(201);
    let eviction = |version: &str| json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p"}});
    let refused = api.post(&format!("{PODS}/p/eviction"), &eviction("policy/v2")).await;
    assert!(refused.code == 400 && refused.message().contains("does not match"), "{}", refused.message());
    // Old clients name the version before.
    for version in ["policy/v1", "policy/v1beta1"] {
        api.post(PODS, &pod("p")).await;
        api.post(&format!("{PODS}/p/eviction"), &eviction(version)).await.expect(201);
        api.get(&format!("{PODS}/p")).await.expect(404);
    }
}

#[tokio::test]
async fn an_evicted_pod_says_that_it_was_disrupted() {
    let api = Api::new().await;
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    let made = api.post(PODS, &bound).await.expect(201);
    let path = format!("{PODS}/p/eviction");
    let eviction = |options: serde_json::Value| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": options});
    api.post(&path, &eviction(json!({"dryRun": ["All"]}))).await.expect(201);
    let refused = api.post(&path, &eviction(json!({"preconditions": {"uid": "another"}}))).await;
    assert_eq!((refused.code, refused.reason().as_str()), (409, "Conflict"));
    assert_eq!(api.get(&format!("{PODS}/p")).await.expect(200), made, "neither changes the pod");

    let now = json!({"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}});
    api.post(&path, &eviction(now)).await.expect(201);
    let waiting = api.get(&format!("{PODS}/p")).await.expect(200);
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    let conditions = waiting["status"]["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    assert_eq!(told["message"], "Eviction API: evicting");
}

#[tokio::test]
async fn logs_of_a_pod_without_a_node_are_empty() {
    let api = Api::new().await;
    api.post(PODS, &pod("p")).await.expect(201);
    let log = api.get(&format!("{PODS}/p/log")).await;
    assert_eq!((log.code, log.text.as_slice()), (200, &b""[..]));
    let wrong = api.get(&format!("{PODS}/p/log?container=z")).await;
    assert_eq!((wrong.code, wrong.message()), (400, "container z is not valid for pod p".to_owned()));
    assert_eq!(api.get(&format!("{PODS}/none/log")).await.code, 404);
}

#[tokio::test]
async fn what_cannot_be_connected_to_yet_says_so() {
    let api = Api::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    api.post(pods, &pod("p")).await.expect(201);
    for path in ["p/exec?command=ls", "p/attach", "p/portforward", "p/proxy/some/where"] {
        let answer = api.get(&format!("{pods}/{path}")).await;
        assert_eq!(answer.code, 501, "{path}");
        assert!(answer.message().contains("of pods is not supported yet"), "{}", answer.message());
        let reach = answer.message().ends_with("reachable at its status.podIP from this machine");
        assert_eq!(reach, path == "p/portforward", "{}", answer.message());
    }
    assert_eq!(api.get("/api/v1/nodes/n/proxy/metrics").await.code, 501);
    assert_eq!(api.get(&format!("{pods}/p/log/below")).await.code, 404);
}

#[tokio::test]
async fn a_pod_that_runs_is_looked_at_and_resized_through_paths_of_their_own() {
    let api = Api::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let mut pod = pod("p");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    let made = api.post(pods, &pod).await.expect(201);
    let look = json!({"spec": {"ephemeralContainers": [{"name": "look", "image": "example.com/look:1"}]}});
    assert_eq!(api.patch("strategic-merge-patch", &format!("{pods}/p"), &look).await.code, 422);
    let looked = api.patch("strategic-merge-patch", &format!("{pods}/p/ephemeralcontainers"), &look).await;
    assert_eq!(looked.warnings(), ["299 - \"spec.ephemeralContainers: ephemeral containers are not supported yet\""]);
    let looked = looked.expect(200);
    assert_eq!(looked["spec"]["ephemeralContainers"][0]["name"], "look");
    let size = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
    let resized = api.patch("strategic-merge-patch", &format!("{pods}/p/resize"), &size).await.expect(200);
    assert_eq!(resized["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    let generation = |pod: &serde_json::Value| pod["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&resized), generation(&made) + 2);
}
