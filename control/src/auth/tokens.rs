//! Service-account tokens: signed, bound to an audience and to objects, and expiring.
//!
//! The claims are those of Kubernetes' projected tokens. A token is good only while the service account it names, and
//! the pod it is bound to, exist with the uids it was issued for: deleting either revokes it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;

use self::claims::{Audience, Bound, Claims};
use self::proven::Proven;
use super::oidc::{Issuers, OidcError};
use super::{UserInfo, accounts};
use crate::cache::{Cache, Entry};
use crate::uuid;

pub mod bootstrap;
mod claims;
mod legacy;
mod proven;

/// Who issues tokens, and the audience of those that the API server accepts.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The shortest life that can be asked for, in seconds, as Kubernetes has it.
pub const MIN_SECONDS: i64 = 600;
/// The longest; longer ones are shortened to it.
pub const MAX_SECONDS: i64 = 365 * 24 * 3600;
/// A token outlives the deletion of what it is bound to by this, if finalizers hold that.
const AFTER_DELETION: SignedDuration = SignedDuration::from_secs(60);
/// A longer text is no token of ours; it is refused before it is decoded.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token cannot be issued or is not accepted. The client only reads `Unauthorized`.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the signing key is unusable")]
    Key(#[source] jsonwebtoken::errors::Error),
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
    #[error("the expiry is out of range")]
    Expiry(#[from] jiff::Error),
    #[error("the token is not valid")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    #[error("the token is not one of this server's")]
    Malformed,
    #[error(transparent)]
    Issuer(#[from] OidcError),
    #[error("the token's {kind} {name:?} no longer exists, or is another one of that name")]
    Revoked { kind: &'static str, name: String },
}

/// An object by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// What to issue a token for. The caller has checked that the objects exist.
#[derive(Clone, Debug, Default)]
pub struct TokenSpec {
    pub namespace: String,
    pub service_account: Reference,
    /// The pod that the token is bound to, and the node it runs on.
    pub pod: Option<Reference>,
    pub node: Option<Reference>,
    pub secret: Option<Reference>,
    /// Empty: the API server itself.
    pub audiences: Vec<String>,
    /// Seconds; brought into [`MIN_SECONDS`]..=[`MAX_SECONDS`].
    pub seconds: i64,
}

/// A signed token.
#[derive(Clone)]
pub struct Issued {
    pub token: String,
    pub expires: Timestamp,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub user: UserInfo,
    /// Those of the asked audiences that the token has.
    pub audiences: Vec<String>,
}

/// Issues and verifies tokens.
pub struct Tokens {
    signing: EncodingKey,
    /// The key that signs, then older ones that are still believed. As many as there are files of them.
    keys: Vec<VerifyKey>,
    /// What these have signed, as far as it was seen.
    proven: Proven,
    cache: Cache,
    /// Who else is believed.
    issuers: Issuers,
}

/// A key whose tokens are believed.
struct VerifyKey {
    id: String,
    verifying: DecodingKey,
    jwk: Jwk,
}

impl VerifyKey {
    fn of(signing: &EncodingKey) -> Result<Self, TokenError> {
        let mut jwk = Jwk::from_encoding_key(signing, Algorithm::ES256).map_err(TokenError::Key)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(TokenError::Key)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let verifying = DecodingKey::from_jwk(&jwk).map_err(TokenError::Key)?;
        Ok(Self { id, verifying, jwk })
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| &key.id).collect();
        f.debug_struct("Tokens").field("keys", &ids).finish_non_exhaustive()
    }
}

impl Tokens {
    /// With an ECDSA P-256 key in PKCS#8 PEM; `cache` is asked whether a token's objects still exist.
    pub fn new(key_pem: &str, cache: Cache) -> Result<Arc<Self>, TokenError> {
        Self::believing(key_pem, &[], Issuers::default(), cache)
    }

    /// The same, believing also what older keys, and other issuers, have signed.
    pub fn believing(key_pem: &str, older: &[String], issuers: Issuers, cache: Cache) -> Result<Arc<Self>, TokenError> {
        let read = |pem: &str| EncodingKey::from_ec_pem(pem.as_bytes()).map_err(TokenError::Key);
        let signing = read(key_pem)?;
        let mut keys = vec![VerifyKey::of(&signing)?];
        for pem in older {
            keys.push(VerifyKey::of(&read(pem)?)?);
        }
        Ok(Arc::new(Self { signing, keys, proven: Proven::default(), cache, issuers }))
    }

    /// The public keys, as `/openid/v1/jwks` serves them.
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: self.keys.iter().map(|key| key.jwk.clone()).collect() }
    }

    /// Signs a token.
    pub fn issue(&self, spec: TokenSpec) -> Result<Issued, TokenError> {
        let now = Timestamp::now();
        let expires = now.checked_add(SignedDuration::from_secs(spec.seconds.clamp(MIN_SECONDS, MAX_SECONDS)))?;
        let audiences = if spec.audiences.is_empty() { vec![ISSUER.to_owned()] } else { spec.audiences };
        let claims = Claims {
            aud: Audience::Many(audiences),
            exp: expires.as_second(),
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: uuid::random(),
            sub: accounts::user_name(&spec.namespace, &spec.service_account.name),
            bound: Bound {
                namespace: spec.namespace,
                node: spec.node,
                pod: spec.pod,
                secret: spec.secret,
                serviceaccount: spec.service_account,
            },
            nbf: now.as_second(),
        };
        let token = self.sign(&claims)?;
        Ok(Issued { token, expires: Timestamp::from_second(expires.as_second())? })
    }

    fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let kid = self.keys.first().map(|key| key.id.clone());
        let header = Header { typ: None, kid, ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signing).map_err(TokenError::Sign)
    }

    /// The claims of a token that one of the keys has signed. What they say is not judged.
    fn read<T: DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        self.proven.check(token, || self.prove(token))?;
        insecure_decode_claims(token).map_err(TokenError::Invalid)
    }

    /// Whether one of the keys has signed a token.
    fn prove(&self, token: &str) -> Result<(), TokenError> {
        let mut signature_only = Validation::new(Algorithm::ES256);
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        signature_only.required_spec_claims.clear();
        let header = jsonwebtoken::decode_header(token).map_err(TokenError::Invalid)?;
        let mut error = TokenError::Malformed;
        for key in self.keys.iter().filter(|key| header.kid.as_ref().is_none_or(|kid| *kid == key.id)) {
            match jsonwebtoken::decode::<IgnoredAny>(token, &key.verifying, &signature_only) {
                Ok(_) => return Ok(()),
                Err(reason) => error = TokenError::Invalid(reason),
            }
        }
        Err(error)
    }

    /// Who the token stands for, whoever of those that are believed has issued it. `audiences` empty: the API server's own.
    pub async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Verified, TokenError> {
        let Some(verified) = self.issuers.verify(token).await else { return self.verify(token, audiences) };
        let user = verified?;
        // What an issuer's own audiences are is its configuration's affair: its users are this server's.
        if audiences.is_empty() || audiences.iter().any(|audience| audience == ISSUER) {
            return Ok(Verified { user, audiences: vec![ISSUER.to_owned()] });
        }
        Err(TokenError::Malformed)
    }

    /// Who a token of this server stands for.
    pub fn verify(&self, token: &str, audiences: &[String]) -> Result<Verified, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        if let Some((id, secret)) = bootstrap::parts(token) {
            return self.verify_bootstrap(id, secret, audiences);
        }
        if legacy::is_one(token) {
            return self.verify_legacy(token, audiences);
        }
        let claims: Claims = self.read(token)?;
        let own = [ISSUER.to_owned()];
        let asked = if audiences.is_empty() { &own } else { audiences };
        claims.check(asked, Timestamp::now().as_second())?;
        if claims.sub != accounts::user_name(&claims.bound.namespace, &claims.bound.serviceaccount.name) {
            return Err(TokenError::Malformed);
        }
        self.check_objects(&claims.bound)?;
        let audiences = asked.iter().filter(|a| claims.aud.list().contains(a)).cloned().collect();
        Ok(Verified { user: user(&claims), audiences })
    }

    fn check_objects(&self, bound: &Bound) -> Result<(), TokenError> {
        self.exists("serviceaccount", "serviceaccounts", &bound.namespace, &bound.serviceaccount)?;
        if let Some(pod) = &bound.pod {
            self.exists("pod", "pods", &bound.namespace, pod)?;
        }
        if let Some(secret) = &bound.secret {
            self.exists("secret", "secrets", &bound.namespace, secret)?;
        }
        match (&bound.node, &bound.pod) {
            // A pod's token outlives a node that comes back with a new uid, as in Kubernetes.
            (Some(node), None) => self.exists("node", "nodes", "", node),
            _ => Ok(()),
        }
    }

    fn exists(
        &self,
        kind: &'static str,
        resource: &'static str,
        namespace: &str,
        object: &Reference,
    ) -> Result<(), TokenError> {
        let resource = GroupResource::new("", resource);
        match self.cache.get(&resource, namespace, &object.name) {
            Some(entry) if *entry.meta.uid == *object.uid && !has_ended(&entry) => Ok(()),
            _ => Err(TokenError::Revoked { kind, name: object.name.clone() }),
        }
    }
}

/// Whether an object was deleted a while ago, and only its finalizers keep it.
fn has_ended(entry: &Entry) -> bool {
    let deleted = || {
        let object: Value = entry.read().ok()?;
        object::text_at(&object, "metadata.deletionTimestamp").parse::<Timestamp>().ok()
    };
    entry.meta.deleting && deleted().is_some_and(|at| at.duration_until(Timestamp::now()) > AFTER_DELETION)
}

fn user(claims: &Claims) -> UserInfo {
    let bound = &claims.bound;
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    add("credential-id", &format!("JTI={}", claims.jti));
    for (kind, object) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(object) = object {
            add(&format!("{kind}-name"), &object.name);
            add(&format!("{kind}-uid"), &object.uid);
        }
    }
    let account = &bound.serviceaccount;
    UserInfo { uid: account.uid.clone(), extra, ..accounts::user(&bound.namespace, &account.name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AUTHENTICATED;
    use crate::auth::fixture::Fixture;
    use crate::auth::pki::Pki;

    async fn fixture() -> (Fixture, Arc<Tokens>) {
        let fixture = Fixture::new().await;
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path()).unwrap();
        let tokens = Tokens::new(pki.token_key_pem(), fixture.cache.clone()).unwrap();
        fixture.put("ServiceAccount", "web", "robot", serde_json::json!({})).await;
        fixture.put("Pod", "web", "p", serde_json::json!({"nodeName": "n1"})).await;
        (fixture, tokens)
    }

    fn reference(name: &str) -> Reference {
        Reference { name: name.to_owned(), uid: format!("{name}-uid") }
    }

    fn spec() -> TokenSpec {
        TokenSpec {
            namespace: "web".to_owned(),
            service_account: reference("robot"),
            pod: Some(reference("p")),
            seconds: 3600,
            ..TokenSpec::default()
        }
    }

    #[tokio::test]
    async fn a_token_stands_for_its_service_account() {
        let (_fixture, tokens) = fixture().await;
        let issued = tokens.issue(spec()).unwrap();
        let user = tokens.verify(&issued.token, &[]).unwrap().user;
        assert_eq!(user.name, "system:serviceaccount:web:robot");
        assert_eq!(user.uid, "robot-uid");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:web", AUTHENTICATED]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    }

    #[tokio::test]
    async fn deleting_the_pod_or_the_account_or_making_another_of_its_name_revokes_a_token() {
        let (fixture, tokens) = fixture().await;
        let token = tokens.issue(spec()).unwrap().token;
        let unbound = tokens.issue(TokenSpec { pod: None, ..spec() }).unwrap().token;
        fixture.delete("Pod", "web", "p").await;
        assert!(matches!(tokens.verify(&token, &[]), Err(TokenError::Revoked { kind: "pod", .. })));
        assert!(tokens.verify(&unbound, &[]).is_ok());
        fixture.delete("ServiceAccount", "web", "robot").await;
        assert!(matches!(tokens.verify(&unbound, &[]), Err(TokenError::Revoked { kind: "serviceaccount", .. })));
        let other = TokenSpec { service_account: Reference { name: "robot".into(), uid: "old".into() }, ..spec() };
        assert!(tokens.verify(&tokens.issue(other).unwrap().token, &[]).is_err());
    }

    #[tokio::test]
    async fn finalizers_keep_an_object_and_not_its_tokens() {
        let (fixture, tokens) = fixture().await;
        let token = tokens.issue(spec()).unwrap().token;
        let deleted = |ago: i64| {
            let at = Timestamp::now() - SignedDuration::from_secs(ago);
            serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "web", "name": "p", "uid": "p-uid",
                "finalizers": ["a.b/c"], "deletionTimestamp": format!("{at:.0}")}})
        };
        fixture.put_object(&deleted(10)).await;
        assert!(tokens.verify(&token, &[]).is_ok());
        fixture.put_object(&deleted(70)).await;
        assert!(matches!(tokens.verify(&token, &[]), Err(TokenError::Revoked { kind: "pod", .. })));
    }

    #[tokio::test]
    async fn a_token_that_was_seen_before_is_judged_again() {
        let (fixture, tokens) = fixture().await;
        let token = tokens.issue(spec()).unwrap().token;
        assert!(tokens.verify(&token, &[]).is_ok());
        assert!(tokens.verify(&token, &["vault".to_owned()]).is_err());
        assert!(tokens.verify(&token, &[]).is_ok());
        fixture.delete("Pod", "web", "p").await;
        assert!(matches!(tokens.verify(&token, &[]), Err(TokenError::Revoked { kind: "pod", .. })));
    }

    #[tokio::test]
    async fn a_token_for_another_audience_is_not_for_the_api_server() {
        let (_fixture, tokens) = fixture().await;
        let token = tokens.issue(TokenSpec { audiences: vec!["vault".to_owned()], ..spec() }).unwrap().token;
        assert!(tokens.verify(&token, &[]).is_err());
        let asked = ["vault".to_owned(), "other".to_owned()];
        assert_eq!(tokens.verify(&token, &asked).unwrap().audiences, ["vault"]);
    }

    #[tokio::test]
    async fn a_changed_token_or_one_of_another_key_is_refused() {
        let (fixture, tokens) = fixture().await;
        let token = tokens.issue(spec()).unwrap().token;
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        for bad in [
            "",
            "a.b.c",
            &format!("{head}.{}", signature.chars().rev().collect::<String>()),
            &format!("{header}.{signature}.{signature}"),
            &"x".repeat(MAX_TOKEN_BYTES + 1),
        ] {
            assert!(tokens.verify(bad, &[]).is_err(), "{bad}");
        }
        let dir = tempfile::tempdir().unwrap();
        let other = Pki::open(dir.path()).unwrap();
        let other = Tokens::new(other.token_key_pem(), fixture.cache.clone()).unwrap();
        assert!(tokens.verify(&other.issue(spec()).unwrap().token, &[]).is_err());
    }

    #[tokio::test]
    async fn the_life_of_a_token_is_bounded() {
        let (_fixture, tokens) = fixture().await;
        for (asked, given) in [(1, MIN_SECONDS), (7200, 7200), (i64::MAX, MAX_SECONDS)] {
            let issued = tokens.issue(TokenSpec { seconds: asked, ..spec() }).unwrap();
            let life = issued.expires.as_second() - Timestamp::now().as_second();
            assert!((given - 5..=given).contains(&life), "{asked}: {life}");
        }
    }
}
