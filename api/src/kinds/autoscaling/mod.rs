//! `autoscaling`: how many replicas there should be. `v2` is stored; `v1` is what it was when there was one metric.

mod check;
mod convert;
pub mod v1;
pub mod v2;
