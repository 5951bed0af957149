//! The node API: logs, statistics, health and metrics, over HTTPS with client certificates.
//!
//! The API server calls it for `kubectl logs` and the metrics APIs. [`NodeApi`] answers a request wherever it came from, so
//! an API server in the same process can ask it without a socket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::logs;
use super::metrics;
use super::stats;
use super::tls::{self, NodeTls, TlsError};
use crate::pod::manager::Manager;

/// Connections at once; the only client is the API server.
const CONNECTIONS: usize = 1024;
/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The body of an answer; a log that is followed has no end.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers the node API's requests.
#[derive(Clone, Debug)]
pub struct NodeApi {
    pub(super) node: Arc<str>,
    pub(super) manager: Manager,
}

impl NodeApi {
    pub fn new(node: &str, manager: Manager) -> Self {
        Self { node: node.into(), manager }
    }

    /// Answers one request. Whoever calls has been authorized.
    pub fn handle<B>(&self, request: &Request<B>) -> Response<Body> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        }
        let query = request.uri().query().unwrap_or_default();
        let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        match path.as_slice() {
            ["healthz"] => text(StatusCode::OK, "ok"),
            ["pods"] => json(&stats::pods(&self.manager)),
            ["stats", "summary"] => json(&stats::summary(&self.node, &self.manager)),
            ["metrics"] => metrics::answer(&self.manager),
            ["containerLogs", namespace, pod, container] => {
                logs::answer(&self.manager, namespace, pod, container, query)
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }
}

/// A plain answer.
pub(super) fn text(code: StatusCode, message: impl Into<String>) -> Response<Body> {
    answer(code, "text/plain; charset=utf-8", message.into())
}

pub(super) fn answer(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Why the node API does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The listening node API.
pub struct Listener {
    socket: TcpListener,
    tls: TlsAcceptor,
    api: NodeApi,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Listener {
    /// Binds `address` (port 0: any).
    pub async fn bind(address: SocketAddr, tls: &NodeTls, api: NodeApi) -> Result<Self, ListenError> {
        let config = tls.config()?;
        let bind = |source| ListenError::Bind { address, source };
        let socket = TcpListener::bind(address).await.map_err(bind)?;
        Ok(Self { socket, tls: TlsAcceptor::from(Arc::new(config)), api })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`; connections end with it.
    pub async fn run(self, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: wait for some to be given back.
                    tracing::warn!(%error, "node API cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, api, stop) = (self.tls.clone(), self.api.clone(), stop.clone());
            connections.spawn(async move {
                tokio::select! {
                    () = serve(stream, tls, api) => {}
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, api: NodeApi) {
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "node API: TLS handshake failed"),
        Err(_) => return tracing::debug!("node API: TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let allowed = certificates.first().is_some_and(tls::allowed);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let api = api.clone();
        async move {
            Ok::<_, Infallible>(if allowed {
                api.handle(&request)
            } else {
                text(StatusCode::FORBIDDEN, "Forbidden: the node API is for members of system:masters")
            })
        }
    });
    let served = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "node API: connection ended");
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
