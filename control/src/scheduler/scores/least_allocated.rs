//! The emptier node is better.

use super::{Scale, Score};
use crate::scheduler::pod::PodInfo;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `NodeResourcesFit`, strategy `LeastAllocated`.
#[derive(Debug)]
pub struct LeastAllocated;

impl Score for LeastAllocated {
    fn weight(&self) -> i64 {
        1
    }

    fn scale(&self) -> Scale {
        Scale::Percent
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let cpu = free(node.allocatable.cpu, node.compared.cpu + pod.compared.cpu);
        let memory = free(node.allocatable.memory, node.compared.memory + pod.compared.memory);
        i64::midpoint(cpu, memory)
    }
}

/// The percentage of `all` that is left.
fn free(all: i64, used: i64) -> i64 {
    if all <= 0 || used > all { 0 } else { (i128::from(all - used) * 100 / i128::from(all)).try_into().unwrap_or(0) }
}
