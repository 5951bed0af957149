//! The core group, `v1`.

pub(super) mod addresses;
pub mod configmap;
mod data;
pub mod endpoints;
pub mod event;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod podspec;
pub mod secret;
pub mod service;
pub mod serviceaccount;
