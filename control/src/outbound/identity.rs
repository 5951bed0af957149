//! In whose name an aggregated server is asked: the headers of an authenticating proxy, as Kubernetes' aggregator sends them.
//!
//! What must stay true: whatever the client sent in such headers is gone; a user that cannot be named exactly is not named at
//! all.

use http::header::{InvalidHeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::auth::UserInfo;

pub const USER: &str = "x-remote-user";
pub const UID: &str = "x-remote-uid";
pub const GROUP: &str = "x-remote-group";
pub const EXTRA: &str = "x-remote-extra-";

/// What a header's name cannot hold, and the escape itself.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Why a user cannot be named.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("a key of the user's extra information is too long")]
    Key(#[from] InvalidHeaderName),
    #[error("the user's name, groups or extra information hold control characters")]
    Value(#[from] InvalidHeaderValue),
}

/// Whether only an authenticating proxy may send this header.
pub(crate) fn is_identity(name: &HeaderName) -> bool {
    matches!(name.as_str(), USER | UID | GROUP) || name.as_str().starts_with(EXTRA)
}

/// Names `user` as the one who asks.
pub(super) fn name(headers: &mut HeaderMap, user: &UserInfo) -> Result<(), IdentityError> {
    let sent: Vec<HeaderName> = headers.keys().filter(|name| is_identity(name)).cloned().collect();
    for name in sent {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes());
    headers.insert(HeaderName::from_static(USER), value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(HeaderName::from_static(UID), value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(HeaderName::from_static(GROUP), value(group)?);
    }
    for (key, values) in &user.extra {
        let key = HeaderName::try_from(format!("{EXTRA}{}", utf8_percent_encode(key, ESCAPED)))?;
        for text in values {
            headers.append(key.clone(), value(text)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_named_and_what_the_client_claimed_is_gone() {
        let mut headers = HeaderMap::new();
        for (name, value) in [(USER, "admin"), (GROUP, "system:masters"), (UID, "0"), ("x-remote-extra-a", "b")] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.insert("x-remote-users", HeaderValue::from_static("stays"));
        let extra = [("example.com/Ä%".to_owned(), vec!["one".to_owned(), "two".to_owned()])].into();
        let user = UserInfo { extra, ..UserInfo::authenticated("jane", &["dev"]) };
        name(&mut headers, &user).unwrap();
        let all = |key: &str| headers.get_all(key).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all(USER), ["jane"]);
        assert_eq!(all(GROUP), ["dev", "system:authenticated"]);
        assert!(all(UID).is_empty() && all("x-remote-extra-a").is_empty());
        assert_eq!(all("x-remote-extra-example.com%2f%c3%84%25"), ["one", "two"]);
        assert_eq!(all("x-remote-users"), ["stays"]);
    }

    #[test]
    fn a_name_with_control_characters_is_not_sent() {
        let user = UserInfo { name: "a\r\nx-remote-group: b".to_owned(), ..UserInfo::default() };
        assert!(name(&mut HeaderMap::new(), &user).is_err());
    }
}
