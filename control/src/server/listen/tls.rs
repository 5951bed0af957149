//! The listener's TLS: the server's certificate, which is renewed while it serves, and the handshake.

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{KEEPALIVE, KEEPALIVE_TIMEOUT, ListenError};
use crate::auth::authn::Authenticator;
use crate::auth::pki::{Identity, Pki, ServerNames};

pub(super) fn config(
    authenticator: &Authenticator,
    certificate: Arc<Certificate>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(authenticator.handshake_verifier())
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificate in use; replaced when it is renewed.
#[derive(Debug)]
pub(super) struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    pub(super) fn new(identity: &Identity) -> Result<Self, ListenError> {
        Ok(Self(RwLock::new(Self::load(identity)?)))
    }

    fn replace(&self, identity: &Identity) -> Result<(), ListenError> {
        *self.0.write() = Self::load(identity)?;
        Ok(())
    }

    fn load(identity: &Identity) -> Result<Arc<CertifiedKey>, ListenError> {
        let (chain, key) = identity.to_der().ok_or(ListenError::Damaged)?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        Ok(Arc::new(CertifiedKey::new(chain, key)))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

/// Keeps a server that runs for months from showing an expired certificate.
pub(super) struct Renewal {
    pub(super) pki: Arc<Pki>,
    pub(super) names: ServerNames,
    pub(super) certificate: Arc<Certificate>,
}

impl Renewal {
    pub(super) fn run(&self) {
        let renewed = self.pki.server_identity(&self.names).map_err(ListenError::from);
        if let Err(error) = renewed.and_then(|identity| self.certificate.replace(&identity)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the server's certificate could not be renewed");
        }
    }
}

/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// `None`: the client spoke plain HTTP and has been told.
pub(super) async fn handshake(mut stream: TcpStream, tls: &TlsAcceptor) -> io::Result<Option<TlsStream<TcpStream>>> {
    stream.set_nodelay(true)?;
    keep_alive(&stream)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [TLS_HANDSHAKE] {
        let answer = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // What the client sent is read, or closing would reset the connection before it has read the answer.
        let mut unread = [0; 4096];
        while stream.try_read(&mut unread).is_ok_and(|read| read > 0) {}
        return Ok(None);
    }
    tls.accept(stream).await.map(Some)
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_TIMEOUT)?;
    Ok(())
}
