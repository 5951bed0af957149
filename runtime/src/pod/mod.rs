//! Pods of this node: one small worker each, a pure state machine inside it, and the statuses and events that tell the API
//! server what became of them.
//!
//! What must stay true: a container is never run twice for one start, an end is never lost, and nothing of a pod is left
//! on the node when its object goes.

pub mod api;
pub mod backoff;
pub mod container;
pub mod env;
pub mod events;
pub mod expand;
pub mod fields;
pub mod launch;
pub mod manager;
mod patch;
mod react;
pub mod recover;
pub mod reference;
pub mod report;
pub mod setup;
pub mod shared;
pub mod state;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod unsupported;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::image::{Image, ImageKind, Images};
use crate::log::Logs;
use crate::network::Network;

/// What all workers of a node share.
#[derive(Debug)]
pub struct Context {
    pub host: status::Host,
    pub backends: Vec<Arc<dyn Backend>>,
    pub images: Arc<dyn Images>,
    pub network: Arc<dyn Network>,
    pub references: reference::References,
    pub events: events::Recorder,
    pub statuses: report::Statuses,
    pub logs: Arc<Logs>,
    /// Holds `pods/`.
    pub data_dir: PathBuf,
    /// What the node can give to a pod without limits: for `resourceFieldRef`.
    pub allocatable: Allocatable,
}

/// The node's size, as guests that have no limit of their own see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocatable {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
}

impl Context {
    /// The backend that runs an image.
    pub fn backend(&self, image: &Image) -> Option<&Arc<dyn Backend>> {
        let name = match image.kind {
            ImageKind::Wasm(_) => "wasm",
            ImageKind::Native => "docker",
        };
        self.backends.iter().find(|backend| backend.name() == name)
    }
}

impl state::Now {
    /// This instant.
    pub fn read() -> Self {
        Self { wall: Timestamp::now(), tick: Instant::now() }
    }
}
