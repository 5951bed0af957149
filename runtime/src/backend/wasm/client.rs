//! The process's outgoing HTTP connections: one pool, keyed by source address, destination and, for TLS, server name.
//!
//! What must stay true: a connection is reused only by guests with the same source address; connections under way are bounded,
//! those of one container too, and idle ones; each connection's task ends with the client.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::{Error, WasiBody};

use super::room::{Room, Taken};

/// Connections of the node's guests, together.
const CONNECTIONS: usize = 4096;

/// Unused connections that are kept, together and to one destination.
const IDLE: usize = 256;
const IDLE_PER_KEY: usize = 32;

/// How long an unused connection is kept: less than what servers commonly keep.
const IDLE_TIME: Duration = Duration::from_secs(20);

/// Where a request goes: connections with the same key are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) source: IpAddr,
    pub(super) destination: SocketAddr,
    /// Set for TLS.
    pub(super) server: Option<ServerName<'static>>,
}

struct Connection {
    sender: SendRequest<WasiBody>,
    since: Instant,
    /// Its place among the node's connections.
    _place: OwnedSemaphorePermit,
}

/// The process's client.
pub(super) struct Client {
    handle: Handle,
    idle: Arc<Mutex<Idle>>,
    places: Arc<Semaphore>,
    closed: CancellationToken,
    tls: OnceLock<TlsConnector>,
}

#[derive(Default)]
struct Idle {
    connections: HashMap<Key, Vec<Connection>>,
    count: usize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("idle", &self.idle.lock().count).finish_non_exhaustive()
    }
}

/// Why a request has no response.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// The request's body, if nothing of the request was sent.
    pub(super) unsent: Option<WasiBody>,
}

impl Failed {
    pub(super) fn before(error: Error, request: Request<WasiBody>) -> Self {
        Self { error, unsent: Some(request.into_body()) }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, unsent: None }
    }
}

/// A connection that a response's body still uses. Dropping it closes the connection.
pub(super) struct Lent {
    key: Key,
    connection: Connection,
    idle: Arc<Mutex<Idle>>,
    /// Its place among its container's sockets. An idle connection has none: it is nobody's.
    _place: Taken,
}

impl Lent {
    /// The body was read to its end: the connection may serve another request.
    pub(super) fn give_back(mut self) {
        if !self.connection.sender.is_closed() {
            self.connection.since = Instant::now();
            self.idle.lock().put(self.key, self.connection);
        }
    }
}

impl Idle {
    /// A connection that is ready; those that are closed, busy with a forgotten request or old are dropped.
    fn take(&mut self, key: &Key) -> Option<Connection> {
        let connections = self.connections.get_mut(key)?;
        let mut found = None;
        while let Some(connection) = connections.pop() {
            self.count -= 1;
            if connection.sender.is_ready() && connection.since.elapsed() < IDLE_TIME {
                found = Some(connection);
                break;
            }
        }
        if connections.is_empty() {
            self.connections.remove(key);
        }
        found
    }

    fn put(&mut self, key: Key, connection: Connection) {
        if self.count >= IDLE {
            self.expire();
        }
        let connections = self.connections.entry(key).or_default();
        if self.count < IDLE && connections.len() < IDLE_PER_KEY {
            connections.push(connection);
            self.count += 1;
        }
    }

    fn expire(&mut self) {
        self.connections.retain(|_, connections| {
            connections.retain(|c| !c.sender.is_closed() && c.since.elapsed() < IDLE_TIME);
            !connections.is_empty()
        });
        self.count = self.connections.values().map(Vec::len).sum();
    }
}

impl Client {
    /// Connections live on `handle`'s runtime.
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            closed: CancellationToken::new(),
            tls: OnceLock::new(),
        }
    }

    /// Sends a request whose URI is a path, on an idle connection or a new one; waits for the response's head. `sockets` are the
    /// places of the container that asks.
    pub(super) async fn send(
        &self,
        sockets: &Arc<Room>,
        key: Key,
        mut request: Request<WasiBody>,
        connect_timeout: Duration,
        head_timeout: Duration,
    ) -> Result<(Response<Incoming>, Lent), Failed> {
        let Some(place) = sockets.take() else {
            return Err(Failed::before(Error::ConnectionLimitReached, request));
        };
        loop {
            let pooled = self.idle.lock().take(&key);
            let fresh = pooled.is_none();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => {
                    let connected = tokio::time::timeout(connect_timeout, self.connect(&key)).await;
                    match connected.unwrap_or(Err(Error::ConnectionTimeout)) {
                        Ok(connection) => connection,
                        Err(error) => return Err(Failed::before(error, request)),
                    }
                }
            };
            let sent = tokio::time::timeout(head_timeout, connection.sender.try_send_request(request)).await;
            match sent.map_err(|_| Error::ConnectionReadTimeout)? {
                Ok(response) => {
                    let idle = Arc::clone(&self.idle);
                    return Ok((response, Lent { key, connection, idle, _place: place }));
                }
                // The server had closed an idle connection: the request was not sent, so it may be sent again.
                Err(mut error) => match error.take_message() {
                    Some(again) if !fresh => request = again,
                    Some(unsent) => return Err(Failed::before(broken(&error.into_error()), unsent)),
                    None => return Err(broken(&error.into_error()).into()),
                },
            }
        }
    }

    /// Reads what is sent to nobody, until the guest is done with it or gone: one that still sends would learn that its body is
    /// not read, and not why. Bodies are counted in the guest's table, and end with its instance.
    pub(super) fn read_unsent(&self, mut body: WasiBody) {
        let closed = self.closed.clone();
        self.handle
            .spawn(closed.run_until_cancelled_owned(async move { while let Some(Ok(_)) = body.frame().await {} }));
    }

    async fn connect(&self, key: &Key) -> Result<Connection, Error> {
        let permit = if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            permit
        } else {
            self.idle.lock().expire();
            Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::ConnectionLimitReached)?
        };
        let stream = connect(key.source, key.destination).await.map_err(|error| unreachable(&error))?;
        let sender = match &key.server {
            None => self.handshake(stream).await?,
            Some(name) => {
                let stream = self.tls()?.connect(name.clone(), stream).await.map_err(|error| untrusted(&error))?;
                self.handshake(stream).await?
            }
        };
        Ok(Connection { sender, since: Instant::now(), _place: permit })
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<SendRequest<WasiBody>, Error> {
        let (sender, connection) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let closed = self.closed.clone();
        // Ends when its sender is dropped, the server closes it, or the client ends.
        self.handle.spawn(async move {
            if let Some(Err(error)) = closed.run_until_cancelled_owned(connection).await {
                tracing::trace!(%error, "an outgoing connection ended early");
            }
        });
        Ok(sender)
    }

    /// Made when first needed: the machine's root certificates take a megabyte.
    fn tls(&self) -> Result<&TlsConnector, Error> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(BuilderVerifierExt::with_platform_verifier)
            .map_err(|error| {
                tracing::warn!(%error, "no root certificates: guests cannot use https");
                Error::TlsCertificateError
            })?
            .with_no_client_auth();
        Ok(self.tls.get_or_init(|| TlsConnector::from(Arc::new(config))))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// A socket with the pod's address as source.
async fn connect(source: IpAddr, destination: SocketAddr) -> io::Result<TcpStream> {
    let socket = if destination.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !source.is_unspecified() {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(destination).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn unreachable(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Error::ConnectionLimitReached,
        _ => Error::DestinationUnavailable,
    }
}

fn untrusted(error: &io::Error) -> Error {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::TlsProtocolError,
    }
}

pub(super) fn broken(error: &hyper::Error) -> Error {
    if error.is_timeout() {
        Error::ConnectionReadTimeout
    } else if error.is_closed() || error.is_canceled() || error.is_incomplete_message() {
        Error::ConnectionTerminated
    } else {
        Error::HttpProtocolError
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::room::Descriptors;
    use super::*;

    /// Answers each request on a connection with the head of an answer, and with its body when that is let.
    async fn serve(listener: TcpListener, body: Arc<Semaphore>) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let body = Arc::clone(&body);
            tokio::spawn(async move {
                while stream.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n").await.unwrap();
                    body.acquire().await.unwrap().forget();
                    stream.write_all(b"a").await.unwrap();
                }
            });
        }
    }

    #[tokio::test]
    async fn a_container_that_keeps_answers_unread_takes_its_own_places_and_no_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (destination, leave) = (listener.local_addr().unwrap(), Arc::new(Semaphore::new(0)));
        tokio::spawn(serve(listener, Arc::clone(&leave)));
        let client = Client::new(Handle::current());
        let descriptors = Descriptors::with(8);
        let key = Key { source: std::net::Ipv4Addr::UNSPECIFIED.into(), destination, server: None };
        let (mine, other) = (descriptors.room("mine", 2), descriptors.room("other", 2));
        let limit = Duration::from_secs(60);
        let ask = |sockets| {
            let (client, key) = (&client, key.clone());
            let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
            let request = Request::get("/").header("host", "test").body(body).unwrap();
            async move { client.send(sockets, key, request, limit, limit).await }
        };
        let (first, second) = (ask(&mine).await.unwrap(), ask(&mine).await.unwrap());
        let full = ask(&mine).await;
        assert!(matches!(full, Err(Failed { error: Error::ConnectionLimitReached, unsent: Some(_) })));
        drop(ask(&other).await.unwrap());
        drop(second);
        assert!(ask(&mine).await.is_ok());
        // An idle connection is nobody's.
        leave.add_permits(1);
        let (answer, lent) = first;
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "a");
        lent.give_back();
        assert_eq!((mine.left(), client.idle.lock().count), (2, 1));
    }
}
