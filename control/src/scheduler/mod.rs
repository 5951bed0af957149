//! Gives every pending pod a node.
//!
//! One loop decides, in memory, one pod after the other; each decision is assumed at once and bound in the background, with
//! many bindings in flight. Filters and scores are lists of plugins. What must stay true: a decision sees every decision
//! before it; a failed binding is taken back and tried again.

pub mod bind;
pub mod decide;
pub mod filters;
pub mod pod;
pub mod queue;
pub mod resources;
pub mod scores;
pub mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::decide::{Judges, Unschedulable, decide};
use self::pod::PodInfo;
use self::queue::{Queue, Wake};
use self::snapshot::Cluster;
use crate::controllers::pods;
use crate::reconcile::driver::drain;
use crate::reconcile::events::Type;
use crate::reconcile::{Change, EventRecorder, Key, Running, Shared, code_of};

/// Pods that name no scheduler, or this one, are ours.
pub const NAME: &str = "default-scheduler";
/// Requests in flight; more would only wait in the server.
const IN_FLIGHT: usize = 512;
/// How often the queue is looked through for pods that have waited too long.
const FLUSH: Duration = Duration::from_secs(30);

/// Starts the scheduler: it reads the shared caches and writes as `client`.
pub fn start(client: Client, shared: Arc<Shared>) -> Running {
    let stop = CancellationToken::new();
    let mut running = Running::new(stop.clone());
    let events = shared.events.component(NAME).managed_by(bind::MANAGER);
    let scheduler = Arc::new(Scheduler { client, shared, events, state: Mutex::default(), wake: Notify::new() });
    running.spawn(Box::pin(scheduler.run(stop)));
    running
}

struct Scheduler {
    client: Client,
    shared: Arc<Shared>,
    events: EventRecorder,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    cluster: Cluster,
    queue: Queue,
}

/// A pod's node, or why it has none.
type Decision = (Arc<PodInfo>, Result<String, Unschedulable>);

impl Scheduler {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            ((), ()) = async { tokio::join!(self.shared.nodes.synced(), self.shared.pods.synced()) } => {}
            () = stop.cancelled() => return,
        }
        let this = self.clone();
        self.shared.nodes.subscribe(move |change| this.node_changed(change));
        let this = self.clone();
        self.shared.pods.subscribe(move |change| this.pod_changed(change));
        let mut flights = JoinSet::new();
        tokio::select! {
            () = self.work(&mut flights) => {}
            () = stop.cancelled() => {}
        }
        drain(flights, NAME).await;
    }

    async fn work(self: &Arc<Self>, flights: &mut JoinSet<()>) {
        let judges = Judges::default();
        let mut turn = 0_usize;
        let mut flush = tokio::time::interval(FLUSH);
        loop {
            while flights.try_join_next().is_some() {}
            if flights.len() >= IN_FLIGHT {
                flights.join_next().await;
                continue;
            }
            turn = turn.wrapping_add(1);
            if let Some(decision) = self.next(&judges, turn) {
                flights.spawn(self.clone().carry_out(decision));
                tokio::task::consume_budget().await;
                continue;
            }
            let due = self.state.lock().queue.next_due();
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                _ = flush.tick() => self.state.lock().queue.flush(Instant::now()),
            }
        }
    }

    /// Decides about the next pod and counts it on its node.
    fn next(&self, judges: &Judges, turn: usize) -> Option<Decision> {
        let mut state = self.state.lock();
        let info = state.queue.pop(Instant::now())?;
        let result = decide(judges, &state.cluster, &info, turn);
        match &result {
            Ok(node) => state.cluster.assume(info.clone(), node),
            Err(denied) => state.queue.wait(&info.key, denied.wakes.clone()),
        }
        Some((info, result))
    }

    async fn carry_out(self: Arc<Self>, (info, result): Decision) {
        match result {
            Ok(node) => self.bind(&info, &node).await,
            Err(denied) => self.deny(&info, denied.message).await,
        }
    }

    async fn bind(&self, info: &PodInfo, node: &str) {
        // The node may tell of the pod before the answer is here: what happens to it begins now.
        let at = Timestamp::now();
        let Err(error) = bind::bind(self.client.clone(), info, node).await else {
            let message = format!("Successfully assigned {} to {node}", info.key);
            return self.events.event_at(at, &*info.pod, Type::Normal, "Scheduled", message);
        };
        let mut state = self.state.lock();
        state.cluster.forget(info);
        if code_of(&error) == Some(404) {
            state.queue.remove(&info.key);
        } else {
            warn!(pod = %info.key, node, %error, "binding failed; will try again");
            state.queue.retry(&info.key, Instant::now());
        }
        drop(state);
        self.wake.notify_one();
    }

    async fn deny(&self, info: &PodInfo, message: String) {
        if let Err(error) = bind::tell(self.client.clone(), info, &message).await {
            debug!(pod = %info.key, %error, "the condition was not written");
        }
        self.events.event(&*info.pod, Type::Warning, "FailedScheduling", message);
    }

    fn node_changed(&self, change: &Change<'_, Node>) {
        let mut state = self.state.lock();
        match (change.old, change.new) {
            (old, Some(new)) => {
                state.cluster.set_node(new);
                if old.is_none_or(|old| matters(old, new)) {
                    state.queue.wake(Wake::Node, Instant::now());
                }
            }
            (Some(old), None) => state.cluster.remove_node(&old.name_any()),
            (None, None) => {}
        }
        drop(state);
        self.wake.notify_one();
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        let Some(latest) = change.latest() else { return };
        let key = Key::of(&**latest);
        let now = Instant::now();
        let mut state = self.state.lock();
        let placed = change.old.is_some_and(|old| !pods::node(old).is_empty() && !pods::is_ended(old));
        if let Some(new) = change.new.filter(|new| !pods::is_ended(new)) {
            state.cluster.set_pod(new);
            if !is_ours(new) {
                state.queue.remove(&key);
            } else if !state.cluster.is_assumed(&key) {
                let changed = change.old.is_none_or(|old| old.spec != new.spec || old.labels() != new.labels());
                state.queue.add(Arc::new(PodInfo::new(new.clone())), changed, now);
            }
        } else {
            state.cluster.remove_pod(&key);
            state.queue.remove(&key);
            if placed {
                state.queue.wake(Wake::PodGone, now);
            }
        }
        drop(state);
        self.wake.notify_one();
    }
}

/// Whether this scheduler has to find a node for the pod.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let scheduler = spec.scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(NAME);
    scheduler == NAME
        && pods::node(pod).is_empty()
        && pods::is_active(pod)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

/// Whether a node's change can make a difference to pods that wait; a heartbeat cannot.
fn matters(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    old.spec != new.spec || old.labels() != new.labels() || allocatable(old) != allocatable(new)
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    #[test]
    fn gated_bound_and_foreign_pods_are_left_alone() {
        assert!(is_ours(&pod(json!({"containers": [], "schedulerName": NAME}))));
        assert!(is_ours(&pod(json!({"containers": []}))));
        assert!(!is_ours(&pod(json!({"containers": [], "schedulerName": "other"}))));
        assert!(!is_ours(&pod(json!({"containers": [], "schedulingGates": [{"name": "g"}]}))));
        assert!(!is_ours(&pod(json!({"containers": [], "nodeName": "n"}))));
    }

    #[test]
    fn a_heartbeat_wakes_nobody() {
        let node = |beat: &str, taint: bool| -> Node {
            let taints = if taint { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!(null) };
            serde_json::from_value(
                json!({"metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"conditions":
                [{"type": "Ready", "status": "True", "lastHeartbeatTime": beat}]}}),
            )
            .expect("a node")
        };
        let (one, other) = ("2030-01-01T00:00:00Z", "2030-01-01T00:00:10Z");
        assert!(!matters(&node(one, false), &node(other, false)));
        assert!(matters(&node(one, true), &node(one, false)));
    }
}
