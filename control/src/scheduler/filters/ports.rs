//! Two pods cannot take the same port of one node.

use super::{Filter, Rejection};
use crate::scheduler::pod::PodInfo;
use crate::scheduler::queue::Wake;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `NodePorts`.
#[derive(Debug)]
pub struct Ports;

impl Filter for Ports {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.ports.is_empty() {
            return Ok(());
        }
        let mut taken = node.pods.values().flat_map(|other| &other.ports);
        if taken.any(|theirs| pod.ports.iter().any(|own| own.collides(theirs))) {
            let reason = "node(s) didn't have free ports for the requested pod ports".into();
            return Err(Rejection { reasons: vec![reason], resolvable: true });
        }
        Ok(())
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node, Wake::PodGone]
    }
}
