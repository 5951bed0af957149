//! Tokens of external issuers: OpenID Connect, as an `AuthenticationConfiguration` says.
//!
//! What must stay true: a token is believed only if a key of the issuer that it names has signed it with an asymmetric
//! algorithm, for one of that issuer's audiences, and it has not expired; which issuer's rules apply follows from `iss` alone.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use self::keys::Keys;
use self::mapping::{Claims, Mappings};
use super::UserInfo;

mod config;
mod keys;
mod mapping;
#[cfg(test)]
pub(crate) mod tests;

pub use self::config::AuthenticationError;

/// What Kubernetes takes; ES512 is not known to the library that verifies.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
];
/// A longer text is no token; it is refused before it is decoded. All headers of a request have this much room.
const LONGEST: usize = 64 * 1024;
/// Seconds by which an issuer's clock may be ahead.
const AHEAD: i64 = 300;

/// Why a token of an issuer is not believed. The client only reads `Unauthorized`.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("a token of {issuer} is not believed: {why}")]
    Refused { issuer: String, why: String },
}

/// What an `AuthenticationConfiguration` says. The default believes nobody else, and lets anonymous requests pass.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    pub issuers: Issuers,
    pub anonymous: Anonymous,
}

/// Where requests without credentials are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    #[default]
    Everywhere,
    Nowhere,
    /// At exactly these paths.
    At(Vec<String>),
}

impl Anonymous {
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Nowhere => false,
            Self::At(paths) => paths.iter().any(|own| own == path),
        }
    }
}

/// Those whose tokens are believed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Issuers(Arc<[Issuer]>);

/// One of them.
#[derive(Debug)]
struct Issuer {
    audiences: Vec<String>,
    keys: Keys,
    mappings: Mappings,
}

/// What is read of a token before it is verified.
#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

impl Issuers {
    fn new(issuers: Vec<Issuer>) -> Self {
        Self(issuers.into())
    }

    /// The user that a token stands for; `None`: it is of no issuer that is known here.
    pub async fn verify(&self, token: &str) -> Option<Result<UserInfo, OidcError>> {
        if self.0.is_empty() || token.len() > LONGEST {
            return None;
        }
        let named = issuer_of(token)?;
        let issuer = self.0.iter().find(|issuer| issuer.keys.issuer() == named)?;
        let verified = issuer.verify(token).await;
        Some(verified.map_err(|why| OidcError::Refused { issuer: named, why }))
    }
}

/// Whom a token says that it is of.
fn issuer_of(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let payload = parts.nth(1)?;
    if parts.count() != 1 {
        return None;
    }
    let claims: Unverified = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    // Google's tokens once had no scheme.
    Some(if claims.iss == "accounts.google.com" { format!("https://{}", claims.iss) } else { claims.iss })
}

impl Issuer {
    async fn verify(&self, token: &str) -> Result<UserInfo, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("tokens signed with {:?} are not taken", header.alg));
        }
        let keys = self.keys.find(header.kid.as_deref()).await?;
        let mut why = "no key fits its algorithm".to_owned();
        for key in keys {
            let Ok(key) = DecodingKey::from_jwk(&key) else { continue };
            match jsonwebtoken::decode::<Claims>(token, &key, &validation(header.alg)) {
                Ok(decoded) => {
                    self.check(&decoded.claims)?;
                    return self.mappings.user(decoded.claims);
                }
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    fn check(&self, claims: &Claims) -> Result<(), String> {
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.audiences.iter().any(|own| audiences.contains(&own.as_str())) {
            return Err(format!("expected audience in {:?} got {audiences:?}", self.audiences));
        }
        let begins = claims.get("nbf").and_then(Value::as_f64).unwrap_or_default();
        let now = Timestamp::now().as_second().saturating_add(AHEAD);
        // Seconds since 1970 are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        if begins > now as f64 {
            return Err("it is not valid yet".to_owned());
        }
        Ok(())
    }
}

/// Signature and expiry; the rest is judged afterwards.
fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = 0;
    validation.validate_aud = false;
    validation.set_required_spec_claims(&["exp"]);
    validation
}
