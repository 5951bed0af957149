//! `wasi:http` components: a container's HTTP server.
//!
//! A listener and a few hundred bytes while nobody asks; connections, instances and waiting requests are bounded. Errors
//! become answers here: a trap is 500, too many requests 503 with `Retry-After`, too slow a guest 504.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use wasmtime_wasi_http::WasiBody;

use self::body::{GuestBody, Visited};
use super::Tuning;
use super::bell::Bell;
use super::caller::{Caller, Quiet, Wire};
use super::failure;
use super::life::{KILLED, Life, exit};
use super::patience::Patience;
use super::room::Taken;
use super::state::Guest;
use super::worker::Pool;
use crate::backend::{BackendError, Container, Difference, Exit, Started, Stats};
use crate::network::{Denied, ListenGuard, LocalHttp, Protocol};
use crate::places::Places;

mod body;

/// Connections of one container. More wait in the listener's backlog; of those that Services hand over so many wait, and others
/// are given back.
const CONNECTIONS: usize = 1024;
const WAITING: usize = 256;

/// Connections that the kernel keeps for a listener.
const BACKLOG: u32 = 1024;

/// A client has this long to ask for the first time. A connection without a request under way is told to end after this time,
/// twice that at most (over HTTP/1 it is closed), and closed after as long again. Who takes nothing of an answer is sent
/// away after four times as long.
const IDLE: Duration = Duration::from_secs(75);

/// Bytes of a connection's read buffer at most; it grows only when a head is that long.
const HEAD_BYTES: usize = 64 << 10;

/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 128;

/// A connection that did not ask anything yet may still do so for this long once its container ends.
const FIRST_REQUEST: Duration = Duration::from_millis(200);

/// After a failed accept (no file descriptors left), wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server grants its clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clients {
    pub(super) connections: usize,
    pub(super) waiting: usize,
    pub(super) idle: Duration,
}

impl Default for Clients {
    fn default() -> Self {
        Self { connections: CONNECTIONS, waiting: WAITING, idle: IDLE }
    }
}

/// A container's HTTP server. Dropping it kills it.
pub(super) struct Server {
    shared: Arc<Shared>,
    port: u16,
    listening: Mutex<Option<ListenGuard>>,
    differs: Option<Difference>,
}

/// What connections use.
pub(super) struct Shared {
    guest: Arc<Guest>,
    life: Arc<Life>,
    pool: Arc<Pool>,
    /// How long a guest may take until its response's head.
    timeout: Duration,
    /// For connections.
    places: Places,
    idle: Duration,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("port", &self.port).field("life", &self.shared.life).finish_non_exhaustive()
    }
}

impl Server {
    pub(super) fn new(
        guest: Arc<Guest>,
        life: Arc<Life>,
        pool: Arc<Pool>,
        port: u16,
        tuning: Tuning,
        clients: Clients,
    ) -> Self {
        let (places, idle) = (Places::new(clients.connections, clients.waiting), clients.idle);
        let shared = Arc::new(Shared { guest, life, pool, timeout: tuning.timeout, places, idle });
        Self { shared, port, listening: Mutex::new(None), differs: tuning.differs }
    }

    /// Binds the pod's port, or a substitute if it cannot be had; the address that was wanted, and the one that it is.
    fn listen(&self) -> Result<(TcpListener, SocketAddr, SocketAddr), BackendError> {
        let asked = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port));
        let host = self.shared.guest.network.bind(Protocol::Tcp, asked).map_err(|denied| refused(&denied))?;
        // Sockets belong to the reactor of the runtime that is entered.
        let _entered = self.shared.life.handle().enter();
        let listener = bind(host).or_else(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied => {
                tracing::debug!(address = %host, %error, "serving on a substitute port");
                bind(SocketAddr::new(host.ip(), 0))
            }
            _ => Err(error),
        });
        let listener = listener.map_err(|e| BackendError::Network(format!("cannot listen on {host}: {e}")))?;
        let actual =
            listener.local_addr().map_err(|e| BackendError::Network(format!("cannot listen on {host}: {e}")))?;
        Ok((listener, host, actual))
    }
}

fn refused(denied: &Denied) -> BackendError {
    BackendError::Network(denied.to_string())
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A container that restarts takes its port back from connections in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[async_trait]
impl Container for Server {
    async fn start(&self) -> Result<Started, BackendError> {
        let (listener, asked, actual) = self.listen()?;
        let http: Arc<dyn LocalHttp> = Arc::new(Local(Arc::clone(&self.shared)));
        let guard = self.shared.guest.network.listening(Protocol::Tcp, asked, actual, Some(http));
        let guard = guard.map_err(|denied| refused(&denied))?;
        *self.listening.lock() = Some(guard);
        let shared = Arc::clone(&self.shared);
        self.shared.life.spawn_front(shared.accept(listener));
        let port = (asked != actual).then_some(Difference::Port(asked));
        Ok(Started { differs: port.into_iter().chain(self.differs).collect(), ..Started::now() })
    }

    async fn wait(&self) -> Exit {
        let exit = self.shared.life.wait().await;
        drop(self.listening.lock().take());
        exit
    }

    async fn drain(&self) {
        self.shared.life.drained().await;
    }

    async fn stop(&self, grace: Duration) -> Exit {
        // Off the table first: nobody new is sent here while requests under way finish.
        drop(self.listening.lock().take());
        let left = self.shared.life.left(grace).await;
        self.shared.life.end(if left { exit(0, "Completed", "") } else { exit(KILLED, "Error", "") });
        self.shared.life.wait().await
    }

    fn stats(&self) -> Stats {
        let guest = &self.shared.guest;
        Stats {
            cpu: guest.cpu.total(),
            memory_bytes: guest.usage.bytes(),
            requests: guest.requests.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.life.kill();
    }
}

/// The server as others on this node reach it.
struct Local(Arc<Shared>);

impl LocalHttp for Local {
    fn serve(&self, stream: TcpStream, peer: SocketAddr) -> Result<(), TcpStream> {
        let Some(_welcome) = self.0.life.welcome() else { return Err(stream) };
        let (Some(room), Some(ticket)) = (self.0.room(), self.0.places.ask()) else { return Err(stream) };
        let moved = stream.into_std().and_then(|stream| {
            let _entered = self.0.life.handle().enter();
            TcpStream::from_std(stream)
        });
        match moved {
            Ok(stream) => {
                let shared = Arc::clone(&self.0);
                self.0.life.spawn_front(async move {
                    let (Some(_place), _room) = (ticket.place().await, room) else { return };
                    shared.connection(stream).await;
                });
            }
            Err(error) => tracing::debug!(%peer, %error, "a connection was lost while it was handed over"),
        }
        Ok(())
    }

    fn call(&self, request: Request<WasiBody>) -> BoxFuture<'static, Response<WasiBody>> {
        let (shared, visit) = (Arc::clone(&self.0), self.0.life.visit());
        Box::pin(async move {
            let answer = shared.answer(request, &Patience::default()).await;
            answer.map(|body| Visited::new(body, visit).boxed_unsync())
        })
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Some(place) = self.places.place().await else { return };
            let accepted = match self.life.drain().until(listener.accept()).await {
                // Whom the kernel welcomed before the drain is served.
                None => listener.accept().now_or_never(),
                accepted => accepted,
            };
            match accepted {
                None => return,
                Some(Ok((stream, _))) => {
                    // Closed if its namespace, or the node, has as many as it may.
                    let Some(room) = self.room() else { continue };
                    let shared = Arc::clone(&self);
                    self.life.spawn_front(async move {
                        shared.connection(stream).await;
                        drop((place, room));
                    });
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A descriptor for one more connection, if the namespace and the node have one left. That there is none is said, but not
    /// each time.
    fn room(&self) -> Option<Taken> {
        let room = &self.guest.connections;
        let taken = room.take();
        if taken.is_none() && room.tells() {
            let namespace = room.namespace();
            tracing::warn!(
                namespace,
                "connections to a pod were closed: its namespace, or the node, has as many as it may"
            );
        }
        taken
    }

    /// Serves one connection until its client, the client's silence or the container's end closes it.
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Answers are small and written whole.
        let _ = stream.set_nodelay(true);
        let mut builder = auto::Builder::new(Executor(Arc::clone(&self.life)));
        // The caller has a clock for all of this.
        builder.http1().header_read_timeout(None).max_buf_size(HEAD_BYTES);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS);
        let caller = Arc::new(Caller::default());
        let (shared, asks) = (Arc::clone(&self), Arc::clone(&caller));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (shared, asked) = (Arc::clone(&shared), asks.asks());
            async move {
                let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                let answer = shared.answer(request, asked.patience()).await;
                Ok::<_, Infallible>(answer.map(|body| asked.answer(body)))
            }
        });
        let wire = Wire::new(TokioIo::new(stream), &caller);
        let mut connection = pin!(builder.serve_connection(wire, service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.drained(&caller.asked) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            quiet = caller.gone_quiet(self.idle) => {
                if quiet == Quiet::Gone {
                    return;
                }
                // What it asks before it learns of the end is answered; who does not even say goodbye has gone.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => ended,
                    _ = caller.gone_quiet(self.idle) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%error, "a client's connection ended early");
        }
    }

    /// Waits until a connection that asked before is to close. One that was accepted just before the drain has sent its
    /// request, which may not have been read yet.
    async fn drained(&self, asked: &Bell) {
        self.life.drain().heard().await;
        let _ = tokio::time::timeout(FIRST_REQUEST, asked.heard()).await;
    }

    /// One request, from whatever brought it here.
    pub(super) async fn answer(&self, mut request: Request<WasiBody>, patience: &Patience) -> Response<GuestBody> {
        if let Err(why) = make_absolute(&mut request) {
            return problem(StatusCode::BAD_REQUEST, why);
        }
        self.guest.requests.fetch_add(1, Ordering::Relaxed);
        let head = request.method() == Method::HEAD;
        let Ok((wanted, answer)) = self.pool.submit(request) else {
            return try_later();
        };
        match patience.within(self.timeout, answer).await {
            Some(Ok(Ok(response))) => {
                let sent = !head && !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
                response.map(|body| GuestBody::new(body, wanted, sent))
            }
            Some(Ok(Err(error))) => {
                wanted.delivered();
                self.failed(error).await
            }
            // The instance ended without an answer, which its worker has told in the log.
            Some(Err(_)) => problem(StatusCode::INTERNAL_SERVER_ERROR, "the component ended without an answer"),
            None => problem(StatusCode::GATEWAY_TIMEOUT, "the component did not answer in time"),
        }
    }

    async fn failed(&self, error: wasmtime::Error) -> Response<GuestBody> {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return try_later();
        }
        let told = failure::told(&error);
        drop(error);
        self.guest.complain(&told).await;
        problem(StatusCode::INTERNAL_SERVER_ERROR, "the component failed")
    }
}

/// Gives a request the scheme and authority that a guest expects of it.
fn make_absolute(request: &mut Request<WasiBody>) -> Result<(), &'static str> {
    if request.uri().authority().is_some() && request.uri().scheme().is_some() {
        return Ok(());
    }
    let host = if let Some(authority) = request.uri().authority() {
        authority.clone()
    } else {
        let host = request.headers().get(HOST).ok_or("the request has no Host header")?;
        Authority::try_from(host.as_bytes()).map_err(|_| "the Host header is not a host and port")?
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(host);
    parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "the request's target is not a path")?;
    Ok(())
}

fn problem(status: StatusCode, text: &'static str) -> Response<GuestBody> {
    let mut response = Response::new(GuestBody::text(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn try_later() -> Response<GuestBody> {
    let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Spawns HTTP/2 streams as tasks of the container.
#[derive(Clone)]
struct Executor(Arc<Life>);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn_front(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: Option<&str>) -> Request<WasiBody> {
        let mut builder = Request::builder().uri(uri);
        if let Some(host) = host {
            builder = builder.header(HOST, host);
        }
        builder.body(GuestBody::text("").boxed_unsync()).unwrap()
    }

    #[test]
    fn a_guest_sees_scheme_and_authority_of_every_request() {
        let cases = [
            ("/a?b=c", Some("shop:8080"), Ok("http://shop:8080/a?b=c")),
            ("http://other/x", Some("shop"), Ok("http://other/x")),
            ("/", None, Err("the request has no Host header")),
            ("/", Some("a b"), Err("the Host header is not a host and port")),
        ];
        for (uri, host, expected) in cases {
            let mut request = request(uri, host);
            let result = make_absolute(&mut request).map(|()| request.uri().to_string());
            assert_eq!(result.as_deref(), expected.as_ref().map(|s| *s), "{uri} {host:?}");
        }
    }
}
