//! What a token of this server says.

use jsonwebtoken::errors::ErrorKind;
use serde::{Deserialize, Serialize};

use super::{ISSUER, Reference, TokenError};

/// What the claims are valid before their issue, for verifiers whose clock is behind. Also how long an expired one passes.
const LEEWAY_SECONDS: i64 = 10;

/// The claims, as Kubernetes writes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) aud: Audience,
    pub(super) exp: i64,
    pub(super) iat: i64,
    pub(super) iss: String,
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) bound: Bound,
    pub(super) nbf: i64,
    pub(super) sub: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    Many(Vec<String>),
    One(String),
}

impl Claims {
    /// Whether a token of this server is meant for one of the audiences, at a time in seconds of Unix.
    pub(super) fn check(&self, audiences: &[String], now: i64) -> Result<(), TokenError> {
        let wrong = |kind: ErrorKind| Err(TokenError::Invalid(kind.into()));
        if self.iss != ISSUER {
            return wrong(ErrorKind::InvalidIssuer);
        }
        if self.exp.saturating_add(LEEWAY_SECONDS) < now {
            return wrong(ErrorKind::ExpiredSignature);
        }
        if self.nbf.saturating_sub(LEEWAY_SECONDS) > now {
            return wrong(ErrorKind::ImmatureSignature);
        }
        if !self.aud.list().iter().any(|audience| audiences.contains(audience)) {
            return wrong(ErrorKind::InvalidAudience);
        }
        Ok(())
    }
}

impl Audience {
    pub(super) fn list(&self) -> &[String] {
        match self {
            Self::Many(list) => list,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Bound {
    pub(super) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    pub(super) serviceaccount: Reference,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let reference = || Reference { name: "robot".into(), uid: "robot-uid".into() };
        let bound = Bound { namespace: "web".into(), node: None, pod: None, secret: None, serviceaccount: reference() };
        let aud = Audience::Many(vec!["vault".into(), ISSUER.into()]);
        let (sub, jti) = ("system:serviceaccount:web:robot".into(), "id".into());
        Claims { aud, exp: 2000, iat: 1000, iss: ISSUER.into(), jti, bound, nbf: 1000, sub }
    }

    fn refusal(claims: &Claims, audience: &str, now: i64) -> Option<ErrorKind> {
        match claims.check(&[audience.to_owned()], now) {
            Ok(()) => None,
            Err(TokenError::Invalid(error)) => Some(error.into_kind()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_token_is_good_from_its_issue_to_its_expiry() {
        for (now, good) in [(989, false), (990, true), (1500, true), (2010, true), (2011, false)] {
            assert_eq!(refusal(&claims(), ISSUER, now).is_none(), good, "{now}");
        }
        let ever = Claims { exp: i64::MAX, nbf: i64::MIN, ..claims() };
        assert!(refusal(&ever, ISSUER, 0).is_none());
    }

    #[test]
    fn a_token_is_for_its_audiences_and_by_its_issuer() {
        assert!(refusal(&claims(), "vault", 1500).is_none());
        assert!(matches!(refusal(&claims(), "other", 1500), Some(ErrorKind::InvalidAudience)));
        let other = Claims { iss: "https://elsewhere".into(), ..claims() };
        assert!(matches!(refusal(&other, ISSUER, 1500), Some(ErrorKind::InvalidIssuer)));
    }
}
