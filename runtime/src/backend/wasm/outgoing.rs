//! Outgoing `wasi:http`, of both versions: names, Services and policy are applied here; a request to a guest of this node
//! is a call in memory, others use the process's one client.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls_pki_types::ServerName;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::client::{Client, Failed, Key, Lent, broken};
use super::room::Room;
use crate::network::{Denied, PodNetwork, Protocol, Route};

/// Where a guest gives no limit: for a connection, and for each wait afterwards.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_mins(10);

/// Bytes of a body that the host holds for a guest at once, so that many bodies which nobody reads stay small.
const CHUNK: usize = 64 << 10;

/// One instance's way to other servers.
pub(super) struct Outgoing {
    client: Arc<Client>,
    network: Arc<PodNetwork>,
    /// Places of the container, for all its instances.
    sockets: Arc<Room>,
}

impl Outgoing {
    pub(super) fn new(client: Arc<Client>, network: Arc<PodNetwork>, sockets: Arc<Room>) -> Self {
        Self { client, network, sockets }
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Io), Error>> + Send> {
        let way = Self::new(Arc::clone(&self.client), Arc::clone(&self.network), Arc::clone(&self.sockets));
        Box::new(async move {
            let response = way.send(request, options.unwrap_or_default()).await?;
            // A request's own failure is its response's: nothing is left to report.
            Ok((response, Box::new(std::future::ready(Ok(()))) as Io))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

impl Outgoing {
    async fn send(&self, request: Request<WasiBody>, options: RequestOptions) -> Result<Response<WasiBody>, Error> {
        self.try_send(request, options).await.map_err(|Failed { error, unsent }| {
            if let Some(body) = unsent {
                self.client.read_unsent(body);
            }
            error
        })
    }

    async fn try_send(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Failed> {
        let connect = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let head = options.first_byte_timeout.unwrap_or(TIMEOUT);
        let between = options.between_bytes_timeout.unwrap_or(TIMEOUT);
        let target = match Target::of(request.uri()) {
            Ok(target) => target,
            Err(error) => return Err(Failed::before(error, request)),
        };
        let route = tokio::time::timeout(connect, target.route(&self.network)).await;
        let route = match route.unwrap_or(Err(Error::DnsTimeout)) {
            Ok(route) => route,
            Err(error) => return Err(Failed::before(error, request)),
        };
        if let (Some(local), None) = (route.local, &target.server) {
            let response =
                tokio::time::timeout(head, local.call(request)).await.map_err(|_| Error::ConnectionReadTimeout)?;
            return Ok(response);
        }
        let key = Key { source: route.source, destination: route.destination, server: target.server };
        let request = to_origin_form(request);
        let (response, lent) = self.client.send(&self.sockets, key, request, connect, head).await?;
        Ok(response.map(|body| Received::new(body, lent, between).boxed_unsync()))
    }
}

/// What a URI names.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    /// Set for TLS.
    server: Option<ServerName<'static>>,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        // Of an IPv6 address in a URI, the brackets are not part.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let server = if tls {
            Some(ServerName::try_from(host.clone()).map_err(|_| Error::HttpRequestUriInvalid)?)
        } else {
            None
        };
        Ok(Self { host, port, server })
    }

    /// The first of the host's addresses that the pod may reach; else why it may not reach the first.
    async fn route(&self, network: &PodNetwork) -> Result<Route, Error> {
        let addresses = match self.host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => network.resolve(&self.host).await.map_err(|why| denied(&why))?,
        };
        let mut why = None;
        for ip in addresses {
            match network.connect(Protocol::Tcp, SocketAddr::new(ip, self.port)) {
                Ok(route) => return Ok(route),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.as_ref().map_or_else(no_such_name, denied))
    }
}

fn no_such_name() -> Error {
    Error::DnsError { rcode: Some("NXDOMAIN".into()), info_code: None }
}

fn denied(why: &Denied) -> Error {
    match why {
        Denied::Access(_) => Error::DestinationIpProhibited,
        Denied::Refused(_) | Denied::InUse(_) => Error::ConnectionRefused,
        Denied::NotSupported(_) => Error::DestinationIpUnroutable,
        Denied::NoSuchName(_) => no_such_name(),
        Denied::NoAnswer(_) => Error::DnsTimeout,
    }
}

/// To a server (not a proxy) the target is a path; the `Host` header is there already.
fn to_origin_form(mut request: Request<WasiBody>) -> Request<WasiBody> {
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = http::Version::HTTP_11;
    request
}

/// A response's body. Its connection serves the next request once it is read to the end.
struct Received {
    body: Incoming,
    lent: Option<Lent>,
    between: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Received {
    fn new(body: Incoming, lent: Lent, between: Duration) -> Self {
        let mut this = Self { body, lent: Some(lent), between, timer: None };
        this.settle();
        this
    }

    fn settle(&mut self) {
        if self.body.is_end_stream()
            && let Some(lent) = self.lent.take()
        {
            lent.give_back();
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            if frame.is_none()
                && let Some(lent) = this.lent.take()
            {
                lent.give_back();
            }
            this.settle();
            return Poll::Ready(frame.map(|f| f.map_err(|e| broken(&e))));
        }
        let between = this.between;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + between)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::super::room::Descriptors;
    use super::*;
    use crate::network::local::testing::Lone;

    #[tokio::test]
    async fn who_still_sends_is_told_why_it_goes_nowhere() {
        let (network, none) = (Lone::new(), Descriptors::with(0).room("none", 0));
        let client = Arc::new(Client::new(tokio::runtime::Handle::current()));
        let way = Outgoing::new(client, network.pod("sends"), none);
        for (uri, told) in [
            ("http://192.0.2.1/", Error::ConnectionLimitReached),
            ("http://[2001:db8::1]/", Error::DestinationIpUnroutable),
            ("/path", Error::HttpRequestUriInvalid),
        ] {
            let (guest, mut sent) = tokio::sync::mpsc::channel(1);
            let body = StreamBody::new(futures::stream::poll_fn(move |cx| sent.poll_recv(cx))).boxed_unsync();
            let request = Request::post(uri).body(body).unwrap();
            let error = way.send(request, RequestOptions::default()).await.unwrap_err();
            assert_eq!(format!("{error:?}"), format!("{told:?}"), "{uri}");
            for _ in 0..3 {
                guest.send(Ok(Frame::data(Bytes::from_static(b"more")))).await.unwrap();
            }
        }
    }

    #[test]
    fn a_uri_names_host_port_and_server() {
        let cases = [
            ("http://store/", "store", 80, None),
            ("http://127.0.0.1:9090/x", "127.0.0.1", 9090, None),
            ("http://[::1]:81/", "::1", 81, None),
            ("https://example.com/", "example.com", 443, Some("example.com")),
        ];
        for (uri, host, port, server) in cases {
            let target = Target::of(&uri.parse().unwrap()).unwrap();
            let server = server.map(|s: &str| ServerName::try_from(s).unwrap());
            assert_eq!(target, Target { host: host.into(), port, server }, "{uri}");
        }
        assert!(matches!(Target::of(&"/path".parse().unwrap()), Err(Error::HttpRequestUriInvalid)));
    }
}
