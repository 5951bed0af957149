//! `apps/v1`: controllers of pods.

pub mod controllerrevision;
pub mod daemonset;
pub mod deployment;
pub mod replicaset;
pub mod statefulset;
pub(crate) mod template;
