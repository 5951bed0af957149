//! One kept connection to one server, with the credentials that it wants.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

/// What a client shows and believes.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) identity: Option<PathBuf>,
    pub(crate) token: Option<String>,
}

/// Where connections go.
#[derive(Clone)]
pub(crate) struct Target {
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    host: HeaderValue,
    token: Option<HeaderValue>,
}

/// What one request brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) bytes: usize,
}

impl Target {
    pub(crate) fn new(url: &Url, credentials: &Credentials) -> anyhow::Result<Self> {
        let name = url.host_str().context("the URL names no host")?.to_owned();
        let port = url.port_or_known_default().context("the URL names no port")?;
        let tls = match url.scheme() {
            "https" => Some((connector(credentials)?, ServerName::try_from(name.clone())?)),
            "http" => None,
            other => bail!("no client for {other}"),
        };
        let token =
            credentials.token.as_ref().map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose()?;
        let address = format!("{name}:{port}");
        Ok(Self { host: HeaderValue::try_from(&address)?, address, tls, token })
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let stream =
            TcpStream::connect(&self.address).await.with_context(|| format!("no connection to {}", self.address))?;
        stream.set_nodelay(true)?;
        let sender = match &self.tls {
            Some((connector, name)) => {
                let (sender, driver) = handshake(TokioIo::new(connector.connect(name.clone(), stream).await?)).await?;
                tokio::spawn(driver);
                sender
            }
            None => {
                let (sender, driver) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(driver);
                sender
            }
        };
        Ok(Connection { sender, target: self.clone() })
    }
}

/// TLS without session tickets or protocols to choose from: every connection costs the same.
fn connector(credentials: &Credentials) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let ca = credentials.ca.as_ref().context("https needs --ca")?;
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("{} cannot be read", ca.display()))? {
        roots.add(certificate?)?;
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let config = match &credentials.identity {
        Some(path) => {
            let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(path)?)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection that carries one request at a time. Its task ends when it is dropped.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Connection {
    /// Sends a request. A patch is a merge patch.
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let patch = method == Method::PATCH;
        let media_type = if patch { "application/merge-patch+json" } else { "application/json" };
        if self.sender.ready().await.is_err() {
            *self = self.target.connect().await?;
            self.sender.ready().await?;
        }
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.target.host);
        if let Some(token) = &self.target.token {
            request = request.header(AUTHORIZATION, token);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let request = request.header(ACCEPT, "application/json").body(Full::new(body))?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Answer> {
        let response = self.send(method, path, body).await?;
        let status = response.status().as_u16();
        let (mut body, mut bytes) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(Answer { status, bytes })
    }
}
