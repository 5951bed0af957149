//! Bootstrap tokens: `ID.SECRET`, kept in Secrets of `kube-system`, with which a machine that is not yet a node asks for its
//! certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::GroupResource;

use super::{ISSUER, TokenError, Tokens, UserInfo, Verified};
use crate::auth::AUTHENTICATED;

/// The type of their Secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What their Secrets' names begin with, before the id.
pub const PREFIX: &str = "bootstrap-token-";
pub const NAMESPACE: &str = "kube-system";
const GROUP: &str = "system:bootstrappers";

/// The parts of a text that has the form of such a token.
pub(super) fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    (fits(id, 6) && fits(secret, 16)).then_some((id, secret))
}

/// A field of a Secret's data.
fn data(secret: &Value, field: &str) -> Option<String> {
    let encoded = secret.get("data")?.get(field)?.as_str()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

impl Tokens {
    pub(super) fn verify_bootstrap(
        &self,
        id: &str,
        secret: &str,
        audiences: &[String],
    ) -> Result<Verified, TokenError> {
        let name = format!("{PREFIX}{id}");
        let revoked = || TokenError::Revoked { kind: "bootstrap token", name: name.clone() };
        let secrets = GroupResource::new("", "secrets");
        let entry = self.cache.get(&secrets, NAMESPACE, &name).filter(|entry| !entry.meta.deleting);
        let stored: Value = entry.and_then(|e| e.read().ok()).ok_or_else(revoked)?;
        let held = data(&stored, "token-secret").unwrap_or_default();
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(held.as_bytes(), secret.as_bytes()).is_ok();
        let usable = object::text_at(&stored, "type") == TYPE
            && data(&stored, "token-id").as_deref() == Some(id)
            && data(&stored, "usage-bootstrap-authentication").as_deref() == Some("true")
            && !data(&stored, "expiration").is_some_and(|end| has_ended(&end, Timestamp::now()));
        if !same || !usable || !(audiences.is_empty() || audiences.iter().any(|a| a == ISSUER)) {
            return Err(revoked());
        }
        let extra = data(&stored, "auth-extra-groups").unwrap_or_default();
        let extra = extra.split(',').map(str::trim).filter(|group| is_extra(group)).map(str::to_owned);
        let groups = [GROUP.to_owned()].into_iter().chain(extra).chain([AUTHENTICATED.to_owned()]).collect();
        let user = UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() };
        Ok(Verified { user, audiences: vec![ISSUER.to_owned()] })
    }
}

/// `system:bootstrappers:…`, so that a token's author gives no other group away.
fn is_extra(group: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-');
    group
        .strip_prefix("system:bootstrappers:")
        .is_some_and(|rest| rest.bytes().all(allowed) && rest.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric()))
}

/// Whether a token's `expiration` has passed; one that is no time is taken as passed.
pub fn has_ended(expiration: &str, now: Timestamp) -> bool {
    expiration.parse::<Timestamp>().map_or(true, |end| end <= now)
}
