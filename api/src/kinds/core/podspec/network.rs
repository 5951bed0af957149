//! Names and name resolution of a pod: hostname, DNS, host aliases.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::check::required_one_of;
use crate::kinds::core::addresses::validate_ip;
use crate::kinds::tree::{is_true, list, some, text};
use crate::meta::{names, push_all};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
/// Characters of all search domains, with a space between them.
const MAX_SEARCH_TEXT: usize = 2048;
/// Bytes of the name that a kernel gives its machine.
const MAX_HOSTNAME: usize = 64;

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    required_one_of(spec, "dnsPolicy", path, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], errors);
    for field in ["hostname", "subdomain"] {
        let name = text(spec, &format!("/{field}"));
        if !name.is_empty() {
            push_all(errors, &path.child(field), name, names::dns1123_label(name));
        }
    }
    validate_override(spec, path, errors);
    validate_dns(spec, &path.child("dnsConfig"), errors);
    for (index, alias) in list(spec, "/hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        validate_ip(text(alias, "/ip"), &path.child("ip"), errors);
        for (index, name) in list(alias, "/hostnames").iter().filter_map(Value::as_str).enumerate() {
            push_all(errors, &path.child("hostnames").index(index), name, names::dns1123_subdomain(name));
        }
    }
}

/// A name that a pod has whatever else names it.
fn validate_override(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let name = text(spec, "/hostnameOverride");
    if name.is_empty() {
        return;
    }
    let name_path = path.child("hostnameOverride");
    if name.len() > MAX_HOSTNAME {
        errors.too_long(&name_path, MAX_HOSTNAME);
    }
    push_all(errors, &name_path, name, names::dns1123_subdomain(name));
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if is_true(spec, &format!("/{field}")) {
            errors.forbidden(&path.child(field), "may not be true when `hostnameOverride` is set");
        }
    }
}

fn validate_dns(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let nameservers = list(spec, "/dnsConfig/nameservers");
    if text(spec, "/dnsPolicy") == "None" {
        if some(spec, "/dnsConfig").is_none() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if nameservers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&path.child("nameservers"), why);
        }
    }
    if nameservers.len() > MAX_NAMESERVERS {
        let why = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(&path.child("nameservers"), &json!(nameservers), &why);
    }
    for (index, server) in nameservers.iter().enumerate() {
        validate_ip(server.as_str().unwrap_or_default(), &path.child("nameservers").index(index), errors);
    }
    let searches = list(spec, "/dnsConfig/searches");
    if searches.len() > MAX_SEARCHES {
        let why = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(&path.child("searches"), &json!(searches), &why);
    }
    let lengths = searches.iter().filter_map(Value::as_str).map(|search| search.len() + 1);
    if lengths.sum::<usize>() > MAX_SEARCH_TEXT + 1 {
        let why = format!("must not have more than {MAX_SEARCH_TEXT} characters (including spaces) in the search list");
        errors.invalid(&path.child("searches"), &json!(searches), &why);
    }
    for (index, search) in searches.iter().filter_map(Value::as_str).enumerate() {
        let name = if search == "." { continue } else { search.strip_suffix('.').unwrap_or(search) };
        let path = path.child("searches").index(index);
        push_all(errors, &path, name, names::dns1123_subdomain_with_underscore(name));
    }
    for (index, option) in list(spec, "/dnsConfig/options").iter().enumerate() {
        if text(option, "/name").is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    #[test]
    fn a_pod_that_resolves_by_itself_says_with_whom() {
        let spec = json!({"containers": [{"name": "a", "image": "x"}], "dnsPolicy": "None"});
        assert_eq!(
            complaints(&spec),
            ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]
        );
    }

    #[test]
    fn names_are_searched_where_services_are_too() {
        let with = |search: &str| {
            let spec = json!({"containers": [{"name": "a", "image": "x"}], "dnsConfig": {"searches": [search]}});
            complaints(&spec).len()
        };
        for good in ["_sip._tcp.example.com", "a_b.example.", "."] {
            assert_eq!(with(good), 0, "{good}");
        }
        for bad in ["", "a..b", "a_.b", "__a"] {
            assert_eq!(with(bad), 1, "{bad}");
        }
    }

    #[test]
    fn a_host_name_is_a_label_and_an_alias_has_an_address() {
        let spec =
            json!({"containers": [{"name": "a", "image": "x"}], "hostname": "a.b", "hostAliases": [{"ip": "x"}]});
        let all = complaints(&spec);
        assert!(all[0].starts_with("spec.hostname: Invalid value: \"a.b\": must not contain dots"));
        assert_eq!(
            all[1],
            "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        );
    }

    #[test]
    fn an_overriding_name_is_the_only_one() {
        let shape = names::dns1123_subdomain("A_b").join("");
        for (spec, why) in [
            (json!({"hostnameOverride": "A_b"}), format!("hostnameOverride: Invalid value: \"A_b\": {shape}")),
            (
                json!({"hostnameOverride": "a".repeat(65)}),
                "hostnameOverride: Too long: may not be more than 64 bytes".to_owned(),
            ),
            (
                json!({"hostnameOverride": "ab", "setHostnameAsFQDN": true}),
                "setHostnameAsFQDN: Forbidden: may not be true when `hostnameOverride` is set".to_owned(),
            ),
            (
                json!({"hostnameOverride": "ab", "hostNetwork": true}),
                "hostNetwork: Forbidden: may not be true when `hostnameOverride` is set".to_owned(),
            ),
        ] {
            assert_refused(spec, &json!({}), &format!("spec.{why}"));
        }
        let long = vec!["a".repeat(60); 31];
        assert!(
            complaints(&json!({"containers": [{"name": "a", "image": "x"}], "dnsConfig": {"searches": long}}))
                .is_empty()
        );
        let longer = vec![["a"; 40].join("."); 26];
        let spec = json!({"containers": [{"name": "a", "image": "x"}], "dnsConfig": {"searches": longer}});
        assert!(
            complaints(&spec)[0]
                .ends_with("must not have more than 2048 characters (including spaces) in the search list")
        );
    }
}
