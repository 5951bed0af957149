//! A node must have what a pod asks for left over: CPU, memory, storage, extended resources, and a place among its pods.

use std::borrow::Cow;

use super::{Filter, Rejection};
use crate::scheduler::pod::PodInfo;
use crate::scheduler::queue::Wake;
use crate::scheduler::snapshot::NodeInfo;

/// Kubernetes' `NodeResourcesFit`.
#[derive(Debug)]
pub struct Fit;

impl Filter for Fit {
    fn check(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let (asked, all, used) = (&pod.requests, &node.allocatable, &node.requested);
        let mut lacking = Lacking::default();
        if used.pods + 1 > all.pods {
            lacking.reasons.push("Too many pods".into());
            lacking.resolvable = all.pods >= 1;
        }
        lacking.compare("cpu", asked.cpu, all.cpu, used.cpu);
        lacking.compare("memory", asked.memory, all.memory, used.memory);
        lacking.compare("ephemeral-storage", asked.ephemeral, all.ephemeral, used.ephemeral);
        for (name, amount) in &asked.other {
            let of = |list: &crate::scheduler::resources::Resources| list.other.get(name).copied().unwrap_or_default();
            lacking.compare(name, *amount, of(all), of(used));
        }
        if lacking.reasons.is_empty() {
            return Ok(());
        }
        Err(Rejection { reasons: lacking.reasons, resolvable: lacking.resolvable })
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node, Wake::PodGone]
    }
}

#[derive(Debug)]
struct Lacking {
    reasons: Vec<Cow<'static, str>>,
    /// Nothing is asked for that even the empty node lacks.
    resolvable: bool,
}

impl Default for Lacking {
    fn default() -> Self {
        Self { reasons: Vec::new(), resolvable: true }
    }
}

impl Lacking {
    fn compare(&mut self, name: &str, asked: i64, all: i64, used: i64) {
        if asked > 0 && asked > all.saturating_sub(used) {
            self.reasons.push(format!("Insufficient {name}").into());
            self.resolvable &= asked <= all;
        }
    }
}
