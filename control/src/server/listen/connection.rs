//! One connection: its TLS handshake, its requests, and who sends them.
//!
//! What must stay true: a client that sends nothing, or slowly, holds its place for a bounded time; who does not authenticate
//! has one HTTP/2 connection for one request, as with HTTP/1.1 without keep-alive, and a bounded number of answers that wait.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use tokio_rustls::server::TlsStream;
use wherry_api::status::ApiError;

use super::places::Connection;
use super::unread::Unread;
use super::{IDLE, KEEPALIVE, KEEPALIVE_TIMEOUT, Refused, Shared, Streams, tls};
use crate::audit::Origin;
use crate::auth::authn::Peer;
use crate::auth::{ANONYMOUS, UserInfo, impersonate};
use crate::server::aggregation::PassedOn;
use crate::server::body::Body;
use crate::server::guard::{Impatient, UntilStop};
use crate::server::query::Query;

/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a request's headers over HTTP/1.1, and so for an idle connection.
const HEADERS: Duration = IDLE;
/// Between two pieces of a request's body.
const BODY_PATIENCE: Duration = Duration::from_mins(1);
/// All headers of a request together.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Streams at once on a connection: a controller's client has a watch per kind, and lists beside them.
const MAX_STREAMS: u32 = 1000;
/// Receive windows: the defaults of 64 KB stall uploads and many streams on one connection.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves what was accepted, until it ends.
pub(super) async fn serve(stream: TcpStream, address: IpAddr, place: &Arc<Connection>, shared: &Arc<Shared>) {
    let handshake = tokio::select! {
        () = shared.stop.cancelled() => return,
        done = timeout(HANDSHAKE, tls::handshake(stream, &shared.tls)) => done,
    };
    match handshake {
        Ok(Ok(Some(stream))) => requests(stream, address, place, shared).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// The other side of a connection.
struct Remote {
    address: IpAddr,
    peer: Peer,
    place: Arc<Connection>,
}

impl Remote {
    fn origin(&self, authenticated: Option<UserInfo>) -> Origin {
        Origin { address: self.address, authenticated, connection: Some(Arc::clone(&self.place)) }
    }
}

async fn requests(stream: TlsStream<TcpStream>, address: IpAddr, place: &Arc<Connection>, shared: &Arc<Shared>) {
    let (_, session) = stream.get_ref();
    let peer = shared.authenticator.peer(session.peer_certificates());
    let remote = Arc::new(Remote { address, peer, place: Arc::clone(place) });
    let http2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, remote, busy) = (Arc::clone(shared), Arc::clone(&remote), place.activity.begin());
        async move {
            let response = answer(request, &remote, &shared).await?;
            Ok::<_, h2::Error>(response.map(|body| busy.until_end_of(body).boxed_unsync()))
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
            () = of_nobody(place), if !ending => {
                serving.as_mut().graceful_shutdown();
                ending = true;
                ticks.reset();
            }
            _ = ticks.tick() => {
                if ending && place.ends() && !place.is_known() && place.activity.is_stuck() {
                    tracing::debug!(%address, "answers to nobody were not taken in time");
                    return;
                }
                let now = place.activity.requests();
                if !place.activity.is_idle() || seen.replace(now) != Some(now) {
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

/// Returns once somebody who has not authenticated has asked over HTTP/2. Nobody is told: the answer wakes the connection.
fn of_nobody(place: &Connection) -> impl Future<Output = ()> {
    poll_fn(|_| if place.ends() { Poll::Ready(()) } else { Poll::Pending })
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

/// Error: it is nobody's, and one too many; nothing of it is kept.
async fn answer(request: Request<Incoming>, remote: &Remote, shared: &Shared) -> Result<Response<Body>, h2::Error> {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let endless = parts.uri.query().is_some_and(endless);
    let unread = Unread::of(&parts);
    let identified = identify(&parts, remote, shared).await;
    let sender = match &identified {
        Ok((user, authenticated)) => authenticated.as_ref().or((user.name != ANONYMOUS).then_some(user)),
        Err(refused) => refused.user.as_ref(),
    };
    match sender {
        Some(user) => shared.places.known(&remote.place, &user.name),
        None if parts.version == Version::HTTP_2 && !remote.place.serves_nobody() => {
            return Err(h2::Reason::REFUSED_STREAM.into());
        }
        None => {}
    }
    let (name, response) = match identified {
        Ok((user, authenticated)) => {
            let name = user.name.clone();
            parts.extensions.insert(remote.origin(authenticated));
            if matches!(remote.peer, Peer::Proxy { .. }) {
                parts.extensions.insert(PassedOn);
            }
            let body = unread.watch(Impatient::new(body, BODY_PATIENCE));
            (name, shared.handler.handle(Request::from_parts(parts, body), user).await)
        }
        Err(Unidentified { user, error }) => {
            parts.extensions.insert(remote.origin(None));
            let certificate = remote.peer != Peer::None;
            let refused = Refused { request: &parts, user: user.as_ref(), certificate, error };
            drop(unread.watch(Impatient::new(body, BODY_PATIENCE)));
            (String::new(), shared.handler.refuse(refused).await)
        }
    };
    unread.drain().await;
    tracing::debug!(%method, path, user = name, code = response.status().as_u16(), took = ?started.elapsed(), "request");
    if !endless {
        return Ok(response);
    }
    Ok(response.map(|body| UntilStop::new(body, shared.stop.clone()).boxed_unsync()))
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
pub(super) fn endless(query: &str) -> bool {
    let query = Query::parse(Some(query));
    query.is_set("watch") || query.is_set("follow")
}
