//! Tokens of Secrets of type `kubernetes.io/service-account-token`: they do not expire, and are good as long as their Secret
//! is there and holds them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;

use super::{ISSUER, Reference, TokenError, Tokens, UserInfo, Verified, accounts};

/// Who issues them, in Kubernetes' words.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// The claims, as Kubernetes writes them.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

/// Whether a token says that it is one of these. Nothing of it is believed yet.
pub(super) fn is_one(token: &str) -> bool {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let body = token.split('.').nth(1).and_then(|body| URL_SAFE_NO_PAD.decode(body).ok());
    let issuer = body.and_then(|body| serde_json::from_slice::<Issuer>(&body).ok());
    issuer.is_some_and(|issuer| issuer.iss == LEGACY_ISSUER)
}

impl Tokens {
    /// The token that a Secret of the service account is to hold.
    pub fn issue_legacy(&self, namespace: &str, account: &Reference, secret: &str) -> Result<String, TokenError> {
        self.sign(&Claims {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.name.clone(),
            uid: account.uid.clone(),
            sub: accounts::user_name(namespace, &account.name),
        })
    }

    pub(super) fn verify_legacy(&self, token: &str, audiences: &[String]) -> Result<Verified, TokenError> {
        let claims: Claims = self.read(token)?;
        if claims.iss != LEGACY_ISSUER || claims.sub != accounts::user_name(&claims.namespace, &claims.account) {
            return Err(TokenError::Malformed);
        }
        // They are for the API server, whose audience is its issuer's name.
        if !audiences.is_empty() && !audiences.iter().any(|audience| audience == ISSUER) {
            return Err(TokenError::Malformed);
        }
        let account = Reference { name: claims.account, uid: claims.uid };
        self.exists("serviceaccount", "serviceaccounts", &claims.namespace, &account)?;
        if !self.is_held(token, &claims.namespace, &claims.secret) {
            return Err(TokenError::Revoked { kind: "secret", name: claims.secret });
        }
        let user = accounts::user(&claims.namespace, &account.name);
        let user = UserInfo { uid: account.uid, ..user };
        Ok(Verified { user, audiences: vec![ISSUER.to_owned()] })
    }

    /// Whether the Secret still holds this very token.
    fn is_held(&self, token: &str, namespace: &str, secret: &str) -> bool {
        let secrets = GroupResource::new("", "secrets");
        let Some(entry) = self.cache.get(&secrets, namespace, secret).filter(|entry| !entry.meta.deleting) else {
            return false;
        };
        let held = entry.read::<Value>().map(|secret| object::text_at(&secret, "data.token"));
        held.ok().and_then(|held| STANDARD.decode(held).ok()).is_some_and(|held| held == token.as_bytes())
    }
}
