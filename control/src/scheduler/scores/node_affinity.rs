//! A node that a pod prefers is better.

use super::{Scale, Score};
use crate::scheduler::filters::node_affinity::term_matches;
use crate::scheduler::pod::PodInfo;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `NodeAffinity`.
#[derive(Debug)]
pub struct NodeAffinity;

impl Score for NodeAffinity {
    fn weight(&self) -> i64 {
        2
    }

    fn scale(&self) -> Scale {
        Scale::More
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let affinity = pod.spec().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
        let held = preferred.unwrap_or_default().iter().filter(|term| term_matches(&term.preference, node));
        held.map(|term| i64::from(term.weight)).sum()
    }
}
