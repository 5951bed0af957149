//! The reasons why a pod cannot run on a node. Adding one is a file and a line in [`all`].

pub mod node_affinity;
pub mod node_name;
pub mod ports;
pub mod resources;
pub mod taints;
pub mod unschedulable;

use std::borrow::Cow;
use std::fmt::Debug;

use super::pod::PodInfo;
use super::queue::Wake;
use super::snapshot::NodeInfo;

/// Why a node is out of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Each is counted over all nodes in the message that a person reads.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether fewer pods on the node would help.
    pub resolvable: bool,
}

impl Rejection {
    /// Other pods do not matter.
    pub fn never(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}

/// One reason.
pub trait Filter: Debug + Send + Sync {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection>;

    /// What can change this filter's mind.
    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node]
    }
}

/// THE list, in the order in which they are asked; the first that objects decides.
pub fn all() -> Vec<Box<dyn Filter>> {
    vec![
        Box::new(unschedulable::Unschedulable),
        Box::new(node_name::NodeName),
        Box::new(taints::Taints),
        Box::new(node_affinity::NodeAffinity),
        Box::new(ports::Ports),
        Box::new(resources::Fit),
    ]
}
