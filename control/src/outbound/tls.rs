//! Whom outgoing requests trust.
//!
//! Beside what webpki accepts, a certificate that is itself in the given bundle is good for its names while it is valid:
//! webhooks with a self-signed certificate are common, and Kubernetes takes them.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier as Machine;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::auth::pki::Identity;

/// Whose certificates are good.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// The machine's authorities.
    Machine,
    /// These, in PEM.
    Bundle(Arc<[u8]>),
    /// `insecureSkipTLSVerify`: anybody, as the APIService's author wants.
    Anybody,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "Machine",
            Self::Bundle(_) => "Bundle(..)",
            Self::Anybody => "Anybody",
        })
    }
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("unable to load root certificates: {0}")]
    Roots(String),
    #[error("the client certificate cannot be used")]
    Identity,
    #[error(transparent)]
    Config(#[from] rustls::Error),
}

/// The configuration for a client that trusts so and shows this identity.
pub(super) fn client(trust: &Trust, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Machine => Arc::new(Machine::new(Arc::clone(&provider))?),
        Trust::Bundle(pem) => Arc::new(Bundle::new(pem, &provider)?),
        Trust::Anybody => Arc::new(Anybody(Arc::clone(&provider))),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.to_der().ok_or(TlsError::Identity)?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Trusts a bundle's authorities, and the bundle's certificates themselves.
#[derive(Debug)]
struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl Bundle {
    fn new(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let refuse = |why: &dyn fmt::Display| TlsError::Roots(why.to_string());
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| refuse(&error))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let authorities = builder.build().map_err(|error| refuse(&error))?;
        Ok(Self { certificates, authorities })
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificates.iter().any(|own| own == leaf) {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
            return if valid(leaf, now) {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(CertificateError::Expired.into())
            };
        }
        self.authorities.verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

fn valid(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let (validity, now) = (parsed.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
}

/// Takes any certificate; only the handshake's signature is checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
