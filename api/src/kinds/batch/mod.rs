//! `batch/v1`: pods that end.

pub mod cronjob;
pub mod job;
