//! `apps/v1`: controllers of pods.

pub mod controllerrevision;
pub mod deployment;
pub mod replicaset;
pub(crate) mod template;
