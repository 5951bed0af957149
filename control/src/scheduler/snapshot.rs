//! The cluster as the scheduler knows it: nodes, what is on them, and what is about to be.
//!
//! A pod is assumed on its node as soon as the decision is made, so that the next decision counts it; the watch confirms it
//! or a failed binding takes it back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::ResourceExt;
use wherry_api::kinds::core::podspec::busiest::Amounts;

use super::pod::PodInfo;
use super::resources::Resources;
use crate::controllers::pods;
use crate::reconcile::Key;

/// A node and what is on it.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// `None` while only pods of it are known.
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    pub requested: Resources,
    pub compared: Resources,
    pub pods: HashMap<Key, Arc<PodInfo>>,
    /// How many of its pods have this controller.
    pub owners: HashMap<Box<str>, u32>,
}

impl NodeInfo {
    pub fn name(&self) -> &str {
        self.node.as_ref().and_then(|n| n.metadata.name.as_deref()).unwrap_or_default()
    }

    pub fn taints(&self) -> &[Taint] {
        let spec = self.node.as_ref().and_then(|n| n.spec.as_ref());
        spec.and_then(|s| s.taints.as_deref()).unwrap_or_default()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.as_ref()?.labels().get(key).map(String::as_str)
    }

    fn add(&mut self, info: Arc<PodInfo>) {
        self.requested.add(&info.requests);
        self.compared.add(&info.compared);
        if let Some(owner) = &info.owner {
            *self.owners.entry(owner.clone()).or_default() += 1;
        }
        self.pods.insert(info.key.clone(), info);
    }

    fn remove(&mut self, key: &Key) {
        let Some(info) = self.pods.remove(key) else { return };
        self.requested.subtract(&info.requests);
        self.compared.subtract(&info.compared);
        if let Some(owner) = &info.owner
            && let Some(count) = self.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
    }
}

/// Where a pod is.
#[derive(Debug)]
struct Placed {
    node: Arc<str>,
    uid: Box<str>,
    assumed: bool,
}

/// All nodes and placed pods. One writer at a time: the scheduler's lock.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<Arc<str>, NodeInfo>,
    placed: HashMap<Key, Placed>,
}

impl Cluster {
    /// The nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|info| info.node.is_some())
    }

    pub fn set_node(&mut self, node: &Arc<Node>) {
        let info = self.nodes.entry(node.name_any().into()).or_default();
        info.allocatable = Resources::of(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
        info.node = Some(node.clone());
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Takes over what the watch says about a pod. An assumed pod stays assumed while the watch shows it unbound.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        let key = Key::of(&**pod);
        let node = pods::node(pod);
        let same = |placed: &Placed| Some(&*placed.uid) == pod.metadata.uid.as_deref();
        if node.is_empty() && self.placed.get(&key).is_some_and(|placed| placed.assumed && same(placed)) {
            return;
        }
        self.remove_pod(&key);
        if !node.is_empty() && !pods::is_ended(pod) {
            self.place(Arc::new(PodInfo::new(pod.clone())), node.into(), false);
        }
    }

    pub fn remove_pod(&mut self, key: &Key) {
        let Some(placed) = self.placed.remove(key) else { return };
        if let Some(info) = self.nodes.get_mut(&placed.node) {
            info.remove(key);
            if info.node.is_none() && info.pods.is_empty() {
                self.nodes.remove(&placed.node);
            }
        }
    }

    /// Counts a pod on a node before the server has bound it.
    pub fn assume(&mut self, info: Arc<PodInfo>, node: &str) {
        self.remove_pod(&info.key);
        self.place(info, node.into(), true);
    }

    /// Takes an assumption back, if it still is one.
    pub fn forget(&mut self, info: &PodInfo) {
        if self.is_assumed(&info.key) && self.placed.get(&info.key).is_some_and(|p| *p.uid == *info.uid()) {
            self.remove_pod(&info.key);
        }
    }

    pub fn is_assumed(&self, key: &Key) -> bool {
        self.placed.get(key).is_some_and(|placed| placed.assumed)
    }

    fn place(&mut self, info: Arc<PodInfo>, node: Arc<str>, assumed: bool) {
        let placed = Placed { node: node.clone(), uid: info.uid().into(), assumed };
        self.placed.insert(info.key.clone(), placed);
        self.nodes.entry(node).or_default().add(info);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase}}))
            .expect("a pod"),
        )
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        let node = json!({"metadata": {"name": "n1"}, "status": {"allocatable": {"cpu": "2", "pods": "10"}}});
        cluster.set_node(&Arc::new(serde_json::from_value(node).expect("a node")));
        cluster
    }

    fn used(cluster: &Cluster) -> i64 {
        cluster.nodes().map(|n| n.requested.cpu).sum()
    }

    #[test]
    fn an_assumed_pod_counts_until_it_is_forgotten_or_confirmed() {
        let mut cluster = cluster();
        let info = Arc::new(PodInfo::new(pod("p", None, "Pending")));
        cluster.assume(info.clone(), "n1");
        cluster.set_pod(&pod("p", None, "Pending"));
        assert_eq!(used(&cluster), 1000);
        cluster.forget(&info);
        assert_eq!(used(&cluster), 0);
        cluster.assume(info.clone(), "n1");
        cluster.set_pod(&pod("p", Some("n1"), "Pending"));
        cluster.forget(&info);
        assert_eq!(used(&cluster), 1000, "a bound pod is not an assumption");
    }

    #[test]
    fn an_ended_pod_frees_its_node() {
        let mut cluster = cluster();
        cluster.set_pod(&pod("p", Some("n1"), "Running"));
        cluster.set_pod(&pod("p", Some("n1"), "Succeeded"));
        assert_eq!(used(&cluster), 0);
    }

    #[test]
    fn a_node_that_returns_still_has_its_pods() {
        let mut cluster = cluster();
        cluster.set_pod(&pod("p", Some("n1"), "Running"));
        cluster.remove_node("n1");
        assert_eq!(cluster.nodes().count(), 0);
        let node = json!({"metadata": {"name": "n1"}});
        cluster.set_node(&Arc::new(serde_json::from_value(node).expect("a node")));
        assert_eq!(used(&cluster), 1000);
    }
}
