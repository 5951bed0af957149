//! Impersonation: acting as somebody else, as `kubectl --as` asks for it. Each part of the other identity is authorized
//! on its own, as the verb `impersonate`.

use http::HeaderMap;
use wherry_api::status::ApiError;

use super::{ANONYMOUS, AUTHENTICATED, Attributes, Authorizer, Decision, UNAUTHENTICATED, UserInfo, accounts};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Whom the headers name to act as, if `user` may. `None`: nobody else.
pub async fn apply(
    user: &UserInfo,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, ApiError> {
    let Some(other) = requested(headers)? else { return Ok(None) };
    for attributes in parts(&other) {
        if let Decision::Deny(reason) = authorizer.authorize(user, &attributes).await {
            return Err(attributes.forbidden(user, &reason));
        }
    }
    Ok(Some(complete(other)))
}

fn requested(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    let text = |value: &http::HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| ApiError::bad_request("an impersonation header is not text"))
    };
    let one = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let mut other = UserInfo { name: one(USER)?, uid: one(UID)?, ..UserInfo::default() };
    for group in headers.get_all(GROUP) {
        other.groups.push(text(group)?);
    }
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_decoded(key);
            other.extra.entry(key).or_default().push(text(value)?);
        }
    }
    if !other.name.is_empty() {
        return Ok(Some(other));
    }
    if other == UserInfo::default() {
        return Ok(None);
    }
    Err(ApiError::internal("uids, groups and extra cannot be impersonated without impersonating a user"))
}

/// Extra keys that are no header names are percent-encoded.
pub(super) fn percent_decoded(key: &str) -> String {
    let pair = format!("{}=", key.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map_or_else(|| key.to_owned(), |(key, _)| key.into_owned())
}

fn parts(other: &UserInfo) -> Vec<Attributes> {
    let part = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes {
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    };
    let mut parts = vec![match accounts::parts(&other.name) {
        Some((namespace, name)) => part("", "serviceaccounts", "", namespace, name),
        None => part("", "users", "", "", &other.name),
    }];
    parts.extend(other.groups.iter().map(|group| part("", "groups", "", "", group)));
    if !other.uid.is_empty() {
        parts.push(part("authentication.k8s.io", "uids", "", "", &other.uid));
    }
    for (key, values) in &other.extra {
        parts.extend(values.iter().map(|value| part("authentication.k8s.io", "userextras", key, "", value)));
    }
    parts
}

/// Adds the groups that the other user has by itself.
fn complete(mut other: UserInfo) -> UserInfo {
    if other.groups.is_empty()
        && let Some((namespace, _)) = accounts::parts(&other.name)
    {
        other.groups = accounts::groups(namespace).into();
    }
    let status = if other.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !other.in_group(status) {
        other.groups.push(status.to_owned());
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AllowAll;

    #[derive(Debug)]
    struct DenyAll;

    #[async_trait::async_trait]
    impl Authorizer for DenyAll {
        async fn authorize(&self, _: &UserInfo, _: &Attributes) -> Decision {
            Decision::Deny(String::new())
        }
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn a_permitted_impersonation_is_the_other_user() {
        let wanted = headers(&[("impersonate-user", "jane"), ("impersonate-extra-a%2fb", "c")]);
        let user = apply(&UserInfo::admin(), &wanted, &AllowAll).await.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("jane", vec![AUTHENTICATED.to_owned()]));
        assert_eq!(user.extra["a/b"], ["c"]);
    }

    #[tokio::test]
    async fn a_forbidden_impersonation_says_what_was_asked() {
        let error = apply(&UserInfo::node("n"), &headers(&[("impersonate-user", "jane")]), &DenyAll).await.unwrap_err();
        assert_eq!(
            error.message,
            r#"users "jane" is forbidden: User "system:node:n" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
    }

    #[tokio::test]
    async fn groups_alone_cannot_be_impersonated() {
        let wanted = headers(&[("impersonate-group", "g")]);
        assert_eq!(apply(&UserInfo::admin(), &wanted, &AllowAll).await.unwrap_err().code, 500);
        assert_eq!(apply(&UserInfo::admin(), &headers(&[]), &DenyAll).await.unwrap(), None);
    }
}
