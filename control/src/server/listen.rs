//! The listener: HTTP/1.1 and HTTP/2 over TLS, from an accepted socket to an authenticated request.
//!
//! What must stay true: every connection, and every task that serves one of its streams, belongs to the [`Listener`] and
//! is gone when [`Listener::shutdown`] returns; a client that sends nothing, or slowly, holds a slot for a bounded time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::request::Parts;
use http::{Request, Response};
use hyper::rt::Executor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_api::status::ApiError;

use self::places::Places;
use self::tls::{Certificate, Renewal};
use super::body::Body;
use super::error;
use crate::auth::authn::{Authenticator, is_registry};
use crate::auth::pki::{Pki, PkiError, ServerNames};
use crate::auth::{Authorizer, UserInfo};

#[cfg(test)]
pub(crate) use self::places::a_connection;
pub(crate) use self::places::{Connection, owner};

mod connection;
mod places;
mod tls;
mod unread;

/// Connections at once; for one more another one gives way ([`places`]), else it waits. Each may hold a TLS session and what
/// an HTTP/2 connection sends before anybody reads it.
const MAX_CONNECTIONS: usize = 4096;
/// Who has more than this part of them gives way also with connections that are being used.
const MANY: usize = 8;
/// After twice this long without a request, a connection is closed: Go's clients close theirs after 90 s.
const IDLE: Duration = Duration::from_secs(90);
/// Of silent HTTP/2 and TCP connections.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the server's certificate is looked at.
const RENEWAL: Duration = Duration::from_hours(12);
/// As long as there is no place for one more, another connection is asked to give way this often.
const GIVE_WAY: Duration = Duration::from_secs(1);
/// After a failed accept (no file descriptors left, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: the address is in use; stop what uses it, or choose another with --listen")]
    InUse { address: SocketAddr },
    #[error("cannot listen on {address}: not permitted; choose a port above 1023 with --listen")]
    NotPermitted { address: SocketAddr },
    #[error("cannot listen on {address}; choose another address with --listen")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the server's certificate cannot be made")]
    Certificate(#[from] PkiError),
    #[error("the server's certificate cannot be used")]
    Tls(#[from] rustls::Error),
    #[error("the server's certificate file is damaged; remove pki/server.crt and start again")]
    Damaged,
}

/// What serves authenticated requests. It never fails: an error is a response.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    async fn handle(&self, request: Request<Body>, user: UserInfo) -> Response<Body>;

    /// Answers a request that is not let in.
    async fn refuse(&self, refused: Refused<'_>) -> Response<Body> {
        refused.respond()
    }
}

/// A request that is not let in.
#[derive(Debug)]
pub struct Refused<'a> {
    pub request: &'a Parts,
    /// Whom it may not act as; `None`: nobody knows who sends it.
    pub user: Option<&'a UserInfo>,
    /// Whether it came with a client certificate.
    pub certificate: bool,
    pub error: ApiError,
}

impl Refused<'_> {
    pub(super) fn respond(&self) -> Response<Body> {
        let mut response = error::respond(&self.error.clone().into());
        if self.error.code == 401 && is_registry(self.request.uri.path()) {
            let challenge = http::HeaderValue::from_static("Basic realm=\"wherry\"");
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Sockets that are bound and not served yet: clients that connect wait.
#[derive(Debug)]
pub struct Bound {
    socket: TcpListener,
    /// A second address of the same port.
    also: Option<TcpListener>,
    address: SocketAddr,
}

impl Bound {
    /// Port 0: any free one; [`Bound::address`] says which.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let socket = TcpListener::bind(address).await.map_err(|source| bind_error(address, source))?;
        let address = socket.local_addr().map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self { socket, also: None, address })
    }

    /// Listens on the same port of another address too.
    pub async fn also(mut self, ip: IpAddr) -> Result<Self, ListenError> {
        let address = SocketAddr::new(ip, self.address.port());
        self.also = Some(TcpListener::bind(address).await.map_err(|source| bind_error(address, source))?);
        Ok(self)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.also {
            None => self.socket.accept().await,
            Some(also) => tokio::select! {
                accepted = self.socket.accept() => accepted,
                accepted = also.accept() => accepted,
            },
        }
    }
}

/// What a listener is made of.
pub struct Listen {
    pub pki: Arc<Pki>,
    pub names: ServerNames,
    pub authenticator: Authenticator,
    /// Judges impersonation; requests themselves are judged by the handler.
    pub authorizer: Arc<dyn Authorizer>,
    pub handler: Arc<dyn Handler>,
}

impl std::fmt::Debug for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listen").field("pki", &self.pki).field("names", &self.names).finish_non_exhaustive()
    }
}

/// A running listener. Dropping it aborts its connections; [`Listener::shutdown`] drains them.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stop: CancellationToken,
    abort: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.abort.cancel();
        self.task.abort();
    }
}

impl Listener {
    /// Starts to serve.
    pub fn start(bound: Bound, listen: Listen) -> Result<Self, ListenError> {
        Self::start_with(bound, listen, IDLE, MAX_CONNECTIONS)
    }

    fn start_with(bound: Bound, listen: Listen, idle: Duration, places: usize) -> Result<Self, ListenError> {
        let address = bound.address;
        let certificate = Arc::new(Certificate::new(&listen.pki.server_identity(&listen.names)?)?);
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let shared = Shared {
            tls: TlsAcceptor::from(Arc::new(tls::config(&listen.authenticator, Arc::clone(&certificate))?)),
            authenticator: listen.authenticator,
            authorizer: listen.authorizer,
            handler: listen.handler,
            idle,
            stop: stop.clone(),
            streams: Streams { tracker: TaskTracker::new(), abort: abort.clone() },
            places: Arc::new(Places::new((places / MANY).max(1))),
        };
        let renewal = Renewal { pki: listen.pki, names: listen.names, certificate };
        let task = tokio::spawn(accept_loop(bound, Arc::new(shared), renewal, places));
        Ok(Self { address, stop, abort, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, ends watches, lets requests in flight finish for at most `within`, and aborts the rest.
    pub async fn shutdown(mut self, within: Duration) {
        self.stop.cancel();
        if timeout(within, &mut self.task).await.is_err() {
            tracing::info!(?within, "requests were still running at the end of the drain");
            self.abort.cancel();
            self.task.abort();
            let _ = (&mut self.task).await;
        }
    }
}

fn bind_error(address: SocketAddr, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address },
        io::ErrorKind::PermissionDenied => ListenError::NotPermitted { address },
        _ => ListenError::Bind { address, source },
    }
}

/// What all connections share.
struct Shared {
    tls: TlsAcceptor,
    authenticator: Authenticator,
    authorizer: Arc<dyn Authorizer>,
    handler: Arc<dyn Handler>,
    idle: Duration,
    stop: CancellationToken,
    streams: Streams,
    places: Arc<Places>,
}

/// Runs the tasks that hyper starts for HTTP/2 streams, and owns them.
#[derive(Clone)]
struct Streams {
    tracker: TaskTracker,
    abort: CancellationToken,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let abort = self.abort.clone();
        self.tracker.spawn(async move { abort.run_until_cancelled(future).await.is_some() });
    }
}

async fn accept_loop(bound: Bound, shared: Arc<Shared>, renewal: Renewal, places: usize) {
    let slots = Arc::new(Semaphore::new(places));
    let mut connections = JoinSet::new();
    let mut renew = interval(RENEWAL);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => break,
            _ = renew.tick() => renewal.run(),
            Some(ended) = connections.join_next() => report(ended),
            Some((stream, address, slot)) = next_connection(&bound, &slots, &shared.places) => {
                let shared = Arc::clone(&shared);
                let open = shared.places.meet();
                connections.spawn(async move {
                    let _slot = slot;
                    let place = open.connection();
                    tokio::select! {
                        () = connection::serve(stream, address.ip(), place, &shared) => {}
                        () = place.closed() => tracing::debug!(%address, "a connection gave way to another"),
                    }
                });
            }
        }
    }
    drop(bound);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    shared.streams.tracker.close();
    shared.streams.tracker.wait().await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task failed");
    }
}

async fn next_connection(
    bound: &Bound,
    slots: &Arc<Semaphore>,
    places: &Places,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = loop {
        match timeout(GIVE_WAY, Arc::clone(slots).acquire_owned()).await {
            Ok(slot) => break slot.ok()?,
            Err(_) => places.close_one(),
        };
    };
    match bound.accept().await {
        Ok((stream, address)) => {
            if slots.available_permits() == 0 {
                // The last place is taken: one for the next.
                places.close_early();
            }
            Some((stream, address, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // There may be no descriptors left.
            places.close_early();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

#[cfg(test)]
mod tests;
