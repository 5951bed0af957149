//! Removes pods that nobody else will: those of nodes that are gone, those that were deleted before they had a node, and
//! ended ones beyond a number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tracing::info;

use super::{pods, write};
use crate::controllers::{Context, FromContext};
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step, absent_is_fine};

/// How often pods are looked through.
const EVERY: Duration = Duration::from_secs(20);
/// A node must be missing for this long: it may have been registered after its pods were read.
const QUARANTINE: Duration = Duration::from_secs(40);

#[derive(Debug)]
pub struct PodGc {
    shared: Arc<Shared>,
    keep: usize,
    /// Since when nodes that pods name have been missing; bounded by the pods.
    missing: Mutex<HashMap<String, Instant>>,
}

impl FromContext for PodGc {
    fn new(context: &Context) -> Self {
        let keep = context.config.terminated_pods;
        Self { shared: context.shared.clone(), keep, missing: Mutex::default() }
    }
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Orphan,
    Unscheduled,
    Surplus,
}

/// All pods that may go. Orphans' nodes are still to be looked up.
fn plan(all: &[Arc<Pod>], has_node: impl Fn(&str) -> bool, keep: usize) -> Vec<(Reason, Arc<Pod>)> {
    let mut going = Vec::new();
    let mut ended = Vec::new();
    for pod in all {
        let node = pods::node(pod);
        if !node.is_empty() && !has_node(node) {
            going.push((Reason::Orphan, pod.clone()));
        } else if node.is_empty() && pods::is_deleting(pod) {
            going.push((Reason::Unscheduled, pod.clone()));
        } else if pods::is_ended(pod) && !pods::is_deleting(pod) {
            ended.push(pod.clone());
        }
    }
    if keep > 0 && ended.len() > keep {
        let surplus = ended.len() - keep;
        ended.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone()));
        going.extend(ended.into_iter().take(surplus).map(|pod| (Reason::Surplus, pod)));
    }
    going
}

impl Controller for PodGc {
    /// One key: all pods.
    type Key = ();
    const NAME: &'static str = "podgc";
    const RESYNC: Duration = EVERY;

    fn watch(self: &Arc<Self>, _queue: &Queue<()>) {}

    fn keys(&self) -> Vec<()> {
        vec![()]
    }

    async fn reconcile(&self, (): &()) -> Result<Option<Duration>, Error> {
        let has_node = |name: &str| self.shared.nodes.get(&Key::new("", name)).is_some();
        let going = plan(&self.shared.pods.list(), has_node, self.keep);
        let orphaned = |name: &String| going.iter().any(|(r, pod)| *r == Reason::Orphan && pods::node(pod) == name);
        self.missing.lock().retain(|name, _| orphaned(name));
        let mut known: HashMap<String, bool> = HashMap::new();
        for (reason, pod) in going {
            if reason == Reason::Orphan {
                let node = pods::node(&pod).to_owned();
                let gone = match known.get(&node) {
                    Some(gone) => *gone,
                    None => self.is_gone(&node).await?,
                };
                known.insert(node, gone);
                if !gone {
                    continue;
                }
            }
            self.remove(reason, &pod).await?;
        }
        Ok(None)
    }
}

impl PodGc {
    /// Whether the node has been missing for long, and the server says so too.
    async fn is_gone(&self, node: &str) -> Result<bool, Error> {
        let since = *self.missing.lock().entry(node.to_owned()).or_insert_with(Instant::now);
        if since.elapsed() < QUARANTINE {
            return Ok(false);
        }
        let api: Api<Node> = Api::all(self.shared.client.clone());
        Ok(api.get_opt(node).await.step("look a node up")?.is_none())
    }

    async fn remove(&self, reason: Reason, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &pod.namespace().unwrap_or_default());
        if reason == Reason::Orphan && !pods::is_ended(pod) {
            let status = json!({"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
                "lastTransitionTime": Time(Timestamp::now()),
            }]});
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
            absent_is_fine(api.patch_status(&pod.name_any(), &write::patching(), &patch).await)
                .step("fail an orphan")?;
        }
        let params = DeleteParams { grace_period_seconds: Some(0), ..write::delete_exactly(pod) };
        absent_is_fine(api.delete(&pod.name_any(), &params).await).step("delete a pod")?;
        self.shared.pods.forget_now(pod);
        info!(pod = %Key::of(pod), ?reason, "deleted a pod that nobody else would");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, phase: &str, deleting: bool, created: &str) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "creationTimestamp": created},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}});
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    #[test]
    fn orphans_the_never_scheduled_and_the_oldest_ended_go() {
        let old = "2029-01-01T00:00:00Z";
        let new = "2029-02-01T00:00:00Z";
        let all = [
            pod("fine", "n1", "Running", false, old),
            pod("orphan", "gone", "Running", false, old),
            pod("never", "", "Pending", true, old),
            pod("waiting", "", "Pending", false, old),
            pod("ended-new", "n1", "Succeeded", false, new),
            pod("ended-old", "n1", "Failed", false, old),
        ];
        let going: Vec<_> =
            plan(&all, |node| node == "n1", 1).into_iter().map(|(reason, pod)| (reason, pod.name_any())).collect();
        let expected = [(Reason::Orphan, "orphan"), (Reason::Unscheduled, "never"), (Reason::Surplus, "ended-old")];
        assert_eq!(going, expected.map(|(reason, name)| (reason, name.to_owned())));
        assert_eq!(plan(&all, |_| true, 0).len(), 1, "without a limit nothing that ended goes");
    }
}
