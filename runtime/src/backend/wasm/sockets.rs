//! A guest's sockets: every bind, connect, send and name goes through the pod's network.

use std::sync::Arc;

use wasmtime::component::Linker;

use super::state::GuestState;
use crate::network::PodNetwork;

/// One instance's sockets.
pub(super) struct Sockets {
    network: Arc<PodNetwork>,
}

impl Sockets {
    pub(super) fn new(network: Arc<PodNetwork>) -> Self {
        Self { network }
    }
}

pub(super) fn add_to_linker(_linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    Ok(())
}
