//! Addresses and protocols, as Services and endpoints judge them.

use std::net::IpAddr;

use serde_json::{Value, json};

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
}
