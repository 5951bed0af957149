//! Workers with an API server and a backend that the test controls, in paused time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use wherry_api::lenient::Told;

use super::super::manager::{self, Manager};
use super::super::testing::{FakeContainer, World, eventually, pod};
use super::*;
use crate::backend::LogSink;

/// A manager that is fed by the test.
struct Node {
    world: World,
    manager: Manager,
    feed: mpsc::UnboundedSender<Event<Arc<Pod>>>,
    _run: tokio::task::JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let world = World::new(dir.path());
        let manager = Manager::new(world.ctx.clone());
        let (feed, source) = mpsc::unbounded_channel();
        let mut run = tokio::task::JoinSet::new();
        run.spawn(manager.clone().run(UnboundedReceiverStream::new(source).boxed()));
        Self { world, manager, feed, _run: run, _dir: dir }
    }

    fn apply(&self, pod: &Arc<Pod>) {
        self.feed.send(Event::Apply(pod.clone())).unwrap();
    }

    async fn phase(&self, name: &str, phase: &str) {
        let api = &self.world.api;
        eventually(phase, || api.phases(name).last().is_some_and(|last| last == phase)).await;
    }
}

fn deleting(name: &str, policy: &str, seconds: i64) -> Arc<Pod> {
    pod(name, policy, |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
    })
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_from_pending_over_running_to_succeeded() {
    let node = Node::new();
    node.apply(&pod("job", "Never", |_| {}));
    node.phase("job", "Running").await;
    let running = node.world.api.statuses("job").pop().unwrap();
    assert_eq!(running["containerStatuses"][0]["ready"], json!(true));
    assert!(running["podIP"].as_str().is_some_and(|ip| ip.starts_with("127.")));
    node.world.backend.container("job").unwrap().end(0);
    node.phase("job", "Succeeded").await;
    assert_eq!(node.world.api.events(), ["Pulled", "Created", "Started"]);
    assert!(!node.world.api.deleted("job"), "it stays until somebody deletes it");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_deleted_after_its_last_status_and_leaves_nothing() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    let container = node.world.backend.container("web").unwrap();
    node.apply(&deleting("web", "Always", 30));
    eventually("deleted", || node.world.api.deleted("web")).await;
    assert_eq!(*container.stops.lock(), [Duration::from_secs(30)]);
    let last = node.world.api.statuses("web").pop().unwrap();
    assert_eq!(last["containerStatuses"][0]["state"]["terminated"]["exitCode"], json!(137));
    assert_eq!(node.world.api.count(&Method::DELETE, "/api/v1/namespaces/default/pods/web"), 1);
    node.feed.send(Event::Delete(deleting("web", "Always", 30))).unwrap();
    eventually("forgotten", || node.manager.pods().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_read_any_more_runs_on_until_it_is_gone() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    let container = node.world.backend.container("web").unwrap();
    let text =
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "uid-web"}, "spec": {"containers": 1}});
    let unreadable = || manager::read(serde_json::from_str(&text.to_string()).unwrap(), &mut Told::default());
    for event in [Event::Apply(unreadable()), Event::Init, Event::InitApply(unreadable()), Event::InitDone] {
        node.feed.send(event).unwrap();
    }
    node.apply(&pod("other", "Always", |_| {}));
    node.phase("other", "Running").await;
    assert!(container.stops.lock().is_empty() && node.manager.find("default", "web").is_some());
    node.feed.send(Event::Delete(unreadable())).unwrap();
    eventually("stopped", || !container.stops.lock().is_empty()).await;
    eventually("forgotten", || node.manager.find("default", "web").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_shortens_the_first() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    let container = node.world.backend.container("web").unwrap();
    node.apply(&deleting("web", "Always", 3600));
    eventually("stopping", || !container.stops.lock().is_empty()).await;
    let began = Instant::now();
    node.apply(&deleting("web", "Always", 1));
    eventually("deleted", || node.world.api.deleted("web")).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(*container.stops.lock(), [Duration::from_hours(1), Duration::from_secs(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_its_image_is_pulled_is_removed_at_once() {
    let node = Node::new();
    let slow = |pod: &mut serde_json::Value| pod["spec"]["containers"][0]["image"] = json!("slow:1");
    node.apply(&pod("web", "Always", slow));
    node.phase("web", "Pending").await;
    let began = Instant::now();
    node.apply(&deleting("web", "Always", 30));
    eventually("deleted", || node.world.api.deleted("web")).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(node.world.backend.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_environment_is_resolved_and_a_missing_reference_is_waited_for() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |pod| {
        let container = &mut pod["spec"]["containers"][0];
        container["envFrom"] = json!([{"prefix": "P_", "configMapRef": {"name": "settings"}}]);
        container["args"] = json!(["--greeting=$(GREETING)", "$$(GREETING)", "$(NOBODY)"]);
        container["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "250m"}});
        container["env"] = json!([
            {"name": "HOST", "value": "$(STORE_SERVICE_HOST)"},
            {"name": "GREETING", "value": "hello $(P_key)"},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.host"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": true}}},
        ]);
    }));
    let waiting = || {
        let status = node.world.api.statuses("web").pop().unwrap_or_default();
        status["containerStatuses"][0]["state"]["waiting"].clone()
    };
    eventually("refused", || waiting()["reason"] == json!("CreateContainerConfigError")).await;
    assert_eq!(waiting()["message"], json!("configmap \"settings\" not found"));
    let settings = json!({"metadata": {"name": "settings"}, "data": {"key": "world"}});
    node.world.api.put("/api/v1/namespaces/default/configmaps/settings", settings);
    node.phase("web", "Running").await;
    let config = node.world.backend.container("web").unwrap().config.clone();
    let env = |name: &str| config.env.get(name).map(String::as_str);
    assert_eq!(env("P_key"), Some("world"));
    assert_eq!(env("GREETING"), Some("hello world"));
    assert_eq!(env("HOST"), Some("127.96.0.2"));
    assert_eq!((env("APP"), env("NODE")), (Some("web"), Some("n1")));
    assert!(env("IP").is_some_and(|ip| ip.starts_with("127.")));
    assert_eq!((env("CPU"), env("MEMORY"), env("MAYBE")), (Some("1"), Some("64"), None));
    assert_eq!(config.args, ["--greeting=hello world", "$(GREETING)", "$(NOBODY)"]);
    assert_eq!((config.memory_limit, config.cpu_limit), (Some(64 << 20), Some(250)));
}

#[tokio::test(start_paused = true)]
async fn the_newest_status_is_written_though_writes_fail() {
    let node = Node::new();
    node.world.api.refuse(&[StatusCode::INTERNAL_SERVER_ERROR; 3]);
    node.apply(&pod("job", "Never", |_| {}));
    eventually("started", || node.world.backend.container("job").is_some()).await;
    node.world.backend.container("job").unwrap().end(0);
    node.phase("job", "Succeeded").await;
    let phases = node.world.api.phases("job");
    assert_eq!(phases.iter().filter(|phase| *phase == "Succeeded").count(), 1, "never back: {phases:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_another_called_unready_is_reported_ready_again() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    let called = |at: &str| {
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": at});
        pod("web", "Always", |pod| pod["status"] = json!({"phase": "Running", "conditions": [condition]}))
    };
    let before = node.world.api.statuses("web").len();
    node.apply(&called("2000-01-01T00:00:00Z"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.world.api.statuses("web").len(), before, "its own older word is not another's");
    node.apply(&called("2200-01-01T00:00:00Z"));
    eventually("written again", || node.world.api.statuses("web").len() > before).await;
    let conditions = node.world.api.statuses("web").pop().unwrap()["conditions"].clone();
    assert!(conditions.as_array().unwrap().iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pods_start_together_with_few_reads_and_bounded_events() {
    let node = Node::new();
    let settings = json!({"metadata": {"name": "settings"}, "data": {"key": "v"}});
    node.world.api.put("/api/v1/namespaces/default/configmaps/settings", settings);
    for n in 0..1000 {
        node.apply(&pod(&format!("web-{n}"), "Always", |pod| {
            pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
        }));
    }
    let began = Instant::now();
    eventually("started", || node.world.backend.containers().len() == 1000).await;
    for n in 0..1000 {
        node.phase(&format!("web-{n}"), "Running").await;
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let reads = node.world.api.count(&Method::GET, "/api/v1/namespaces/default/configmaps/settings");
    assert!(reads <= 10, "{reads}");
    assert!(node.world.api.events().len() <= 250, "{}", node.world.api.events().len());
}

#[tokio::test(start_paused = true)]
async fn shutting_down_stops_containers_and_tells_the_api_nothing() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    let written = node.world.api.statuses("web").len();
    node.manager.shutdown(Duration::from_secs(3)).await;
    assert_eq!(*node.world.backend.container("web").unwrap().stops.lock(), [Duration::from_secs(3)]);
    assert_eq!(node.world.api.statuses("web").len(), written);
    assert!(!node.world.api.deleted("web"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_while_the_node_shuts_down_is_not_begun() {
    let node = Node::new();
    busy(&node, "web").await;
    let manager = node.manager.clone();
    let shutdown = tokio::spawn(async move { manager.shutdown(Duration::from_secs(10)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.apply(&pod("late", "Always", |_| {}));
    shutdown.await.unwrap();
    assert!(node.world.backend.container("late").is_none() && node.manager.find("default", "late").is_none());
}

/// Lets a pod's worker fail while its container runs.
async fn failed(node: &Node, name: &str) {
    let container = node.world.backend.container(name).unwrap();
    container.panics.store(true, Ordering::Relaxed);
    container.end(1);
    eventually("the worker failed", || !container.panics.load(Ordering::Relaxed)).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_fails_is_followed_by_one_that_knows_what_it_knew() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    for restarts in 1..=3 {
        failed(&node, "web").await;
        // The newest Pod counts, though it came while nobody worked.
        node.apply(&pod("web", "Always", |pod| {
            pod["spec"]["containers"][0]["image"] = json!(format!("img:{restarts}"));
        }));
        eventually("started again", || node.world.backend.containers().len() == restarts + 1).await;
        let shown = || node.world.api.statuses("web").pop().unwrap()["containerStatuses"][0].clone();
        eventually("counted", || {
            shown()["restartCount"] == json!(restarts) && shown()["image"] == json!(format!("img:{restarts}"))
        })
        .await;
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(node.world.backend.containers().len(), 4);
}

/// A node with one pod, whose worker failed while it ran.
async fn after_a_failure(name: &str, policy: &str) -> Node {
    let node = Node::new();
    node.apply(&pod(name, policy, |_| {}));
    node.phase(name, "Running").await;
    failed(&node, name).await;
    node
}

#[tokio::test(start_paused = true)]
async fn what_must_not_run_twice_does_not_though_its_worker_failed() {
    let node = after_a_failure("job", "Never").await;
    node.phase("job", "Failed").await;
    assert_eq!(node.world.backend.containers().len(), 1);
    let last = node.world.api.statuses("job").pop().unwrap();
    let ended = &last["containerStatuses"][0]["state"]["terminated"];
    let said = "The node failed in its work on this pod while the container ran, and ended the container; its restart \
                policy is Never";
    assert_eq!((&ended["reason"], &ended["message"]), (&json!("ContainerStatusUnknown"), &json!(said)));
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_after_its_worker_failed_is_not_begun_again() {
    let node = after_a_failure("web", "Always").await;
    node.feed.send(Event::Delete(pod("web", "Always", |_| {}))).unwrap();
    eventually("forgotten", || node.manager.pods().is_empty()).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(node.world.backend.containers().len(), 1);
}

/// A pod of two containers, and these as far as the test drives them: the first has something under way for three seconds.
async fn busy(node: &Node, name: &str) -> Vec<Arc<FakeContainer>> {
    node.apply(&pod(name, "Always", |pod| {
        pod["spec"]["containers"] = json!([{"name": "front", "image": "img:1"}, {"name": "aside", "image": "img:1"}]);
    }));
    node.phase(name, "Running").await;
    let containers = node.world.backend.containers();
    let front = containers.iter().find(|container| container.config.name == "front").unwrap().clone();
    front.drained.send_replace(false);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        front.drained.send_replace(true);
    });
    containers
}

#[tokio::test(start_paused = true)]
async fn no_container_is_stopped_while_its_neighbour_has_something_under_way() {
    let node = Node::new();
    let containers = busy(&node, "web").await;
    let ends = deleting("web", "Always", 30);
    let mut ends = Arc::unwrap_or_clone(ends);
    ends.spec = node.manager.find("default", "web").unwrap().pod().spec.clone();
    node.apply(&Arc::new(ends));
    tokio::time::sleep(Duration::from_millis(2900)).await;
    assert!(containers.iter().all(|container| container.stops.lock().is_empty()));
    eventually("stopped", || containers.iter().all(|container| !container.stops.lock().is_empty())).await;
    for container in &containers {
        let left = container.stops.lock()[0];
        assert!(left > Duration::from_millis(26_900) && left <= Duration::from_millis(27_100), "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_stopped_by_a_shutdown_while_another_has_something_under_way() {
    let node = Node::new();
    node.apply(&pod("other", "Always", |_| {}));
    node.phase("other", "Running").await;
    busy(&node, "web").await;
    let other = node.world.backend.container("other").unwrap();
    let manager = node.manager.clone();
    let shutdown = tokio::spawn(async move { manager.shutdown(Duration::from_secs(10)).await });
    tokio::time::sleep(Duration::from_millis(2900)).await;
    assert!(other.stops.lock().is_empty());
    shutdown.await.unwrap();
    assert!(other.stops.lock()[0] <= Duration::from_millis(7_100), "the grace is for both");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_how_what_is_not_started_again_ended() {
    let node = Node::new();
    node.apply(&pod("job", "Never", |_| {}));
    node.phase("job", "Running").await;
    node.manager.shutdown(Duration::ZERO).await;
    node.phase("job", "Failed").await;
    let last = node.world.api.statuses("job").pop().unwrap();
    let ended = &last["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(137), &json!("Error")));
    assert!(ended["finishedAt"].is_string());
}

#[tokio::test(start_paused = true)]
async fn restarts_are_known_to_the_next_process_though_nobody_was_told_and_nothing_was_written() {
    let node = Node::new();
    let told = pod("web", "Always", |pod| {
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let of_it =
            json!({"name": "a", "image": "img:1", "imageID": "", "ready": true, "restartCount": 0, "state": running});
        pod["status"] = json!({"phase": "Running", "containerStatuses": [of_it]});
    });
    for attempt in 1..=2 {
        node.world.ctx.logs.open(&told, "a", attempt).create().await;
    }
    node.apply(&told);
    let shown = || Some(node.world.api.statuses("web").last()?["containerStatuses"][0].clone());
    eventually("it is counted", || shown().is_some_and(|shown| shown["restartCount"] == json!(3))).await;
    assert_eq!(shown().unwrap()["lastState"]["terminated"]["reason"], json!("Unknown"));
    assert_eq!(node.world.backend.container("web").unwrap().config.attempt, 3);
    assert_eq!(node.world.ctx.logs.newest(&told, "a"), Some(3));
}

#[tokio::test(start_paused = true)]
async fn what_must_not_run_twice_does_not_though_nobody_was_told_that_it_ran() {
    let node = Node::new();
    let job = pod("job", "Never", |_| {});
    let log = node.world.ctx.logs.open(&job, "a", 0);
    log.line(crate::backend::Stream::Stdout, "ran").await;
    log.close().await;
    node.apply(&job);
    node.phase("job", "Failed").await;
    assert!(node.world.backend.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_missing_from_a_new_list_is_stopped() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    let container = node.world.backend.container("web").unwrap();
    node.feed.send(Event::Init).unwrap();
    node.feed.send(Event::InitDone).unwrap();
    eventually("forgotten", || node.manager.pods().is_empty()).await;
    assert_eq!(container.stops.lock().len(), 1);
    assert!(!node.world.api.deleted("web"), "there is nothing to delete");
}

#[tokio::test(start_paused = true)]
async fn a_pod_made_again_under_its_name_runs_beside_the_one_that_ends() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    node.apply(&deleting("web", "Always", 30));
    node.apply(&pod("web", "Always", |pod| pod["metadata"]["uid"] = json!("another")));
    eventually("both run", || node.world.backend.containers().len() == 2).await;
    assert_eq!(node.manager.pods().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_honoured_is_said_and_not_run() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |pod| pod["spec"]["hostNetwork"] = json!(true)));
    node.phase("web", "Pending").await;
    eventually("said", || node.world.api.events().contains(&"UnsupportedFeature".to_owned())).await;
    assert!(node.world.backend.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_container_asks_for_and_cannot_have_is_said() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |pod| {
        pod["metadata"]["annotations"] = json!({"wherry.dev/max-instances": "2"});
    }));
    node.phase("web", "Running").await;
    eventually("said", || node.world.api.events().contains(&"InstancesLimited".to_owned())).await;
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_that_comes_to_a_running_pod_is_told_once() {
    let node = Node::new();
    node.apply(&pod("web", "Always", |_| {}));
    node.phase("web", "Running").await;
    let looked =
        pod("web", "Always", |pod| pod["spec"]["ephemeralContainers"] = json!([{"name": "look", "image": "i"}]));
    let told = || node.world.api.events().iter().filter(|reason| *reason == "UnsupportedFeature").count();
    assert_eq!(told(), 0);
    node.apply(&looked);
    eventually("told", || told() == 1).await;
    node.apply(&looked);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(told(), 1);
}

/// The task is most of what an idle pod costs here besides its Pod.
#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(dir.path());
    let shared = Arc::new(Shared::new(pod("web", "Always", |_| {})));
    let mut worker = Worker::new(world.ctx.clone(), shared, None);
    let size = size_of_val(&worker) + size_of_val(&worker.run());
    assert!(size < 4096, "{size}");
}
