//! Outgoing `wasi:http`, of both versions: one pooled client for the process, behind each pod's network.

use std::sync::Arc;

use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::network::PodNetwork;

/// The process's client.
#[derive(Debug, Default)]
pub(super) struct Client {}

/// One instance's way to it.
pub(super) struct Outgoing {
    client: Arc<Client>,
    network: Arc<PodNetwork>,
}

impl Outgoing {
    pub(super) fn new(client: Arc<Client>, network: Arc<PodNetwork>) -> Self {
        Self { client, network }
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _fut: Io,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io), Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}
