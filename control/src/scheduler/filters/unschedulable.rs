//! A cordoned node takes no new pods, except those that tolerate its taint.

use k8s_openapi::api::core::v1::Taint;

use super::taints::is_tolerated;
use super::{Filter, Rejection};
use crate::scheduler::pod::PodInfo;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `NodeUnschedulable`.
#[derive(Debug)]
pub struct Unschedulable;

impl Filter for Unschedulable {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let spec = node.node.as_ref().and_then(|n| n.spec.as_ref());
        if spec.and_then(|s| s.unschedulable) != Some(true) {
            return Ok(());
        }
        let cordon = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if is_tolerated(&cordon, pod.tolerations()) {
            return Ok(());
        }
        Err(Rejection::never("node(s) were unschedulable"))
    }
}
