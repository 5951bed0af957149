//! A pod that names its node runs there or nowhere.

use super::{Filter, Rejection};
use crate::controllers::pods;
use crate::scheduler::pod::PodInfo;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `NodeName`.
#[derive(Debug)]
pub struct NodeName;

impl Filter for NodeName {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let wanted = pods::node(&pod.pod);
        if wanted.is_empty() || wanted == node.name() {
            return Ok(());
        }
        Err(Rejection::never("node(s) didn't match the requested node name"))
    }
}
