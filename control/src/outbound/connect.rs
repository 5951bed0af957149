//! A pool's connector: resolve, connect, TLS. Each new connection may go to another endpoint.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::Endpoint;
use super::resolve::{Address, Resolver};
use crate::server::body::BoxError;

/// How long a connection may take to be there, TLS included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to one server.
#[derive(Clone)]
pub(super) struct Connector {
    endpoint: Endpoint,
    name: ServerName<'static>,
    tls: TlsConnector,
    resolver: Resolver,
}

impl Connector {
    pub(super) fn new(
        endpoint: Endpoint,
        tls: Arc<ClientConfig>,
        resolver: Resolver,
    ) -> Result<Self, InvalidDnsNameError> {
        let name = ServerName::try_from(endpoint.server_name())?;
        Ok(Self { endpoint, name, tls: TlsConnector::from(tls), resolver })
    }

    async fn connect(self) -> Result<Stream, BoxError> {
        let stream = match &self.endpoint {
            Endpoint::Host { host, port } => dial(host.trim_matches(['[', ']']), *port).await?,
            Endpoint::Service { namespace, name, port } => match self.resolver.resolve(namespace, name, *port).await? {
                Address::Endpoint(address) => dial(&address.ip().to_string(), address.port()).await?,
                Address::Name { host, port } => dial(&host, port).await?,
            },
        };
        stream.set_nodelay(true)?;
        Ok(Stream(TokioIo::new(self.tls.connect(self.name, stream).await?)))
    }
}

/// A TCP connection. Errors are worded as Go words them: clients read them.
async fn dial(host: &str, port: u16) -> Result<TcpStream, BoxError> {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    TcpStream::connect((host, port)).await.map_err(|error| {
        let why = if refused(&error) { "connect: connection refused".to_owned() } else { error.to_string() };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("dial tcp {host}:{port}: {why}").into()
    })
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.clone().connect();
        async move { timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err("dial tcp: i/o timeout".into())) }
            .boxed()
    }
}

/// A connection of the pool.
pub(super) struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
