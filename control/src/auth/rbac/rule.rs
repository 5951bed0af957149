//! Whether one rule of a role allows a request.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::auth::Attributes;

const ANY: &str = "*";

/// Whether the rule allows the request.
pub fn allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    if !has(&rule.verbs, &attributes.verb) {
        return false;
    }
    if !attributes.is_resource() {
        return list(rule.non_resource_urls.as_ref()).iter().any(|url| covers_url(url, &attributes.path));
    }
    has(list(rule.api_groups.as_ref()), &attributes.group)
        && list(rule.resources.as_ref()).iter().any(|resource| names(resource, attributes))
        && named(list(rule.resource_names.as_ref()), &attributes.name)
}

pub(super) fn list(items: Option<&Vec<String>>) -> &[String] {
    items.map_or(&[], Vec::as_slice)
}

/// Whether a list of verbs or groups has a value.
pub(super) fn has(items: &[String], value: &str) -> bool {
    items.iter().any(|item| item == ANY || item == value)
}

/// `/x/*` covers everything that begins with `/x/`.
pub(super) fn covers_url(url: &str, path: &str) -> bool {
    url == ANY || url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// `pods`, `pods/log`, `*/scale` or `*`, which covers subresources too.
fn names(resource: &str, attributes: &Attributes) -> bool {
    if resource == ANY {
        return true;
    }
    let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    subresource == attributes.subresource
        && (plural == attributes.resource || (plural == ANY && !subresource.is_empty()))
}

fn named(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|n| n == name)
}
