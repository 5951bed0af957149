//! A node whose `PreferNoSchedule` taints are tolerated is better.

use super::{Scale, Score};
use crate::scheduler::filters::taints::is_tolerated;
use crate::scheduler::pod::PodInfo;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `TaintToleration`.
#[derive(Debug)]
pub struct Taints;

impl Score for Taints {
    fn weight(&self) -> i64 {
        3
    }

    fn scale(&self) -> Scale {
        Scale::Less
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let against = soft.filter(|taint| !is_tolerated(taint, pod.tolerations())).count();
        i64::try_from(against).unwrap_or(i64::MAX)
    }
}
