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

/// An address that something outside this machine could mean: well-formed, not unspecified, loopback or link-local.
///
/// Addresses of pods in the local network mode are loopback addresses (127.0.0.0/8 without 127.0.0.0/16), so those are good.
pub(crate) fn validate(address: &str, path: &Path, errors: &mut ErrorList) {
    let mut refuse = |why: &str| errors.invalid(path, &json!(address), why);
    let Ok(ip) = address.parse::<IpAddr>() else {
        return refuse("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    };
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
}
