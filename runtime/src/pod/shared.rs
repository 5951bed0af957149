//! What a pod's worker and the rest of the node share of it: the newest Pod, what the worker is told, and what runs.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::container::Instances;
use super::setup::containers;
use crate::backend::Container;

/// What a worker and the rest of the node share of a pod.
#[derive(Debug)]
pub struct Shared {
    /// The newest Pod; the only copy that this node keeps.
    pod: Mutex<Arc<Pod>>,
    pub(super) changed: Notify,
    pub(super) told: Mutex<Told>,
    /// Containers that run now, by name: for statistics.
    pub(super) running: Mutex<Vec<(String, Arc<dyn Container>)>>,
    /// By container, in the order of the spec: for logs.
    pub(super) instances: Mutex<Vec<Instances>>,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) removed: bool,
    /// The process ends: containers may take this long, and nothing is reported.
    pub(super) shutdown: Option<Duration>,
}

impl Shared {
    pub fn new(pod: Arc<Pod>) -> Self {
        Self {
            pod: Mutex::new(pod),
            changed: Notify::new(),
            told: Mutex::default(),
            running: Mutex::default(),
            instances: Mutex::default(),
        }
    }

    pub fn pod(&self) -> Arc<Pod> {
        self.pod.lock().clone()
    }

    /// The Pod changed in the API.
    pub fn update(&self, pod: Arc<Pod>) {
        *self.pod.lock() = pod;
        self.forget_own_status();
        self.changed.notify_one();
    }

    /// Drops what this node wrote itself from a Pod that nobody else keeps: half of its memory.
    pub(super) fn forget_own_status(&self) {
        let mut pod = self.pod.lock();
        let Some(pod) = Arc::get_mut(&mut pod) else { return };
        let gated = pod.spec.as_ref().is_some_and(|spec| spec.readiness_gates.is_some());
        if let Some(status) = &mut pod.status {
            status.container_statuses = None;
            if !gated && let Some(conditions) = &mut status.conditions {
                // Of its own word only the end matters: that somebody called the pod unready.
                conditions.retain(|condition| condition.type_ == "Ready" && condition.status == "False");
                conditions.shrink_to_fit();
            }
        }
    }

    /// The Pod is gone from the API.
    pub fn remove(&self) {
        self.told.lock().removed = true;
        self.changed.notify_one();
    }

    /// The process ends.
    pub fn shutdown(&self, grace: Duration) {
        self.told.lock().shutdown = Some(grace);
        self.changed.notify_one();
    }

    /// Whether the Pod is gone or the process ends.
    fn is_told_to_end(&self) -> bool {
        let told = self.told.lock();
        told.removed || told.shutdown.is_some()
    }

    /// Returns when the Pod is gone or the process ends.
    pub(super) async fn told_to_end(&self) {
        while !self.is_told_to_end() {
            self.changed.notified().await;
        }
    }

    /// Whether the Pod is gone.
    pub(super) fn is_removed(&self) -> bool {
        self.told.lock().removed
    }

    /// Which instances a container has.
    pub fn instance(&self, container: &str) -> Option<Instances> {
        let pod = self.pod();
        let index = containers(&pod).iter().position(|spec| spec.name == container)?;
        Some(self.instances.lock().get(index).copied().unwrap_or_default())
    }

    pub fn running(&self) -> Vec<(String, Arc<dyn Container>)> {
        self.running.lock().clone()
    }
}
