//! The Common Expression Language as Kubernetes has it.

pub mod duration;
pub mod net;
pub mod text;
