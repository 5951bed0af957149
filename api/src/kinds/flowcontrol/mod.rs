//! `flowcontrol.apiserver.k8s.io/v1`: whose requests wait for whose.

pub mod flowschema;
pub mod mandatory;
pub mod prioritylevelconfiguration;
mod rules;
mod status;
