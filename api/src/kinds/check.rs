//! Judgements that kinds of many groups share: enumerations, required texts, references to webhooks' servers.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::tree::{int, list, some, text};
use crate::field::{ErrorList, Path};
use crate::meta::{names, push_all};

/// Judges a text that is one of `supported` or absent.
pub(crate) fn one_of(parent: &Value, field: &str, path: &Path, supported: &[&str], errors: &mut ErrorList) {
    let value = text(parent, &format!("/{field}"));
    if some(parent, &format!("/{field}")).is_some() && !supported.contains(&value) {
        errors.not_supported(&path.child(field), value, supported);
    }
}

/// Judges a text that must be one of `supported`.
pub(crate) fn required_one_of(parent: &Value, field: &str, path: &Path, supported: &[&str], errors: &mut ErrorList) {
    if text(parent, &format!("/{field}")).is_empty() {
        return errors.required(&path.child(field), "");
    }
    one_of(parent, field, path, supported, errors);
}

/// The strings of a list.
pub(crate) fn strings<'a>(parent: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(parent, pointer).iter().map(|v| v.as_str().unwrap_or_default()).collect()
}

/// Reports each string of a list that stood in it before.
pub(crate) fn no_duplicates(values: &[&str], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, value) in values.iter().enumerate() {
        if !seen.insert(value) {
            errors.duplicate(&path.index(index), &json!(value));
        }
    }
}

/// A required subdomain (`name` of another object).
pub(crate) fn subdomain(parent: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    let value = text(parent, &format!("/{field}"));
    if value.is_empty() {
        errors.required(&path.child(field), "");
    } else {
        push_all(errors, &path.child(field), value, names::dns1123_subdomain(value));
    }
}

/// A name of at least three labels, as webhooks carry.
pub(crate) fn fully_qualified(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let complaints = names::dns1123_subdomain(name);
    if !complaints.is_empty() {
        errors.invalid(path, &json!(name), &complaints.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(path, &json!(name), "should be a domain with at least three segments separated by dots");
    }
}

/// `example.com/path`, as controllers and managers are named.
pub(crate) fn domain_prefixed(text: &str, path: &Path, errors: &mut ErrorList) {
    if text.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = text.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        return errors.invalid(path, &json!(text), "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    push_all(errors, path, domain, names::dns1123_subdomain(domain));
    let good = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !rest.chars().all(good) {
        let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.invalid(path, &json!(rest), why);
    }
}

/// The conditions of a status, as `metav1.Condition` wants them.
pub(crate) fn conditions(status: &Value, path: &Path, errors: &mut ErrorList) {
    let all = list(status, "/conditions");
    let mut seen = HashSet::new();
    for (index, condition) in all.iter().enumerate() {
        let path = path.child("conditions").index(index);
        let kind = text(condition, "/type");
        if kind.is_empty() {
            errors.required(&path.child("type"), "must be set");
        } else if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), &json!(kind));
        }
        push_all(errors, &path.child("type"), kind, names::qualified_name(kind));
        if int(condition, "/observedGeneration").is_some_and(|g| g < 0) {
            let value = condition.get("observedGeneration").unwrap_or(&Value::Null);
            errors.invalid(&path.child("observedGeneration"), value, "must be greater than or equal to zero");
        }
        match text(condition, "/status") {
            "" => errors.required(&path.child("status"), "must be set"),
            "False" | "True" | "Unknown" => {}
            other => errors.not_supported(&path.child("status"), other, &["False", "True", "Unknown"]),
        }
        if some(condition, "/lastTransitionTime").is_none() {
            errors.required(&path.child("lastTransitionTime"), "must be set");
        }
        condition_reason(text(condition, "/reason"), &path.child("reason"), errors);
        if text(condition, "/message").len() > 32 * 1024 {
            errors.too_long(&path.child("message"), 32 * 1024);
        }
    }
}

fn condition_reason(reason: &str, path: &Path, errors: &mut ErrorList) {
    if reason.is_empty() {
        return errors.required(path, "must be set");
    }
    if reason.len() > 1024 {
        errors.too_long(path, 1024);
    }
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
    let good = letter(reason.chars().next())
        && reason.chars().all(|c| c.is_ascii_alphanumeric() || "_,:".contains(c))
        && reason.chars().last().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        let why = "a condition reason must start with alphabetic character, optionally followed by a string of \
                   alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. \
                   'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used \
                   for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
        errors.invalid(path, &json!(reason), why);
    }
}

/// The URL of a webhook: HTTPS, a host, nothing that would change what it means.
pub(crate) fn webhook_url(url: &str, path: &Path, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut refuse = |value: &str, why: &str| errors.invalid(path, &json!(value), why);
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        refuse(scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        refuse(host, &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        refuse(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        refuse(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        refuse(query, "query parameters are not permitted in the URL");
    }
}

/// The Service that a webhook or an extension server is reached by.
pub(crate) fn webhook_service(service: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["name", "namespace"] {
        if text(service, &format!("/{field}")).is_empty() {
            errors.required(&path.child(field), &format!("service {field} is required"));
        }
    }
    let port = int(service, "/port").unwrap_or_default();
    if let Some(why) = names::port_number(port) {
        errors.invalid(&path.child("port"), &json!(port), &format!("port is not valid: {why}"));
    }
    url_path(text(service, "/path"), &path.child("path"), errors);
}

fn url_path(url: &str, path: &Path, errors: &mut ErrorList) {
    if matches!(url, "" | "/") {
        return;
    }
    let mut refuse = |why: &str| errors.invalid(path, &json!(url), why);
    if url == "//" {
        return refuse("segment[0] may not be empty");
    }
    if !url.starts_with('/') {
        refuse("must start with a '/'");
    }
    let steps = url.get(1..).unwrap_or_default();
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            refuse(&format!("segment[{index}] may not be empty"));
            continue;
        }
        for complaint in names::dns1123_subdomain(step) {
            refuse(&format!("segment[{index}]: {complaint}"));
        }
    }
}

/// What a check complains about, for the tests of the kinds.
#[cfg(test)]
pub(crate) fn complaints(judge: impl FnOnce(&mut ErrorList)) -> Vec<String> {
    let mut errors = ErrorList::default();
    judge(&mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhooks_url_is_https_and_nothing_more() {
        let judge = |url: &str| complaints(|errors| webhook_url(url, &Path::new("url"), errors)).len();
        assert_eq!(judge("https://a.example:8443/x"), 0);
        for bad in ["http://a.example", "https://", "https://me@a.example", "https://a.example#f", "https://a?q=1"] {
            assert_eq!(judge(bad), 1, "{bad}");
        }
        assert_eq!(judge("a.example"), 2, "neither scheme nor host");
    }

    #[test]
    fn a_services_path_is_made_of_names() {
        let judge = |path: &str| {
            let service = json!({"name": "n", "namespace": "ns", "port": 443, "path": path});
            complaints(|errors| webhook_service(&service, &Path::new("service"), errors))
        };
        assert!(["", "/", "/a", "/a/", "/a/b.c"].iter().all(|p| judge(p).is_empty()));
        assert_eq!(judge("//"), ["service.path: Invalid value: \"//\": segment[0] may not be empty"]);
        assert_eq!(judge("/a//b"), ["service.path: Invalid value: \"/a//b\": segment[1] may not be empty"]);
        assert_eq!(judge("/A").len(), 1);
        let bare = complaints(|errors| webhook_service(&json!({}), &Path::new("service"), errors));
        assert_eq!(bare.len(), 3, "{bare:?}");
    }

    #[test]
    fn a_condition_is_complete() {
        let status = json!({"conditions": [
            {"type": "A", "status": "True", "reason": "Because", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "A", "status": "Maybe", "reason": "-"}]});
        let all = complaints(|errors| conditions(&status, &Path::new("status"), errors));
        let paths: Vec<&str> = all.iter().map(|m| m.split(": ").next().unwrap_or_default()).collect();
        let path = |field: &str| format!("status.conditions[1].{field}");
        assert_eq!(paths, ["type", "status", "lastTransitionTime", "reason"].map(path));
    }
}
