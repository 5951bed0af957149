//! Authentication: from a TLS peer's certificate or a token to a user.
//!
//! The handshake accepts any client certificate whose key the peer holds; whether this cluster's authority signed it is
//! judged here, so that a wrong one is answered `401 Unauthorized` and not with a broken connection. What must stay true:
//! bad credentials are an error, never the anonymous user.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use wherry_api::status::ApiError;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::oidc::Anonymous;
use super::tokens::Tokens;
use super::{AUTHENTICATED, UserInfo};
use crate::hex;

/// Why the authenticator cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    #[error("the authority's certificate is unusable")]
    Authority(#[source] rustls::Error),
    #[error("client certificates cannot be verified")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What a connection's client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// No certificate.
    None,
    /// Signed by the cluster's authority; good until then (seconds since 1970).
    User { user: UserInfo, until: u64 },
    /// Another authority's, expired, or without a name.
    Bad,
}

/// Authenticates requests.
#[derive(Clone, Debug)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
    verifier: Arc<dyn ClientCertVerifier>,
    anonymous: Anonymous,
}

impl Authenticator {
    pub fn new(ca: &CertificateDer<'static>, tokens: Arc<Tokens>) -> Result<Self, AuthnError> {
        Ok(Self { tokens, verifier: client_verifier(ca)?, anonymous: Anonymous::default() })
    }

    /// Where requests without credentials are let in.
    #[must_use]
    pub fn with_anonymous(self, anonymous: Anonymous) -> Self {
        Self { anonymous, ..self }
    }

    /// What the TLS handshake uses: asks for a certificate and checks only that the peer holds its key.
    pub fn handshake_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyCertificate(Arc::clone(&self.verifier)))
    }

    /// Judges a connection's certificate chain, once.
    pub fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some((end, intermediates)) = chain.and_then(<[_]>::split_first) else { return Peer::None };
        judge(&*self.verifier, end, intermediates)
    }

    /// The user of a request: the certificate's, else the token's, else anonymous. 401 if credentials were shown and
    /// none was good.
    pub async fn authenticate(&self, peer: &Peer, headers: &HeaderMap, path: &str) -> Result<UserInfo, ApiError> {
        if let Peer::User { user, until } = peer
            && UnixTime::now().as_secs() < *until
        {
            return Ok(user.clone());
        }
        match token(headers, path) {
            Some(token) => {
                let verified = self.tokens.authenticate(&token, &[]).await;
                verified.map(|verified| verified.user).map_err(|error| {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a token was not accepted");
                    ApiError::unauthorized()
                })
            }
            None if *peer == Peer::None && !headers.contains_key(AUTHORIZATION) && self.anonymous.allows(path) => {
                Ok(UserInfo::anonymous())
            }
            None => Err(ApiError::unauthorized()),
        }
    }

    /// The tokens that this authenticator believes.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }
}

/// Judges the certificates that an authority signed.
pub(super) fn client_verifier(ca: &CertificateDer<'static>) -> Result<Arc<dyn ClientCertVerifier>, AuthnError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(AuthnError::Authority)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

pub(super) fn judge(
    verifier: &dyn ClientCertVerifier,
    end: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Peer {
    match verifier.verify_client_cert(end, intermediates, UnixTime::now()) {
        Ok(_) => certificate_user(end).unwrap_or(Peer::Bad),
        Err(error) => {
            tracing::debug!(%error, "a client certificate was not accepted");
            Peer::Bad
        }
    }
}

/// The token of a request: `Bearer`, or the password of `Basic` for the image registry, whose clients know no other way.
fn token(headers: &HeaderMap, path: &str) -> Option<String> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") && (path == "/v2" || path.starts_with("/v2/")) {
        let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
        return decoded.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

/// CN is the user, O are the groups.
fn certificate_user(der: &CertificateDer<'_>) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    let digest = hex::lower(Sha256::digest(der));
    let extra = [("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={digest}")])];
    let until = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    if name.is_empty() {
        return None;
    }
    Some(Peer::User { user: UserInfo { name, uid: String::new(), groups, extra: extra.into() }, until })
}

/// Accepts every client certificate whose key the peer holds; [`Authenticator::peer`] judges it afterwards.
#[derive(Debug)]
struct AnyCertificate(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::pki::Pki;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn basic_credentials_count_for_the_registry_only() {
        let basic = headers(&format!("Basic {}", STANDARD.encode("anyone:t0ken")));
        assert_eq!(token(&basic, "/v2/").as_deref(), Some("t0ken"));
        assert_eq!(token(&basic, "/api/v1/pods"), None);
        assert_eq!(token(&headers("bearer  abc "), "/api").as_deref(), Some("abc"));
    }

    #[test]
    fn a_certificates_common_name_is_the_user_and_its_organization_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Pki::open(dir.path()).unwrap().node_identity("n1").unwrap();
        let (chain, _) = identity.to_der().unwrap();
        let Some(Peer::User { user, .. }) = certificate_user(&chain[0]) else { panic!("not a user") };
        assert_eq!(user.node_name(), Some("n1"));
        assert_eq!(user.groups, ["system:nodes", AUTHENTICATED]);
    }
}
