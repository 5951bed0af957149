//! Requests from the API server to servers that extend it: admission webhooks, conversion webhooks, aggregated APIs.
//!
//! [`Outbound`] is the one client for all of them. A `service:` reference is resolved to a ready endpoint of that Service, read
//! from the watch cache, and connected directly; the certificate must be for `NAME.NAMESPACE.svc` and signed by the given
//! bundle. Connections are pooled per server, certificate bundle and client identity.
//!
//! What must stay true: no server is reached without TLS; nothing follows redirects; an answer that is gathered has a bound.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::timeout;
use wherry_api::registry::Registry;

use self::connect::Connector;
use self::tls::Trust;
use crate::auth::UserInfo;
use crate::auth::pki::Identity;
use crate::cache::Cache;
use crate::server::body::{self, Body, GatherError};

mod config;
mod connect;
mod identity;
mod resolve;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

pub use config::{ClientConfig, Endpoint};
pub(crate) use identity::{EXTRA, GROUP, UID, USER};
pub use resolve::Resolver;

/// Servers with a pool of their own; the one that was used first goes when there are more.
const POOLS: usize = 128;
/// Connections that wait in a pool, and for how long.
const IDLE_CONNECTIONS: usize = 16;
const IDLE: Duration = Duration::from_secs(90);
/// Bytes of an answer that is gathered.
const ANSWER: usize = body::LIMIT;

/// Why a request was not answered. Worded as Go's HTTP client words it where a client may read it.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("{0}")]
    Config(String),
    /// `what` is the method and the URL; the cause is spelt out because clients are shown it.
    #[error("{what}: {why}")]
    Request { what: String, why: String },
    #[error("{what}: context deadline exceeded")]
    Timeout { what: String },
    #[error("{what}: the answer is larger than {ANSWER} bytes")]
    TooLarge { what: String },
}

/// An answer that was read whole.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

/// What distinguishes pools.
#[derive(Clone, PartialEq, Eq)]
struct PoolKey {
    endpoint: Endpoint,
    trust: Trust,
    identified: bool,
}

type Pool = Client<Connector, Body>;

struct Inner {
    resolver: Resolver,
    /// Shown to aggregated servers: the front proxy's certificate.
    identity: Option<Identity>,
    /// Bound: [`POOLS`].
    pools: Mutex<VecDeque<(PoolKey, Pool)>>,
}

/// The client. Cheap to clone.
///
/// ```ignore
/// let config = ClientConfig::parse(webhook.get("clientConfig"))?;
/// let reply = outbound.post(&config, "timeout=10s", review.to_string().into(), Duration::from_secs(10)).await?;
/// ```
#[derive(Clone)]
pub struct Outbound {
    inner: Arc<Inner>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").field("pools", &self.inner.pools.lock().len()).finish_non_exhaustive()
    }
}

impl Outbound {
    /// Finds Services in `cache`; `identity` is shown to aggregated servers ([`Outbound::send_identified`]).
    pub fn new(cache: Cache, registry: &Registry, identity: Option<Identity>) -> Self {
        let inner = Inner { resolver: Resolver::new(cache, registry), identity, pools: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// POSTs a JSON document to a webhook and reads the answer, within `within` altogether. `query` is added to the URL
    /// (`timeout=10s`); it may be empty.
    pub async fn post(
        &self,
        config: &ClientConfig,
        query: &str,
        document: Bytes,
        within: Duration,
    ) -> Result<Reply, OutboundError> {
        let request = Request::builder()
            .method(Method::POST)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .body(body::full(document));
        self.ask(config, &config.path_with(query), request, "Post", within).await
    }

    /// GETs a document, within `within` altogether.
    pub async fn get(&self, config: &ClientConfig, within: Duration) -> Result<Reply, OutboundError> {
        let request = Request::builder().header(ACCEPT, "application/json, */*").body(body::empty());
        self.ask(config, &config.path_with(""), request, "Get", within).await
    }

    /// Whether the server could be asked: its name and the certificates to trust are such.
    pub fn check(&self, config: &ClientConfig) -> Result<(), OutboundError> {
        self.pool(config, false).map(drop)
    }

    async fn ask(
        &self,
        config: &ClientConfig,
        path: &str,
        request: http::Result<Request<Body>>,
        verb: &str,
        within: Duration,
    ) -> Result<Reply, OutboundError> {
        let what = format!("{verb} {:?}", config.url(path));
        let request = request.map_err(|error| OutboundError::Config(error.to_string()))?;
        let exchange = async {
            let response = self.exchange(config, path, request, false).await?;
            let status = response.status();
            let body = body::gather(response.into_body(), ANSWER).await.map_err(|error| match error {
                GatherError::TooLarge(_) => OutboundError::TooLarge { what: what.clone() },
                GatherError::Broken(error) => OutboundError::Request { what: what.clone(), why: chain(&*error) },
            })?;
            Ok(Reply { status, body })
        };
        timeout(within, exchange).await.unwrap_or_else(|_| Err(OutboundError::Timeout { what: what.clone() }))
    }

    /// Sends a request whose answer is streamed, with the front proxy's certificate and in the name of `user`: for
    /// aggregated APIs. The request's URI gives path and query.
    pub async fn send_identified(
        &self,
        config: &ClientConfig,
        user: &UserInfo,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, OutboundError> {
        identity::name(request.headers_mut(), user).map_err(|error| OutboundError::Config(error.to_string()))?;
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        self.exchange(config, &path, request, true).await
    }

    /// Whether the Service or host can be named at all: what an Available condition asks first.
    pub fn resolver(&self) -> &Resolver {
        &self.inner.resolver
    }

    async fn exchange(
        &self,
        config: &ClientConfig,
        path: &str,
        mut request: Request<Body>,
        identified: bool,
    ) -> Result<Response<Body>, OutboundError> {
        let url = config.url(path);
        let method = request.method().as_str();
        let verb =
            format!("{}{}", method.get(..1).unwrap_or_default(), method.get(1..).unwrap_or_default().to_lowercase());
        let what = format!("{verb} {url:?}");
        *request.uri_mut() = url.parse::<Uri>().map_err(|error| OutboundError::Config(format!("{url:?}: {error}")))?;
        if let Ok(host) = HeaderValue::try_from(config.endpoint.authority()) {
            request.headers_mut().insert(HOST, host);
        }
        let pool = self.pool(config, identified)?;
        match pool.request(request).await {
            Ok(response) => Ok(response.map(body::boxed)),
            Err(error) => Err(OutboundError::Request { what, why: chain(&error) }),
        }
    }

    fn pool(&self, config: &ClientConfig, identified: bool) -> Result<Pool, OutboundError> {
        let key = PoolKey { endpoint: config.endpoint.clone(), trust: config.trust.clone(), identified };
        let mut pools = self.inner.pools.lock();
        if let Some((_, pool)) = pools.iter().find(|(known, _)| *known == key) {
            return Ok(pool.clone());
        }
        let identity = if identified { self.inner.identity.as_ref() } else { None };
        let tls = tls::client(&key.trust, identity).map_err(|error| OutboundError::Config(error.to_string()))?;
        let connector = Connector::new(key.endpoint.clone(), tls, self.inner.resolver.clone())
            .map_err(|error| OutboundError::Config(error.to_string()))?;
        let pool = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .set_host(false)
            .build(connector);
        if pools.len() >= POOLS {
            pools.pop_front();
        }
        pools.push_back((key, pool.clone()));
        Ok(pool)
    }
}

/// The last cause of an error: what Go's client would have said after the URL.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// A JSON answer's tree.
impl Reply {
    /// `None`: it is not JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}
