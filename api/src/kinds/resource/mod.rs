//! `resource.k8s.io/v1`: devices, and who has them.

mod allocation;
mod claim;
mod config;
mod device;
pub mod deviceclass;
pub mod resourceclaim;
pub mod resourceclaimtemplate;
pub mod resourceslice;
