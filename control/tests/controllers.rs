//! The controllers and the scheduler against the real API server, in one process: what a user sees after an apply, a
//! rollout, a scale, an undo and a delete.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cluster;

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::json;

use wherry_api::object;
use wherry_api::resource::{Durability, GroupResource};
use wherry_control::auth::UserInfo;
use wherry_control::auth::renewal::{RenewalError, node_client};
use wherry_control::store::{Encoded, Key, Op, Store, Txn};

use self::cluster::{Cluster, ROOT_CA, deployment, eventually};

const REVISION: &str = "deployment.kubernetes.io/revision";

fn revision<K: kube::Resource>(object: &K) -> Option<&str> {
    object.meta().annotations.as_ref()?.get(REVISION).map(String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_available_behind_its_service_on_all_nodes() {
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "web"}]}});
    cluster.create::<Service>("default", service).await;
    cluster.create::<Deployment>("default", deployment("web", 3, "v1")).await;
    let done = cluster.rolled_out("default", "web").await;
    assert_eq!(revision(&done), Some("1"));
    let reasons: Vec<_> =
        done.status.iter().flat_map(|s| s.conditions.iter().flatten()).map(|c| c.reason.clone()).collect();
    assert!(reasons.contains(&Some("NewReplicaSetAvailable".to_owned())), "{reasons:?}");
    let mut nodes: Vec<_> = cluster.pods("default").await.iter().filter_map(|p| p.spec.clone()?.node_name).collect();
    nodes.sort();
    assert_eq!(nodes, ["a", "b", "c"]);
    let (slices, endpoints) = (cluster.api::<EndpointSlice>("default"), cluster.api::<Endpoints>("default"));
    let own = ListParams::default().labels("kubernetes.io/service-name=web");
    eventually("three ready endpoints", || async {
        let slices = slices.list(&own).await.expect("slices").items;
        let ready = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
        let ready = ready.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true))).count();
        let classic = endpoints.get_opt("web").await.expect("endpoints");
        let classic =
            classic.iter().flat_map(|e| e.subsets.iter().flatten()).flat_map(|s| s.addresses.iter().flatten());
        (slices.len(), ready, classic.count()) == (1, 3, 3)
    })
    .await;
    let port = slices.list(&own).await.expect("slices").items[0].ports.clone().expect("ports")[0].port;
    assert_eq!(port, Some(8080));
    let events = cluster.events("default", "web", "ScalingReplicaSet").await;
    assert!(
        events.iter().any(|e| e.starts_with("Scaled up replica set web-") && e.ends_with("from 0 to 3")),
        "{events:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_scales_and_undos_work_as_kubectl_does_them() {
    let cluster = Cluster::start(&["a"]).await;
    cluster.create::<Deployment>("default", deployment("web", 3, "v1")).await;
    let first = cluster.rolled_out("default", "web").await;
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster.patch::<Deployment>("default", "web", image("v2")).await;
    let second = cluster.rolled_out("default", "web").await;
    assert_eq!(revision(&second), Some("2"));
    let images =
        |pods: &[Pod]| pods.iter().filter_map(|p| p.spec.clone()?.containers[0].image.clone()).collect::<Vec<_>>();
    assert_eq!(images(&cluster.pods("default").await), ["v2"; 3]);

    let back = json!({"spec": {"template": first.spec.expect("a spec").template}});
    cluster.patch::<Deployment>("default", "web", back).await;
    let third = cluster.rolled_out("default", "web").await;
    assert_eq!(revision(&third), Some("3"));
    let sets = cluster.api::<ReplicaSet>("default").list(&ListParams::default()).await.expect("sets").items;
    assert_eq!(sets.len(), 2, "the first set is used again");

    cluster.patch::<Deployment>("default", "web", json!({"spec": {"replicas": 7}})).await;
    cluster.rolled_out("default", "web").await;
    cluster.patch::<Deployment>("default", "web", json!({"spec": {"replicas": 1}})).await;
    cluster.rolled_out("default", "web").await;
    eventually("one pod is left", || async { cluster.pods("default").await.len() == 1 }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_stops_a_rollout_before_it_does_harm() {
    let cluster = Cluster::start(&["a"]).await;
    cluster.create::<Deployment>("default", deployment("web", 4, "v1")).await;
    cluster.rolled_out("default", "web").await;
    let broken = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "broken"}]}}}});
    cluster.patch::<Deployment>("default", "web", broken).await;
    let deployments = cluster.api::<Deployment>("default");
    eventually("two new pods wait, three old ones serve", || async {
        let status = deployments.get("web").await.expect("a deployment").status.unwrap_or_default();
        (status.updated_replicas, status.available_replicas, status.unavailable_replicas) == (Some(2), Some(3), Some(2))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_deployment_takes_its_pods_along_unless_they_are_orphaned() {
    let cluster = Cluster::start(&["a"]).await;
    let deployments = cluster.api::<Deployment>("default");
    let sets = cluster.api::<ReplicaSet>("default");
    for (name, policy) in [("bg", PropagationPolicy::Background), ("fg", PropagationPolicy::Foreground)] {
        cluster.create::<Deployment>("default", deployment(name, 3, "v1")).await;
        cluster.rolled_out("default", name).await;
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        deployments.delete(name, &params).await.expect("a delete");
        eventually(&format!("nothing is left of {name}"), || async {
            deployments.get_opt(name).await.expect("a get").is_none()
                && sets.list(&ListParams::default()).await.expect("sets").items.is_empty()
                && cluster.pods("default").await.is_empty()
        })
        .await;
    }
    cluster.create::<Deployment>("default", deployment("or", 2, "v1")).await;
    cluster.rolled_out("default", "or").await;
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    deployments.delete("or", &params).await.expect("a delete");
    eventually("the deployment is gone", || async { deployments.get_opt("or").await.expect("a get").is_none() }).await;
    let left = sets.list(&ListParams::default()).await.expect("sets").items;
    assert_eq!(left.len(), 1);
    assert!(left[0].owner_references().is_empty());
    assert_eq!(cluster.pods("default").await.len(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_in_a_circle_do_not_wait_for_each_other() {
    let cluster = Cluster::start(&["a"]).await;
    let maps = cluster.api::<ConfigMap>("default");
    let names = ["one", "two", "three"];
    let mut uids = Vec::new();
    for name in names {
        uids.push(
            cluster.create::<ConfigMap>("default", json!({"metadata": {"name": name}})).await.uid().expect("a uid"),
        );
    }
    // Each is owned by the one before it, and the first by the last.
    for (index, name) in names.into_iter().enumerate() {
        let owner = (index + names.len() - 1) % names.len();
        let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": names[owner], "uid": uids[owner],
            "controller": true, "blockOwnerDeletion": true});
        cluster.patch::<ConfigMap>("default", name, json!({"metadata": {"ownerReferences": [reference]}})).await;
    }
    maps.delete("one", &DeleteParams::foreground()).await.expect("a delete");
    eventually("the circle is gone", || async {
        let left = maps.list(&ListParams::default()).await.expect("maps").items;
        left.iter().all(|map| !names.contains(&map.name_any().as_str()))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_gets_its_defaults_and_goes_with_all_its_content() {
    let cluster = Cluster::start(&["a"]).await;
    cluster.namespace("team").await;
    let maps = cluster.api::<ConfigMap>("team");
    eventually("the root certificate", || async {
        let map = maps.get_opt("kube-root-ca.crt").await.expect("a get");
        map.and_then(|m| m.data).is_some_and(|d| d.get("ca.crt").map(String::as_str) == Some(ROOT_CA))
    })
    .await;
    let accounts = cluster.api::<k8s_openapi::api::core::v1::ServiceAccount>("team");
    eventually("the account", || async { accounts.get_opt("default").await.expect("a get").is_some() }).await;
    cluster.create::<Deployment>("team", deployment("web", 5, "v1")).await;
    cluster.rolled_out("team", "web").await;
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/held"]},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "v1"}]}});
    cluster.create::<Pod>("team", held).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("team", &DeleteParams::default()).await.expect("a delete");
    eventually("only the pod that is held is left of the pods", || async {
        let namespace = namespaces.get("team").await.expect("a namespace");
        let conditions = namespace.status.and_then(|s| s.conditions).unwrap_or_default();
        conditions.iter().any(|c| {
            c.type_ == "NamespaceContentRemaining"
                && c.message.as_deref().is_some_and(|m| m.contains("pods. has 1 resource instances"))
        })
    })
    .await;
    assert!(maps.get_opt("kube-root-ca.crt").await.expect("a get").is_some(), "what pods may need outlives them");
    cluster.patch::<Pod>("team", "held", json!({"metadata": {"finalizers": null}})).await;
    eventually("the namespace is gone", || async { namespaces.get_opt("team").await.expect("a get").is_none() }).await;
    assert!(cluster.pods("team").await.is_empty());
    assert!(maps.list(&ListParams::default()).await.expect("maps").items.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_a_user_writes_are_mirrored_into_slices() {
    let cluster = Cluster::start(&[]).await;
    cluster.create::<Service>("default", json!({"metadata": {"name": "out"}, "spec": {"ports": [{"port": 80}]}})).await;
    let written = |ip: &str| json!({"metadata": {"name": "out"}, "subsets": [{"ports": [{"port": 80}], "addresses": [{"ip": ip}]}]});
    cluster.create::<Endpoints>("default", written("10.1.2.3")).await;
    let slices = cluster.api::<EndpointSlice>("default");
    let own = ListParams::default().labels("kubernetes.io/service-name=out");
    let addresses = || async {
        let slices = slices.list(&own).await.expect("slices").items;
        slices.into_iter().flat_map(|s| s.endpoints.unwrap_or_default()).flat_map(|e| e.addresses).collect::<Vec<_>>()
    };
    eventually("the address is in a slice", || async { addresses().await == ["10.1.2.3"] }).await;
    cluster.patch::<Endpoints>("default", "out", written("10.4.5.6")).await;
    eventually("the slice follows", || async { addresses().await == ["10.4.5.6"] }).await;
    cluster.api::<Endpoints>("default").delete("out", &DeleteParams::default()).await.expect("a delete");
    eventually("the slice is gone", || async { slices.list(&own).await.expect("slices").items.is_empty() }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_runs_as_soon_as_it_fits() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let pod = json!({"metadata": {"name": "picky"}, "spec": {"nodeSelector": {"disk": "fast"},
        "containers": [{"name": "c", "image": "v1"}]}});
    cluster.create::<Pod>("default", pod).await;
    let pods = cluster.api::<Pod>("default");
    eventually("the reason is told", || async {
        let pod = pods.get("picky").await.expect("a pod");
        let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
        conditions.iter().any(|c| {
            c.type_ == "PodScheduled"
                && c.reason.as_deref() == Some("Unschedulable")
                && c.message.as_deref().is_some_and(|m| {
                    m.starts_with(
                        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: ",
                    )
                })
        })
    })
    .await;
    eventually("an event tells", || async { !cluster.events("default", "picky", "FailedScheduling").await.is_empty() })
        .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"disk": "fast"}}}));
    nodes.patch("b", &PatchParams::default(), &label).await.expect("a label");
    eventually("it runs on b", || async {
        let pod = pods.get("picky").await.expect("a pod");
        pod.spec.and_then(|s| s.node_name).as_deref() == Some("b")
            && pod.status.and_then(|s| s.phase).as_deref() == Some("Running")
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_ready_is_tainted_and_its_pods_are_not_ready() {
    let cluster = Cluster::start(&["a", "b"]).await;
    cluster.create::<Deployment>("default", deployment("web", 4, "v1")).await;
    cluster.rolled_out("default", "web").await;
    let size = json!({"cpu": "64", "memory": "64Gi", "pods": "5000"});
    cluster::ready(&cluster.client, "b", "False", size).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    eventually("taints", || async {
        let taints = nodes.get("b").await.expect("a node").spec.and_then(|s| s.taints).unwrap_or_default();
        taints.iter().filter(|t| t.key == "node.kubernetes.io/not-ready").count() == 2
    })
    .await;
    let deployments = cluster.api::<Deployment>("default");
    eventually("two of four are available", || async {
        let status = deployments.get("web").await.expect("a deployment").status.unwrap_or_default();
        status.available_replicas == Some(2)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_pods_are_made_placed_and_counted_quickly() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let start = Instant::now();
    cluster.create::<Deployment>("default", deployment("many", 300, "v1")).await;
    cluster.rolled_out("default", "many").await;
    tracing::info!(took = ?start.elapsed(), "300 pods are available");
    assert_eq!(cluster.pods("default").await.len(), 300, "never one too many");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_becomes_a_node_and_the_node_renews_itself_without_a_person() {
    let cluster = Cluster::start(&[]).await;
    let patience = Duration::from_secs(30);
    let machine = UserInfo::authenticated("system:bootstrap:abcdef", &["system:bootstrappers"]);
    let first = node_client(cluster.client_as(machine), "n9", patience).await.unwrap();
    assert!(first.to_der().is_some());
    let again = node_client(cluster.client_as(UserInfo::node("n9")), "n9", patience).await.unwrap();
    assert_ne!(first.certificate, again.certificate);
    let other = node_client(cluster.client_as(UserInfo::node("n8")), "n9", patience).await;
    let Err(RenewalError::Request(error)) = other else { panic!("another node's certificate") };
    assert!(error.to_string().contains("can only create a node CSR with CN=system:node:n8"), "{error}");
    let nobody = UserInfo::authenticated("jane", &[]);
    let refused = node_client(cluster.client_as(nobody), "n9", patience).await;
    assert!(matches!(refused, Err(RenewalError::Request(_))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_outlives_its_deletion_while_a_pod_uses_it() {
    use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
    let cluster = Cluster::start(&["a"]).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": "data"}, "spec": spec});
    cluster.create::<PersistentVolumeClaim>("default", claim).await;
    let pod = json!({"metadata": {"name": "user"}, "spec": {"nodeName": "a", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "example.com/c:1"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    cluster.create::<Pod>("default", pod).await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    // Something else that the same controller does in the meantime shows that it has looked.
    let other = json!({"metadata": {"name": "other"}, "spec": spec});
    cluster.create::<PersistentVolumeClaim>("default", other).await;
    claims.delete("other", &DeleteParams::default()).await.unwrap();
    eventually("the unused claim is gone", || async { claims.get_opt("other").await.unwrap().is_none() }).await;
    let held = claims.get("data").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    cluster.api::<Pod>("default").delete("user", &DeleteParams::default().grace_period(0)).await.unwrap();
    eventually("the claim goes with its last user", || async { claims.get_opt("data").await.unwrap().is_none() }).await;

    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}});
    let made = volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    assert_eq!(made.metadata.finalizers.as_deref(), Some(&["kubernetes.io/pv-protection".to_owned()][..]));
    let bound = json!({"status": {"phase": "Bound"}});
    volumes.patch_status("v", &PatchParams::default(), &Patch::Merge(bound)).await.unwrap();
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    assert!(volumes.get("v").await.unwrap().metadata.deletion_timestamp.is_some());
    let released = json!({"status": {"phase": "Released"}});
    volumes.patch_status("v", &PatchParams::default(), &Patch::Merge(released)).await.unwrap();
    eventually("the volume goes when it is free", || async { volumes.get_opt("v").await.unwrap().is_none() }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_told_what_its_kinds_have_not() {
    use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
    let cluster = Cluster::start(&[]).await;
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]});
    let policy = json!({"metadata": {"name": "p.example"}, "spec": {"matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec.replicas <= 5"}, {"expression": "object.spec.sails > 1"}]}});
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(cluster.client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    eventually("the policy is judged", || async {
        let status = policies.get("p.example").await.unwrap().status.unwrap_or_default();
        status.observed_generation == Some(1)
    })
    .await;
    let status = policies.get("p.example").await.unwrap().status.unwrap_or_default();
    let warnings = status.type_checking.and_then(|checking| checking.expression_warnings).unwrap_or_default();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].field_ref, "spec.validations[1].expression");
    let wanted = "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'sails'";
    assert!(warnings[0].warning.starts_with(wanted), "{warnings:?}");
    cluster.stop().await;
}

fn ready(range: &ServiceCIDR) -> Option<(String, String)> {
    let conditions = range.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status.clone(), ready.reason.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_waits_for_its_last_address() {
    let cluster = Cluster::start(&[]).await;
    let ranges: Api<ServiceCIDR> = Api::all(cluster.client.clone());
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["203.0.113.0/24", "2001:db8::/64"]}});
    ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
    for name in ["more", "kubernetes"] {
        eventually("the range is ready and protected", || async {
            let range = ranges.get(name).await.unwrap();
            let finalizers = range.metadata.finalizers.clone().unwrap_or_default();
            finalizers == ["networking.k8s.io/service-cidr-finalizer"]
                && ready(&range) == Some(("True".to_owned(), String::new()))
        })
        .await;
    }
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "203.0.113.7", "ports": [{"port": 80}]}});
    cluster.create::<Service>("default", service).await;
    ranges.delete("more", &DeleteParams::default()).await.unwrap();
    eventually("it says that it waits", || async {
        ready(&ranges.get("more").await.unwrap()) == Some(("False".to_owned(), "Terminating".to_owned()))
    })
    .await;
    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    eventually("it is gone", || async { ranges.get_opt("more").await.unwrap().is_none() }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_ranges_that_go_one_stays_for_the_last_address() {
    const OWN: &str = "networking.k8s.io/service-cidr-finalizer";
    let cluster = Cluster::start(&[]).await;
    let ranges: Api<ServiceCIDR> = Api::all(cluster.client.clone());
    let held = |range: &ServiceCIDR| range.finalizers().iter().any(|finalizer| finalizer == OWN);
    for (name, finalizers) in [("one", vec!["example.com/kept"]), ("two", vec![])] {
        let metadata = json!({"name": name, "finalizers": finalizers});
        let range = json!({"metadata": metadata, "spec": {"cidrs": ["203.0.113.0/24"]}});
        ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
        eventually("the range is protected", || async { held(&ranges.get(name).await.unwrap()) }).await;
    }
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "203.0.113.7", "ports": [{"port": 80}]}});
    cluster.create::<Service>("default", service).await;
    ranges.delete("one", &DeleteParams::default()).await.unwrap();
    eventually("it may go", || async { !held(&ranges.get("one").await.unwrap()) }).await;
    // It is there for somebody else's sake only, and counts for nothing.
    ranges.delete("two", &DeleteParams::default()).await.unwrap();
    eventually("the other one waits", || async {
        ready(&ranges.get("two").await.unwrap()) == Some(("False".to_owned(), "Terminating".to_owned()))
    })
    .await;
    assert!(held(&ranges.get("two").await.unwrap()));
    cluster.api::<Service>("default").delete("web", &DeleteParams::default()).await.unwrap();
    eventually("it is gone", || async { ranges.get_opt("two").await.unwrap().is_none() }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_the_address_of_a_service_by_hand_is_mended() {
    let cluster = Cluster::start(&[]).await;
    let addresses: Api<IPAddress> = Api::all(cluster.client.clone());
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.3.7", "ports": [{"port": 80}]}});
    cluster.create::<Service>("default", service).await;
    let first = addresses.get("10.96.3.7").await.unwrap();
    addresses.delete("10.96.3.7", &DeleteParams::default()).await.unwrap();
    eventually("it is made again", || async {
        let again = addresses.get_opt("10.96.3.7").await.unwrap();
        again.is_some_and(|again| again.uid() != first.uid() && again.labels() == first.labels())
    })
    .await;
    eventually("an event tells", || async {
        let told = cluster.events("default", "web", "ClusterIPNotAllocated").await;
        told.contains(&"Cluster IP [IPv4]: 10.96.3.7 is not allocated; repairing".to_owned())
    })
    .await;
    let labels = Patch::Merge(json!({"metadata": {"labels": null}}));
    addresses.patch("10.96.3.7", &PatchParams::default(), &labels).await.unwrap();
    eventually("its labels come back", || async {
        addresses.get_opt("10.96.3.7").await.unwrap().is_some_and(|again| again.labels() == first.labels())
    })
    .await;
    let wrong = json!({"metadata": {"name": "10.96.3.8", "labels": first.labels()},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}});
    addresses.create(&PostParams::default(), &serde_json::from_value(wrong).unwrap()).await.unwrap();
    eventually("a second one goes", || async { addresses.get_opt("10.96.3.8").await.unwrap().is_none() }).await;
    // A healthy life makes no events.
    assert!(cluster.events("default", "kubernetes", "ClusterIPNotAllocated").await.is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_goes_with_an_object_whose_metadata_nobody_can_read() {
    let cluster = Cluster::start(&[]).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com",
        "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing"}, "versions": [version]}});
    definitions.create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap();
    eventually("it is established", || async {
        let conditions = definitions.get("things.example.com").await.unwrap().status.and_then(|s| s.conditions);
        conditions.iter().flatten().any(|c| c.type_ == "Established" && c.status == "True")
    })
    .await;
    let odd = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "odd", "namespace": "default",
        "uid": "1", "creationTimestamp": "2030-01-01T00:00:00Z", "annotations": "none", "ownerReferences": [{"x": 1}]}});
    let (bytes, splice) = object::encode(&odd);
    let things = GroupResource { group: "example.com".into(), resource: "things".into() };
    let put = Op::Put { key: Key::new(&things, "default", "odd"), value: Encoded { bytes, splice } };
    let txn = Txn { preconditions: Vec::new(), ops: vec![put], durability: Durability::Synced, expires_after: None };
    cluster.store.commit(txn).await.unwrap();
    definitions.delete("things.example.com", &DeleteParams::default()).await.unwrap();
    eventually("it is gone", || async { definitions.get_opt("things.example.com").await.unwrap().is_none() }).await;
    cluster.stop().await;
}
