//! Pods of one controller are better apart.

use super::{Scale, Score};
use crate::scheduler::pod::PodInfo;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `PodTopologySpread`.
#[derive(Debug)]
pub struct Spread;

impl Score for Spread {
    fn weight(&self) -> i64 {
        2
    }

    fn scale(&self) -> Scale {
        Scale::Less
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let siblings = pod.owner.as_ref().and_then(|owner| node.owners.get(owner));
        siblings.copied().map_or(0, i64::from)
    }
}
