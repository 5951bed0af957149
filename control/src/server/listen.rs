//! The listener: HTTP/1.1 and HTTP/2 over TLS, from an accepted socket to an authenticated request.
//!
//! What must stay true: every connection, and every task that serves one of its streams, belongs to the [`Listener`] and
//! is gone when [`Listener::shutdown`] returns; a client that sends nothing, or slowly, holds a slot for a bounded time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_api::status::ApiError;

use self::strangers::{Stranger, Strangers};
use self::tls::{Certificate, Renewal};
use self::unread::Unread;
use super::aggregation::PassedOn;
use super::body::{self, Body};
use super::guard::{Activity, Impatient, UntilStop};
use crate::audit::Origin;
use crate::auth::authn::{Authenticator, Peer};
use crate::auth::pki::{Pki, PkiError, ServerNames};
use crate::auth::{ANONYMOUS, Authorizer, UserInfo, impersonate};

mod strangers;
mod tls;
mod unread;

/// Connections at once; for one more the oldest without an authenticated request is closed, else it waits. Each may hold a
/// TLS session and what an HTTP/2 connection sends before anybody reads it ([`CONNECTION_WINDOW`]).
const MAX_CONNECTIONS: usize = 4096;
/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a request's headers over HTTP/1.1, and so for an idle connection.
const HEADERS: Duration = IDLE;
/// After twice this long without a request, a connection is closed: Go's clients close theirs after 90 s.
const IDLE: Duration = Duration::from_secs(90);
/// Between two pieces of a request's body.
const BODY_PATIENCE: Duration = Duration::from_mins(1);
/// All headers of a request together.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Streams at once on a connection: a controller's client has a watch per kind, and lists beside them.
const MAX_STREAMS: u32 = 1000;
/// Receive windows: the defaults of 64 KB stall uploads and many streams on one connection.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Of silent HTTP/2 and TCP connections.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the server's certificate is looked at.
const RENEWAL: Duration = Duration::from_hours(12);
/// As long as there is no place for one more, another stranger is asked to give way this often.
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
        let (error, path) = (&self.error, self.request.uri.path());
        let mut response = Response::new(body::full(error.to_status().to_string()));
        *response.status_mut() =
            http::StatusCode::from_u16(error.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        if error.code == 401 && (path == "/v2" || path.starts_with("/v2/")) {
            let challenge = http::HeaderValue::from_static("Basic realm=\"wherry\"");
            headers.insert(http::header::WWW_AUTHENTICATE, challenge);
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
            strangers: Strangers::default(),
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
    strangers: Strangers,
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
            Some((stream, address, slot)) = next_connection(&bound, &slots, &shared.strangers) => {
                let shared = Arc::clone(&shared);
                let open = shared.strangers.meet();
                connections.spawn(async move {
                    let _slot = slot;
                    let stranger = open.stranger();
                    tokio::select! {
                        () = connection(stream, address.ip(), stranger, &shared) => {}
                        () = stranger.closed() => tracing::debug!(%address, "a connection without requests gave way"),
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
    strangers: &Strangers,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = loop {
        match timeout(GIVE_WAY, Arc::clone(slots).acquire_owned()).await {
            Ok(slot) => break slot.ok()?,
            Err(_) => strangers.close_oldest(),
        };
    };
    match bound.accept().await {
        Ok((stream, address)) => {
            if slots.available_permits() == 0 {
                // The last place is taken: one for the next.
                strangers.close_oldest();
            }
            Some((stream, address, slot))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            // There may be no descriptors left.
            strangers.close_oldest();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, address: IpAddr, stranger: &Arc<Stranger>, shared: &Arc<Shared>) {
    let handshake = tokio::select! {
        () = shared.stop.cancelled() => return,
        done = timeout(HANDSHAKE, tls::handshake(stream, &shared.tls)) => done,
    };
    match handshake {
        Ok(Ok(Some(stream))) => serve(stream, address, stranger, shared).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// The other side of a connection.
struct Remote {
    address: IpAddr,
    peer: Peer,
    stranger: Arc<Stranger>,
}

async fn serve(stream: TlsStream<TcpStream>, address: IpAddr, stranger: &Arc<Stranger>, shared: &Arc<Shared>) {
    let (_, session) = stream.get_ref();
    let peer = shared.authenticator.peer(session.peer_certificates());
    let remote = Arc::new(Remote { address, peer, stranger: Arc::clone(stranger) });
    let http2 = session.alpn_protocol() == Some(b"h2");
    let activity = Activity::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, remote, busy) = (Arc::clone(shared), Arc::clone(&remote), activity.begin());
        async move {
            let response = answer(request, &remote, &shared).await;
            Ok::<_, std::convert::Infallible>(response.map(|body| busy.until_end_of(body).boxed_unsync()))
        }
    });
    let builder = builder(shared.streams.clone());
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let (mut ticks, mut seen, mut ending) = (interval(shared.idle), None, false);
    let result = loop {
        tokio::select! {
            result = &mut serving => break result,
            () = shared.stop.cancelled(), if !ending => {
                serving.as_mut().graceful_shutdown();
                ending = true;
            }
            _ = ticks.tick() => {
                let now = activity.requests();
                if !activity.is_idle() || seen.replace(now) != Some(now) {
                    continue;
                }
                if ending {
                    // It has been told that this connection ends, and says nothing.
                    return;
                }
                serving.as_mut().graceful_shutdown();
                ending = true;
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = &*error, "a connection failed");
    }
}

fn builder(streams: Streams) -> Builder<Streams> {
    let mut builder = Builder::new(streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

async fn answer(request: Request<Incoming>, remote: &Remote, shared: &Shared) -> Response<Body> {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let endless = parts.uri.query().is_some_and(endless);
    let unread = Unread::of(&parts);
    let (name, response) = match identify(&parts, remote, shared).await {
        Ok((user, authenticated)) => {
            let name = user.name.clone();
            if user.name != ANONYMOUS || authenticated.is_some() {
                remote.stranger.known();
            }
            parts.extensions.insert(Origin { address: remote.address, authenticated });
            if matches!(remote.peer, Peer::Proxy { .. }) {
                parts.extensions.insert(PassedOn);
            }
            let body = unread.watch(Impatient::new(body, BODY_PATIENCE));
            (name, shared.handler.handle(Request::from_parts(parts, body), user).await)
        }
        Err(Unidentified { user, error }) => {
            let origin = Origin { address: remote.address, authenticated: None };
            parts.extensions.insert(origin);
            let certificate = remote.peer != Peer::None;
            let refused = Refused { request: &parts, user: user.as_ref(), certificate, error };
            drop(unread.watch(Impatient::new(body, BODY_PATIENCE)));
            (String::new(), shared.handler.refuse(refused).await)
        }
    };
    unread.drain().await;
    tracing::debug!(%method, path, user = name, code = response.status().as_u16(), took = ?started.elapsed(), "request");
    if endless { response.map(|body| UntilStop::new(body, shared.stop.clone()).boxed_unsync()) } else { response }
}

/// Who is not let in, and why.
struct Unidentified {
    /// Whose credentials are good.
    user: Option<UserInfo>,
    error: ApiError,
}

/// Whom a request acts as, and whose credentials it has if that is somebody else.
async fn identify(
    request: &Parts,
    remote: &Remote,
    shared: &Shared,
) -> Result<(UserInfo, Option<UserInfo>), Unidentified> {
    let user = shared
        .authenticator
        .authenticate(&remote.peer, &request.headers, request.uri.path())
        .await
        .map_err(|error| Unidentified { user: None, error })?;
    match impersonate::apply(&user, &request.headers, &*shared.authorizer).await {
        Ok(None) => Ok((user, None)),
        Ok(Some(other)) => Ok((other, Some(user))),
        Err(error) => Err(Unidentified { user: Some(user), error }),
    }
}

/// Whether the request asks for a stream without an end.
fn endless(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes())
        .any(|(key, value)| matches!(&*key, "watch" | "follow") && matches!(&*value, "" | "1" | "true" | "True"))
}

#[cfg(test)]
mod tests;
