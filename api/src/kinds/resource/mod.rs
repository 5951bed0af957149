//! `resource.k8s.io/v1`: devices, and who has them.

mod claim;
mod config;
pub mod deviceclass;
pub mod resourceclaim;
pub mod resourceclaimtemplate;
pub mod resourceslice;
