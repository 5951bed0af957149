//! `events.k8s.io/v1`: Events as they are written today; the same objects as `v1` Events.

pub mod event;
