//! Authentication: from a TLS peer's certificate or a token to a user.
//!
//! The handshake accepts any client certificate whose key the peer holds; whether this cluster's authority signed it is
//! judged here, so that a wrong one is answered `401 Unauthorized` and not with a broken connection. What must stay true:
//! bad credentials are an error, never the anonymous user.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use wherry_api::status::ApiError;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::impersonate::percent_decoded;
use super::oidc::Anonymous;
use super::pki::FrontProxy;
use super::tokens::Tokens;
use super::{AUTHENTICATED, UserInfo, signing};
use crate::hex;
use crate::outbound::{EXTRA, GROUP, UID, USER};

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
    /// An authenticating proxy's: it says in whose name each request is. Good until then.
    Proxy { until: u64 },
    /// Another authority's, expired, or without a name.
    Bad,
}

/// Authenticates requests.
#[derive(Clone, Debug)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of authenticating proxies.
    proxies: Option<Arc<dyn ClientCertVerifier>>,
    anonymous: Anonymous,
}

impl Authenticator {
    pub fn new(ca: &CertificateDer<'static>, tokens: Arc<Tokens>) -> Result<Self, AuthnError> {
        Ok(Self { tokens, verifier: client_verifier(ca)?, proxies: None, anonymous: Anonymous::default() })
    }

    /// Believes what a holder of a certificate of this authority with the front proxy's name says of users.
    pub fn with_proxies(self, ca: &CertificateDer<'static>) -> Result<Self, AuthnError> {
        Ok(Self { proxies: Some(client_verifier(ca)?), ..self })
    }

    /// Where requests without credentials are let in.
    #[must_use]
    pub fn with_anonymous(self, anonymous: Anonymous) -> Self {
        Self { anonymous, ..self }
    }

    /// What the TLS handshake uses: asks for a certificate and checks only that the peer holds its key.
    pub fn handshake_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let all = [Some(&self.verifier), self.proxies.as_ref()].into_iter().flatten();
        let hints = all.flat_map(|verifier| verifier.root_hint_subjects().to_vec()).collect();
        Arc::new(AnyCertificate { verifier: Arc::clone(&self.verifier), hints })
    }

    /// Judges a connection's certificate chain, once.
    pub fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let Some((end, intermediates)) = chain.and_then(<[_]>::split_first) else { return Peer::None };
        let peer = judge(&*self.verifier, end, intermediates);
        match (peer, &self.proxies) {
            (Peer::Bad, Some(proxies)) => match judge(&**proxies, end, intermediates) {
                Peer::User { user, until } if user.name == FrontProxy::NAME => Peer::Proxy { until },
                _ => Peer::Bad,
            },
            (peer, _) => peer,
        }
    }

    /// The user of a request: the certificate's, else the token's, else anonymous. 401 if credentials were shown and
    /// none was good.
    pub async fn authenticate(&self, peer: &Peer, headers: &HeaderMap, path: &str) -> Result<UserInfo, ApiError> {
        if let Peer::User { user, until } = peer
            && UnixTime::now().as_secs() < *until
        {
            return Ok(user.clone());
        }
        if let Peer::Proxy { until } = peer
            && UnixTime::now().as_secs() < *until
            && let Some(user) = proxied(headers)?
        {
            return Ok(user);
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

/// The user that a proxy names; `None`: it names none.
fn proxied(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).map_err(|_| ApiError::unauthorized());
    let all = |name: &str| headers.get_all(name).iter().map(text).collect::<Result<Vec<_>, _>>();
    let first = |name: &str| Ok::<_, ApiError>(all(name)?.into_iter().next().unwrap_or_default());
    let mut user = UserInfo { name: first(USER)?, uid: first(UID)?, groups: all(GROUP)?, ..UserInfo::default() };
    if user.name.is_empty() {
        return Ok(None);
    }
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            user.extra.entry(percent_decoded(key)).or_default().push(text(value)?);
        }
    }
    if !user.is_anonymous() && !user.in_group(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    Ok(Some(user))
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

/// Whether a path is the image registry's, whose clients know no other credentials than `Basic`.
pub(crate) fn is_registry(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// The token of a request: `Bearer`, or for the image registry the password of `Basic`.
fn token(headers: &HeaderMap, path: &str) -> Option<String> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") && is_registry(path) {
        let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
        return decoded.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

/// CN (the last, if there are several) is the user, O are the groups.
fn certificate_user(der: &CertificateDer<'_>) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = signing::common_name(subject).ok()??;
    let mut groups = signing::organizations(subject).ok()?;
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
struct AnyCertificate {
    verifier: Arc<dyn ClientCertVerifier>,
    /// The authorities whose certificates a client may choose from.
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
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
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
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

    #[tokio::test]
    async fn a_proxy_speaks_for_users_and_nobody_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let fixture = crate::auth::fixture::Fixture::new().await;
        let tokens = Tokens::new(pki.token_key_pem(), fixture.cache.clone()).unwrap();
        let authenticator = Authenticator::new(pki.ca_der(), tokens).unwrap();
        let authenticator = authenticator.with_proxies(pki.front_proxy_der()).unwrap();
        let peer = |identity: &crate::auth::pki::Identity| authenticator.peer(Some(&identity.to_der().unwrap().0));
        let proxy = peer(&pki.front_proxy().unwrap().identity);
        assert!(matches!(proxy, Peer::Proxy { .. }), "{proxy:?}");
        let named = |list: &[(&'static str, &'static str)]| -> HeaderMap {
            list.iter().map(|(k, v)| (http::HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
        };
        let claims = named(&[(USER, "jane"), (GROUP, "dev"), (UID, "7"), ("x-remote-extra-a%2fb", "c")]);
        let user = authenticator.authenticate(&proxy, &claims, "/api").await.unwrap();
        assert_eq!(
            (user.name.as_str(), user.uid.as_str(), user.extra["a/b"].as_slice()),
            ("jane", "7", &["c".to_owned()][..])
        );
        assert_eq!(user.groups, ["dev", AUTHENTICATED]);
        assert_eq!(authenticator.authenticate(&proxy, &HeaderMap::new(), "/api").await.unwrap_err().code, 401);
        // A user's certificate of that name is a user's.
        let imitator = peer(&pki.client_identity(FrontProxy::NAME, None).unwrap());
        let user = authenticator.authenticate(&imitator, &claims, "/api").await.unwrap();
        assert_eq!(user.name, FrontProxy::NAME);
        assert!(authenticator.authenticate(&Peer::None, &claims, "/api").await.unwrap().is_anonymous());
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
