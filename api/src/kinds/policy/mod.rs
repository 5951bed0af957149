//! `policy/v1`: what protects pods from being evicted together.

pub mod poddisruptionbudget;
