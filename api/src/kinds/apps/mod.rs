//! `apps/v1`: controllers of pods.

pub mod controllerrevision;
pub mod deployment;
pub mod replicaset;
mod template;
