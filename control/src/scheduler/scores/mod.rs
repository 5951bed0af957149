//! Which of the nodes that fit is best. Adding an opinion is a file and a line in [`all`].

pub mod least_allocated;
pub mod node_affinity;
pub mod spread;
pub mod taints;

use std::fmt::Debug;

use super::pod::PodInfo;
use super::snapshot::NodeInfo;

/// How raw scores become 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// They already are.
    Percent,
    /// The largest is 100.
    More,
    /// The largest is 0.
    Less,
}

/// One opinion.
pub trait Score: Debug + Send + Sync {
    fn weight(&self) -> i64;

    fn scale(&self) -> Scale;

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64;
}

/// THE list.
pub fn all() -> Vec<Box<dyn Score>> {
    vec![
        Box::new(least_allocated::LeastAllocated),
        Box::new(spread::Spread),
        Box::new(taints::Taints),
        Box::new(node_affinity::NodeAffinity),
    ]
}

/// Brings raw scores to 0 to 100.
pub fn scaled(scale: Scale, raw: i64, largest: i64) -> i64 {
    match scale {
        Scale::Percent => raw,
        Scale::More if largest > 0 => raw * 100 / largest,
        Scale::More => 0,
        Scale::Less if largest > 0 => 100 - raw * 100 / largest,
        Scale::Less => 100,
    }
}
