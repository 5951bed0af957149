//! A group that another API server serves is used with an unmodified kubectl like any other, and hurts nobody when it is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)]

#[path = "support/extension.rs"]
mod extension;
mod support;

use extension::{ADDRESS, Extension};
use serde_json::{Value, json};
use support::{Wherry, eventually};

const NAME: &str = "v1alpha1.wardle.example.com";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

fn flunder(name: &str) -> String {
    json!({"apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": {"name": name},
        "spec": {"depth": 3}})
    .to_string()
}

/// The condition of an APIService: status, reason and message.
fn available(server: &Wherry, name: &str) -> (String, String, String) {
    let service = server.api().get(&format!("{SERVICES}/{name}")).json();
    let text = |field: &str| service["status"]["conditions"][0][field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn until_available(server: &Wherry, name: &str, reason: &str) -> String {
    eventually(&format!("{name} is {reason}"), || {
        let (status, said, message) = available(server, name);
        if said == reason { Ok(message) } else { Err(format!("{status} {said}: {message}")) }
    })
}

struct Cluster {
    server: Wherry,
    extension: Extension,
}

#[test]
fn another_servers_group_is_used_like_any_other() {
    needs!("kubectl");
    let server = Wherry::start("aggregator");
    let trust = server.api().get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").ok();
    let extension = Extension::start("api.wardle.svc", trust["data"]["requestheader-client-ca-file"].as_str().unwrap());
    assert_eq!(trust["data"]["requestheader-username-headers"], "[\"X-Remote-User\"]");
    assert_eq!(trust["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    what_is_missing_is_told_until_the_server_is_there(&server, &extension);
    let cluster = Cluster { server, extension };
    claims!(&cluster;
        objects_are_made_listed_watched_and_explained,
        the_server_learns_who_asks,
        a_namespace_takes_its_objects_along,
    );
    let Cluster { server, extension } = cluster;
    drop(extension);
    claims!(&server;
        without_the_server_its_group_is_unavailable_and_others_are_not,
        a_namespace_says_what_it_waits_for,
    );
}

fn what_is_missing_is_told_until_the_server_is_there(server: &Wherry, extension: &Extension) {
    let spec = json!({"group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 1000,
        "versionPriority": 15, "caBundle": extension.bundle, "service": {"namespace": "wardle", "name": "api"}});
    server.kubectl(&["create", "namespace", "wardle"]).ok();
    server
        .apply(&[json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME},
        "spec": spec})]);
    assert_eq!(until_available(server, NAME, "ServiceNotFound"), "service/api in \"wardle\" is not present");
    let meta = |name: &str| json!({"name": name, "namespace": "wardle"});
    let service = |port: u32| json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("api"), "spec": {"ports": [{"port": port}]}});
    server.apply(&[service(80)]);
    until_available(server, NAME, "ServicePortError");
    server.apply(&[service(443)]);
    until_available(server, NAME, "EndpointsNotFound");
    let slice = |port: u16, ready: bool| {
        let mut meta = meta("api-1");
        meta["labels"] = json!({"kubernetes.io/service-name": "api"});
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
            "ports": [{"port": port}], "endpoints": [{"addresses": [ADDRESS.to_string()], "conditions": {"ready": ready}}]})
    };
    server.apply(&[slice(1, false)]);
    until_available(server, NAME, "MissingEndpoints");
    server.apply(&[slice(1, true)]);
    let message = until_available(server, NAME, "FailedDiscoveryCheck");
    assert!(
        message.starts_with(
            "failing or missing response from https://api.wardle.svc:443/apis/wardle.example.com/v1alpha1: "
        ),
        "{message}"
    );
    server.apply(&[slice(extension.port, true)]);
    server.kubectl(&["wait", "--for=condition=Available", &format!("apiservice/{NAME}"), "--timeout=60s"]).ok();
    eventually("discovery shows the kind", || {
        let said = server.kubectl(&["api-resources", "--api-group=wardle.example.com", "-o", "wide"]);
        if said.stdout.contains("flunders") { Ok(()) } else { Err(said.to_string()) }
    });
}

fn objects_are_made_listed_watched_and_explained(cluster: &Cluster) {
    let server = &cluster.server;
    let mut following = server.follow(&["get", "flunders", "--watch-only", "-o", "name"]);
    // What happens after its list is in its watch.
    eventually("kubectl has asked", || {
        let users = cluster.extension.users();
        if users.iter().any(|user| user.starts_with("wherry-admin ")) { Ok(()) } else { Err(users.join("\n")) }
    });
    server.kubectl_with(&["create", "-f", "-"], &flunder("one")).ok();
    following.until("the new object is seen", |line| line.contains("flunder.wardle.example.com/one"));
    for name in ["flunders", "flunder", "fl", "flunders.wardle.example.com"] {
        let shown = server.kubectl(&["get", name]).ok();
        assert!(shown.lines().nth(1).is_some_and(|line| line.starts_with("one ")), "{shown}");
    }
    assert_eq!(server.kubectl(&["get", "fl", "one", "-o", "jsonpath={.spec.depth}"]).ok(), "3");
    let missing = server.kubectl(&["get", "fl", "two"]).fails();
    assert!(missing.contains("the extension server says NotFound"), "{missing}");
    let explained = server.kubectl(&["explain", "flunder.spec.depth"]).ok();
    assert!(explained.contains("How deep it lies.") && explained.contains("<integer>"), "{explained}");
    let versions = server.kubectl(&["api-versions"]).ok();
    assert!(versions.lines().any(|line| line == "wardle.example.com/v1alpha1"), "{versions}");
    assert!(server.kubectl(&["get", "apiservice", NAME]).ok().contains("wardle/api"), "the column SERVICE");
}

fn the_server_learns_who_asks(cluster: &Cluster) {
    let server = &cluster.server;
    let as_jane = ["get", "flunders", "--as=jane", "--as-group=fishers"];
    let refused = server.kubectl(&as_jane).fails();
    assert!(
        refused.contains("User \"jane\" cannot list resource \"flunders\" in API group \"wardle.example.com\""),
        "{refused}"
    );
    server
        .kubectl(&["create", "clusterrole", "fisher", "--verb=get,list", "--resource=flunders.wardle.example.com"])
        .ok();
    server.kubectl(&["create", "clusterrolebinding", "jane", "--clusterrole=fisher", "--user=jane"]).ok();
    server.kubectl(&as_jane).ok();
    let users = cluster.extension.users();
    assert!(users.iter().any(|user| user == "jane fishers,system:authenticated"), "{users:?}");
    assert!(users.iter().any(|user| user.starts_with("wherry-admin system:masters")), "{users:?}");
}

fn a_namespace_takes_its_objects_along(cluster: &Cluster) {
    let server = &cluster.server;
    server.kubectl(&["create", "namespace", "sea"]).ok();
    server.kubectl_with(&["create", "-n", "sea", "-f", "-"], &flunder("drowned")).ok();
    assert!(cluster.extension.objects().contains(&"sea/drowned".to_owned()));
    server.kubectl(&["delete", "namespace", "sea", "--timeout=60s"]).ok();
    let left = cluster.extension.objects();
    assert!(!left.contains(&"sea/drowned".to_owned()) && left.contains(&"default/one".to_owned()), "{left:?}");
}

fn without_the_server_its_group_is_unavailable_and_others_are_not(server: &Wherry) {
    until_available(server, NAME, "FailedDiscoveryCheck");
    let path = "/apis/wardle.example.com/v1alpha1/flunders";
    let message = eventually("its group is unavailable", || {
        let answer = server.api().get(path);
        if answer.status == 503 { Ok(answer.refused(503, "ServiceUnavailable")) } else { Err(answer.text()) }
    });
    assert!(message.contains("service"), "{message}");
    server.kubectl(&["get", "pods"]).ok();
    server.kubectl(&["create", "configmap", "dry", "--from-literal=a=b"]).ok();
    let list =
        server.api().with_accept("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").get("/apis");
    let groups = list.ok()["items"].as_array().cloned().unwrap();
    let wardle = groups.iter().find(|group| group["metadata"]["name"] == "wardle.example.com").unwrap();
    assert_eq!(wardle["versions"][0]["freshness"], "Stale");
    eventually("the numbers tell", || {
        let text = server.api().get("/metrics").text();
        let told = [
            format!("aggregator_unavailable_apiservice{{name=\"{NAME}\"}} 1"),
            "aggregator_unavailable_apiservice{name=\"v1.apps\"} 0".to_owned(),
            format!("aggregator_unavailable_apiservice_total{{name=\"{NAME}\",reason=\""),
        ];
        if told.iter().all(|line| text.contains(line)) { Ok(()) } else { Err(text) }
    });
}

fn a_namespace_says_what_it_waits_for(server: &Wherry) {
    server.kubectl(&["create", "namespace", "lake"]).ok();
    server.kubectl(&["create", "configmap", "wet", "-n", "lake"]).ok();
    server.kubectl(&["delete", "namespace", "lake", "--wait=false"]).ok();
    let said = eventually("the namespace says so", || {
        let namespace = server.api().get("/api/v1/namespaces/lake").json();
        let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let failure: Option<Value> =
            conditions.into_iter().find(|c| c["type"] == "NamespaceDeletionDiscoveryFailure" && c["status"] == "True");
        failure.ok_or_else(|| namespace.to_string())
    });
    assert_eq!(said["reason"], "DiscoveryFailed");
    assert_eq!(
        said["message"],
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
         wardle.example.com/v1alpha1: stale GroupVersion discovery: wardle.example.com/v1alpha1"
    );
    eventually("all else goes", || {
        let maps = server.api().get("/api/v1/namespaces/lake/configmaps").json();
        let left =
            maps["items"].as_array().map_or(0, |items| items.iter().filter(|m| m["metadata"]["name"] == "wet").count());
        if left == 0 { Ok(()) } else { Err(maps.to_string()) }
    });
    server.kubectl(&["delete", "apiservice", NAME]).ok();
    server.kubectl(&["wait", "--for=delete", "namespace/lake", "--timeout=90s"]).ok();
}

#[test]
fn each_group_that_is_served_here_has_an_apiservice() {
    let server = Wherry::start("registrar");
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1.rbac.authorization.k8s.io"] {
        let message = until_available(&server, name, "Local");
        assert_eq!(message, "Local APIServices are always available");
    }
    let api = server.api();
    let apps = api.get(&format!("{SERVICES}/v1.apps")).ok();
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17_800, "versionPriority": 15})
    );
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boats.sea.example.com"}, "spec": {"group": "sea.example.com", "scope": "Namespaced",
            "names": {"plural": "boats", "kind": "Boat"}, "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    api.post(definitions, &definition).ok();
    until_available(&server, "v1.sea.example.com", "Local");
    let path = format!("{SERVICES}/v1.sea.example.com");
    let first = api.get(&path).ok();
    assert_eq!(first["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    api.delete(&path).ok();
    eventually("it is made again", || {
        let again = api.get(&path);
        let is_new = again.status == 200 && again.json()["metadata"]["uid"] != first["metadata"]["uid"];
        if is_new { Ok(()) } else { Err(again.text()) }
    });
    api.delete(&format!("{definitions}/boats.sea.example.com")).ok();
    eventually("it goes with its definition", || {
        let gone = api.get(&path);
        if gone.status == 404 { Ok(()) } else { Err(gone.text()) }
    });
}
