//! Addresses and protocols, as Services and endpoints judge them.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::cel::net::Cidr;
use crate::field::{ErrorList, Path};
use crate::kinds::tree::text;

pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// `host:port`, an IPv6 host in brackets.
pub(crate) fn join_host_port(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Judges that a text is one address, in a form that everybody reads alike.
pub(crate) fn validate_ip(address: &str, path: &Path, errors: &mut ErrorList) -> Option<IpAddr> {
    let mut refuse = |why: &str| errors.invalid(path, &json!(address), why);
    match address.parse() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            refuse("must not be an IPv4-mapped IPv6 address");
            None
        }
        Ok(ip) => Some(ip),
        Err(_) if without_noughts(address).parse::<IpAddr>().is_ok() => {
            refuse("must not have leading 0s");
            None
        }
        Err(_) => {
            refuse("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
            None
        }
    }
}

/// `10.0.0.7` of `010.000.000.007`, which some read as octal numbers and others do not.
fn without_noughts(address: &str) -> String {
    let bare = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        bare => bare.to_owned(),
    };
    address.split('.').map(bare).collect::<Vec<_>>().join(".")
}

/// An address that something outside this machine could mean: well-formed, not unspecified, loopback or link-local.
///
/// Addresses of pods in the local network mode are loopback addresses (127.0.0.0/8 without 127.0.0.0/16), so those are good.
pub(crate) fn validate(address: &str, path: &Path, errors: &mut ErrorList) {
    let Some(ip) = validate_ip(address, path, errors) else { return };
    let mut refuse = |why: &str| errors.invalid(path, &json!(address), why);
    let (link_local, reserved_loopback) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_loopback() && v4.octets().get(1) == Some(&0)),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_loopback()),
    };
    if ip.is_unspecified() {
        refuse(&format!("may not be unspecified ({address})"));
    }
    if reserved_loopback {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
}

/// The warning about an address of IPv6 that is not in its one canonical form.
pub(crate) fn warn_of_ip(address: &str, path: &Path) -> Option<String> {
    let canonical = canonical(address.parse().ok()?)?;
    (canonical != address)
        .then(|| format!("{path}: IPv6 address {address:?} should be in RFC 5952 canonical format ({canonical:?})"))
}

/// The warning about a range of IPv6 that is not in its one canonical form.
pub(crate) fn warn_of_range(range: &str, path: &Path) -> Option<String> {
    let cidr = Cidr::parse(range)?;
    let canonical = format!("{}/{}", canonical(cidr.address)?, cidr.bits);
    (canonical != range)
        .then(|| format!("{path}: IPv6 CIDR value {range:?} should be in RFC 5952 canonical format ({canonical:?})"))
}

/// Of an address that has other forms, and is not one of IPv4 in disguise, which is refused.
fn canonical(address: IpAddr) -> Option<String> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => Some(v6.to_string()),
        _ => None,
    }
}

/// The warnings about each address of a list of texts.
pub(crate) fn warn_of_ips(all: &[Value], path: &Path) -> Vec<String> {
    let texts = all.iter().filter_map(Value::as_str).enumerate();
    texts.filter_map(|(index, ip)| warn_of_ip(ip, &path.index(index))).collect()
}

/// `protocol` of a port: required, and one of three.
pub(crate) fn validate_protocol(port: &Value, path: &Path, errors: &mut ErrorList) {
    let (protocol, path) = (text(port, "/protocol"), path.child("protocol"));
    if protocol.is_empty() {
        errors.required(&path, "");
    } else if !PROTOCOLS.contains(&protocol) {
        errors.not_supported(&path, protocol, PROTOCOLS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_that_others_reach() {
        for (address, good) in [
            ("10.1.2.3", true),
            ("127.64.0.9", true),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("0.0.0.0", false),
            ("x", false),
            ("2001:db8::1", true),
            ("::1", false),
        ] {
            let mut errors = ErrorList::default();
            validate(address, &Path::new("ip"), &mut errors);
            assert_eq!(errors.is_empty(), good, "{address}");
        }
    }
    #[test]
    fn an_address_is_written_in_a_form_that_all_read_alike() {
        for (address, why) in [
            ("10.0.0.7", ""),
            ("2001:DB8:0::1", ""),
            ("010.0.0.7", "must not have leading 0s"),
            ("10.00.0.7", "must not have leading 0s"),
            ("::ffff:10.0.0.7", "must not be an IPv4-mapped IPv6 address"),
            ("10.0.0", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ] {
            let mut errors = ErrorList::default();
            let ip = validate_ip(address, &Path::new("ip"), &mut errors);
            let wanted: Vec<String> = Some(format!("ip: Invalid value: {address:?}: {why}"))
                .filter(|_| !why.is_empty())
                .into_iter()
                .collect();
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
            assert_eq!(ip.is_some(), why.is_empty());
        }
    }

    #[test]
    fn what_could_be_written_shorter_is_warned_of() {
        let path = Path::new("a");
        let say = |what: &str, given: &str, short: &str| {
            Some(format!("a: IPv6 {what} {given:?} should be in RFC 5952 canonical format ({short:?})"))
        };
        for (given, short) in [("2001:db8:0:0::2", "2001:db8::2"), ("FD00::1", "fd00::1")] {
            assert_eq!(warn_of_ip(given, &path), say("address", given, short));
        }
        assert_eq!(warn_of_range("2001:db8:0::/64", &path), say("CIDR value", "2001:db8:0::/64", "2001:db8::/64"));
        for fine in ["10.0.0.1", "2001:db8::2", "::ffff:10.0.0.1", "None", ""] {
            assert_eq!(warn_of_ip(fine, &path), None);
        }
        for fine in ["10.0.0.0/8", "2001:db8::/64", "x"] {
            assert_eq!(warn_of_range(fine, &path), None);
        }
    }

    #[test]
    fn every_kind_that_holds_addresses_warns_of_their_form() {
        let long = "2001:db8:0::1";
        let block = json!({"ipBlock": {"cidr": "2001:db8:0::/48", "except": ["2001:db8:0:1::/64"]}});
        for (kind, object, paths) in [
            (
                "Service",
                json!({"spec": {"clusterIPs": [long], "externalIPs": [long], "loadBalancerIP": long,
                    "loadBalancerSourceRanges": ["2001:db8:0::/48"]}}),
                &[
                    "spec.clusterIPs[0]",
                    "spec.externalIPs[0]",
                    "spec.loadBalancerIP",
                    "spec.loadBalancerSourceRanges[0]",
                ][..],
            ),
            (
                "Endpoints",
                json!({"subsets": [{"addresses": [{"ip": long}], "notReadyAddresses": [{"ip": long}]}]}),
                &["subsets[0].addresses[0].ip", "subsets[0].notReadyAddresses[0].ip"],
            ),
            (
                "Endpoints",
                json!({"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}},
                    "subsets": [{"addresses": [{"ip": long}]}]}),
                &[],
            ),
            ("EndpointSlice", json!({"endpoints": [{"addresses": [long]}]}), &["endpoints[0].addresses[0]"]),
            (
                "NetworkPolicy",
                json!({"spec": {"ingress": [{"from": [block]}], "egress": [{"to": [block]}]}}),
                &["spec.ingress[0].from[0].ipBlock.cidr", "spec.egress[0].to[0].ipBlock.cidr"],
            ),
            ("Node", json!({"spec": {"podCIDRs": ["10.0.0.0/24", "2001:db8:0::/64"]}}), &["spec.podCIDRs[1]"]),
            (
                "Pod",
                json!({"spec": {"dnsConfig": {"nameservers": [long]}, "hostAliases": [{"ip": long}]}}),
                &["spec.dnsConfig.nameservers[0]", "spec.hostAliases[0].ip"],
            ),
        ] {
            let strategy = crate::kinds::all().into_iter().find(|known| known.kind == kind).unwrap().strategy;
            let mut said: Vec<String> =
                strategy.warnings(&object).into_iter().filter(|warning| warning.contains("RFC 5952")).collect();
            let mut wanted = paths.to_vec();
            said.sort();
            wanted.sort_unstable();
            let paths: Vec<&str> = said.iter().filter_map(|warning| warning.split(": ").next()).collect();
            assert_eq!(paths, wanted, "{kind}");
        }
    }
}
