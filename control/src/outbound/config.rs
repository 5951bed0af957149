//! Where a webhook or an aggregated server is, as its configuration says: a URL or a Service, and whom to trust.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::OutboundError;
use super::tls::Trust;

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Host { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

impl Endpoint {
    /// The name that the server's certificate must have.
    pub fn server_name(&self) -> String {
        match self {
            Self::Host { host, .. } => host.trim_matches(['[', ']']).to_owned(),
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    /// `NAME:PORT`, as in the URL.
    pub fn authority(&self) -> String {
        match self {
            Self::Host { host, port } => format!("{host}:{port}"),
            Self::Service { port, .. } => format!("{}:{port}", self.server_name()),
        }
    }
}

/// A server and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    pub endpoint: Endpoint,
    /// Begins with a slash.
    pub path: String,
    pub(super) trust: Trust,
    /// As the URL was written; empty for a Service.
    url: String,
}

impl ClientConfig {
    /// Reads a `WebhookClientConfig` (`url` or `service`, `caBundle`).
    pub fn parse(config: &Value) -> Result<Self, OutboundError> {
        let trust = bundle(config.get("caBundle"))?;
        match (config.get("url").and_then(Value::as_str), config.get("service")) {
            (Some(url), _) => Self::of_url(url, trust),
            (None, Some(service)) => Ok(Self::of_service(service, trust)),
            (None, None) => Err(OutboundError::Config("webhook configuration must have either service or URL".into())),
        }
    }

    /// Reads an APIService's `spec` (`service`, `caBundle`, `insecureSkipTLSVerify`); the path is the request's.
    pub fn of_api_service(spec: &Value) -> Result<Self, OutboundError> {
        let Some(service) = spec.get("service").filter(|service| service.is_object()) else {
            return Err(OutboundError::Config("the APIService names no service".into()));
        };
        let insecure = spec.get("insecureSkipTLSVerify") == Some(&Value::Bool(true));
        let trust = if insecure { Trust::Anybody } else { bundle(spec.get("caBundle"))? };
        Ok(Self::of_service(service, trust))
    }

    /// A URL, and whom to trust there: PEM; without one, the machine's authorities.
    pub fn of_https(url: &str, authority: &[u8]) -> Result<Self, OutboundError> {
        Self::of_url(url, if authority.is_empty() { Trust::Machine } else { Trust::Bundle(authority.into()) })
    }

    fn of_service(service: &Value, trust: Trust) -> Self {
        let text = |field: &str| service.get(field).and_then(Value::as_str).unwrap_or_default();
        let port = service.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        let endpoint = Endpoint::Service {
            namespace: text("namespace").to_owned(),
            name: text("name").to_owned(),
            port: port.unwrap_or(443),
        };
        let path = format!("/{}", text("path").trim_start_matches('/'));
        Self { endpoint, path, trust, url: String::new() }
    }

    fn of_url(text: &str, trust: Trust) -> Result<Self, OutboundError> {
        let url = url::Url::parse(text).map_err(|error| OutboundError::Config(format!("parse {text:?}: {error}")))?;
        let (Some(host), "https") = (url.host_str(), url.scheme()) else {
            return Err(OutboundError::Config(format!("{text:?} is not an https URL with a host")));
        };
        let endpoint = Endpoint::Host { host: host.to_owned(), port: url.port().unwrap_or(443) };
        Ok(Self { endpoint, path: url.path().to_owned(), trust, url: text.to_owned() })
    }

    /// The path with a query.
    pub(super) fn path_with(&self, query: &str) -> String {
        if query.is_empty() { self.path.clone() } else { format!("{}?{query}", self.path) }
    }

    /// The whole URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        let authority = match url::Url::parse(&self.url) {
            // A URL without a port is shown without one.
            Ok(url) if url.port().is_none() => self.endpoint.server_name(),
            _ => self.endpoint.authority(),
        };
        format!("https://{authority}{path}")
    }
}

/// Whom a `caBundle` (base64 of PEM) has us trust; without one, the machine's authorities.
fn bundle(value: Option<&Value>) -> Result<Trust, OutboundError> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    if text.is_empty() {
        return Ok(Trust::Machine);
    }
    let pem = STANDARD.decode(text);
    pem.map(|pem| Trust::Bundle(pem.into()))
        .map_err(|_| OutboundError::Config("the caBundle is not valid base64".into()))
}
