//! TLS of the node API: only clients whose certificate the cluster's authority signed, and who may do everything there
//! (`system:masters`: the API server and administrators), get an answer.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group whose members may use the node API.
const MASTERS: &str = "system:masters";

/// The node API's certificate, and the authority of its clients, as PEM.
#[derive(Clone)]
pub struct NodeTls {
    pub certificate: String,
    pub key: String,
    pub client_ca: String,
}

impl std::fmt::Debug for NodeTls {
    /// The key is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeTls").finish_non_exhaustive()
    }
}

/// Why the node API has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the node's certificate, key or client authority is not PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("the node's client authority cannot be used")]
    Authority(#[source] rustls::server::VerifierBuilderError),
    #[error("the node's certificate or key cannot be used")]
    Certificate(#[source] rustls::Error),
}

impl NodeTls {
    pub fn config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.client_ca.as_bytes()) {
            roots.add(certificate.map_err(TlsError::Pem)?).map_err(TlsError::Certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(TlsError::Authority)?;
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(TlsError::Pem)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(TlsError::Pem)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(TlsError::Certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Whether the holder of a verified certificate may use the node API.
pub fn allowed(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    parsed.subject().iter_organization().any(|group| group.as_str() == Ok(MASTERS))
}
