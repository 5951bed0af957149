//! Drives pods away from nodes whose `NoExecute` taints they do not tolerate, or no longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;

use super::taints::leaves_in;
use crate::controllers::{Context, FromContext};
use crate::controllers::{pods, write};
use crate::reconcile::events::Type;
use crate::reconcile::{Change, Controller, Error, EventRecorder, Key, Queue, Shared, Step, absent_is_fine};

#[derive(Debug)]
pub struct Evictions {
    shared: Arc<Shared>,
    events: EventRecorder,
    /// Since when pods are seen that must leave later. Bound: the pods of tainted nodes.
    seen: Mutex<HashMap<Key, Timestamp>>,
}

impl FromContext for Evictions {
    fn new(context: &Context) -> Self {
        let events = context.events("taint-eviction-controller");
        Self { shared: context.shared.clone(), events, seen: Mutex::default() }
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn drives_away(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.effect == "NoExecute")
}

impl Controller for Evictions {
    /// A pod.
    type Key = Key;
    const NAME: &'static str = "tainteviction";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        let (to, shared) = (queue.clone(), self.shared.clone());
        self.shared.nodes.subscribe(move |change: &Change<'_, Node>| {
            let drove_away = change.old.is_some_and(|node| drives_away(node));
            let Some(node) = change.new.filter(|node| drove_away || drives_away(node)) else { return };
            if change.old.is_some_and(|old| taints(old) == taints(node)) {
                return;
            }
            for pod in shared.pods.grouped_by(&node.name_any()) {
                to.add(Key::of(&*pod));
            }
        });
        let (to, shared) = (queue.clone(), self.shared.clone());
        self.shared.pods.subscribe(move |change: &Change<'_, Pod>| {
            let Some(pod) = change.new else { return };
            let bound = change.old.is_none_or(|old| pods::node(old) != pods::node(pod) || old.spec != pod.spec);
            let node = shared.nodes.get(&Key::new("", pods::node(pod)));
            if bound && node.is_some_and(|node| drives_away(&node)) {
                to.add(Key::of(&**pod));
            }
        });
    }

    /// Pods of tainted nodes.
    fn keys(&self) -> Vec<Key> {
        let nodes = self.shared.nodes.list();
        let tainted = nodes.iter().filter(|node| drives_away(node));
        tainted.flat_map(|node| self.shared.pods.grouped_by(&node.name_any())).map(|pod| Key::of(&*pod)).collect()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let pod = self.shared.pods.get(key).filter(|pod| pods::is_active(pod));
        let left = pod.as_ref().and_then(|pod| self.leaves_in(key, pod));
        let left = match (pod, left) {
            (Some(pod), Some(Duration::ZERO)) => self.evict(&pod).await.map(|()| None)?,
            (_, left) => left,
        };
        if left.is_none() {
            self.seen.lock().remove(key);
        }
        Ok(left)
    }
}

impl Evictions {
    /// When the pod must leave its node: `None` never, zero now.
    fn leaves_in(&self, key: &Key, pod: &Pod) -> Option<Duration> {
        let node = self.shared.nodes.get(&Key::new("", pods::node(pod)))?;
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        let now = Timestamp::now();
        let seen = *self.seen.lock().entry(key.clone()).or_insert(now);
        leaves_in(taints(&node), tolerations, seen, now)
    }

    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        let message = format!("Marking for deletion Pod {}", Key::of(pod));
        self.events.event(pod, Type::Normal, "TaintManagerEviction", message);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch =
            Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}));
        absent_is_fine(api.patch_status(&name, &write::patching(), &patch).await).step("say why a pod is evicted")?;
        write::delete(&api, &self.shared.pods, pod, "evict a pod").await
    }
}
