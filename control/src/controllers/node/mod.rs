//! Watches over nodes: one that is silent for too long is Unknown, gets taints, and its pods are no longer Ready; pods leave
//! nodes whose taints they do not tolerate.
//!
//! Silence is measured with this process's own clock, from when it last saw a heartbeat change: clocks of nodes need not
//! agree, and a control plane that was away gives every node its full time.

pub mod eviction;
pub mod taints;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::Patch;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use self::taints::Health;
use super::{pods, write};
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::events::Type;
use crate::reconcile::shared::NODE_LEASES;
use crate::reconcile::{Controller, Error, EventRecorder, Key, Queue, Shared, Step, absent_is_fine};

/// A node may be silent for this long.
const GRACE: Duration = Duration::from_secs(40);
/// The same for one that has never said anything.
const STARTUP_GRACE: Duration = Duration::from_mins(1);
/// How often a node is looked at.
const PERIOD: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Nodes {
    shared: Arc<Shared>,
    events: EventRecorder,
    /// One entry per node.
    heard: Mutex<HashMap<String, Heard>>,
}

/// The last sign of life: what it was, and when it was seen here.
#[derive(Clone, Debug)]
struct Heard {
    sign: Sign,
    at: Instant,
}

type Sign = (Option<Timestamp>, Option<Timestamp>);

impl FromContext for Nodes {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), events: context.events("node-controller"), heard: Mutex::default() }
    }
}

impl Controller for Nodes {
    type Key = Key;
    const NAME: &'static str = "nodelifecycle";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.nodes.subscribe(itself(queue));
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.nodes.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(node) = self.shared.nodes.get(key) else {
            self.heard.lock().remove(&*key.name);
            return Ok(None);
        };
        if self.is_silent(&node) && taints::health(&node) != Health::Unknown {
            self.mark_silent(&node).await?;
            // The change wakes this node up again.
            return Ok(Some(PERIOD));
        }
        self.taint(&node).await?;
        if taints::health(&node) != Health::Ready {
            self.mark_pods(&node).await?;
        }
        Ok(Some(PERIOD))
    }
}

impl Nodes {
    fn is_silent(&self, node: &Node) -> bool {
        let name = node.name_any();
        let lease = self.shared.leases.get(&Key::new(NODE_LEASES, &name));
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
        let posted = taints::condition(node, "Ready").and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
        let sign = (renewed, posted);
        let grace = if sign == (None, None) { STARTUP_GRACE } else { GRACE };
        let mut heard = self.heard.lock();
        let last = heard.entry(name).or_insert_with(|| Heard { sign, at: Instant::now() });
        if last.sign != sign {
            *last = Heard { sign, at: Instant::now() };
        }
        last.at.elapsed() > grace
    }

    async fn mark_silent(&self, node: &Node) -> Result<(), Error> {
        let shown = node.status.clone().unwrap_or_default();
        let mut status = shown.clone();
        status.conditions = Some(taints::silent(node, Timestamp::now()));
        let api: Api<Node> = Api::all(self.shared.client.clone());
        write::status(&api, &self.shared.nodes, node, &shown, &status).await?;
        let message = format!("Node {} status is now: NodeNotReady", node.name_any());
        self.events.event(node, Type::Normal, "NodeNotReady", message);
        Ok(())
    }

    async fn taint(&self, node: &Node) -> Result<(), Error> {
        let evict = self.shared.nodes.list().iter().any(|node| taints::health(node) == Health::Ready);
        let present = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        let wanted = taints::taints(node, evict, Timestamp::now());
        if wanted == present {
            return Ok(());
        }
        let api: Api<Node> = Api::all(self.shared.client.clone());
        let taints = Some(wanted).filter(|taints| !taints.is_empty());
        write::merge(&api, &self.shared.nodes, node, json!({"spec": {"taints": taints}})).await
    }

    /// The pods of a node that is not ready are not ready either, whatever they last said.
    async fn mark_pods(&self, node: &Node) -> Result<(), Error> {
        let ready = self.shared.pods.grouped_by(&node.name_any()).into_iter().filter(|pod| pods::is_ready(pod));
        let marks = join_all(ready.map(|pod| self.mark_pod(pod))).await;
        marks.into_iter().collect()
    }

    async fn mark_pod(&self, pod: Arc<Pod>) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &pod.namespace().unwrap_or_default());
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now())});
        let patch =
            Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}));
        let answer = absent_is_fine(api.patch_status(&pod.name_any(), &write::patching(), &patch).await);
        if let Some(marked) = answer.step("mark a pod not ready")? {
            self.shared.pods.observe(marked);
        }
        self.events.event(&*pod, Type::Warning, "NodeNotReady", "Node is not ready".to_owned());
        Ok(())
    }
}
