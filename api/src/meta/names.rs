//! What a good name is: the checks of apimachinery's `util/validation`, with Kubernetes' texts.
//!
//! Each check returns every complaint about a value, without the value or its path: the caller knows those. The texts
//! are part of the API: clients and tests match on them.

use crate::strategy::NameRule;

/// Bytes of a DNS label, at most.
pub const LABEL_MAX: usize = 63;
/// Bytes of a DNS name, at most.
pub const SUBDOMAIN_MAX: usize = 253;

const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
     must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
     is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const SUBDOMAIN_WITH_UNDERSCORE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
     validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const WILDCARD_SUBDOMAIN: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, \
     which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
     '*.example.com', regex used for validation is \
     '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
     'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_VAR: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Starts and ends with `edge`, and holds only `edge` and `inner` characters.
fn framed(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| edge(*b)) && bytes.last().is_some_and(|b| edge(*b));
    ends && bytes.iter().all(|b| edge(*b) || inner.contains(b))
}

fn label_shape(text: &str) -> bool {
    framed(text, lower_alnum, b"-")
}

fn qualified_shape(text: &str) -> bool {
    framed(text, |b| b.is_ascii_alphanumeric(), b"-_.")
}

/// Complaints about a value as length and shape.
fn check(text: &str, max: usize, good: bool, shape: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > max {
        complaints.push(too_long(max));
    }
    if !good {
        complaints.push(shape.to_owned());
    }
    complaints
}

/// An RFC 1123 label: lower case, at most 63 bytes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let dots = text.split('.').all(label_shape);
    check(text, LABEL_MAX, label_shape(text), if dots { "must not contain dots" } else { DNS1123_LABEL })
}

/// An RFC 1123 subdomain: labels joined by dots, at most 253 bytes.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    check(text, SUBDOMAIN_MAX, text.split('.').all(label_shape), DNS1123_SUBDOMAIN)
}

/// An RFC 1123 subdomain in which `_` may stand, as in the names of services in DNS.
pub fn dns1123_subdomain_with_underscore(text: &str) -> Vec<String> {
    let label = |label: &str| framed(label.strip_prefix('_').unwrap_or(label), lower_alnum, b"-_");
    check(text, SUBDOMAIN_MAX, text.split('.').all(label), SUBDOMAIN_WITH_UNDERSCORE)
}

/// `*.` and an RFC 1123 subdomain, as an Ingress's host may be.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let good = text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(label_shape));
    check(text, SUBDOMAIN_MAX, good, WILDCARD_SUBDOMAIN)
}

/// An address in its canonical text.
pub fn ip_address(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(ip) if ip.to_string() != text => vec![format!("must be in canonical form ({:?})", ip.to_string())],
        Ok(_) => Vec::new(),
    }
}

/// An RFC 1035 label: begins with a letter, at most 63 bytes.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let good = label_shape(text) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    check(text, LABEL_MAX, good, DNS1035_LABEL)
}

/// One segment of a URL path.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%'].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// `name` or `prefix/name`: label keys, annotation keys (in lower case), finalizers, condition types.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut parts = text.split('/');
    let (prefix, name) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => (None, name),
        (Some(prefix), Some(name), None) => (Some(prefix), name),
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED_NAME} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    let mut complaints = Vec::new();
    match prefix {
        Some("") => complaints.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => complaints.extend(dns1123_subdomain(prefix).iter().map(|m| format!("prefix part {m}"))),
        None => {}
    }
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        complaints.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !qualified_shape(name) {
        complaints.push(format!("name part {QUALIFIED_NAME}"));
    }
    complaints
}

/// A label's value: empty, or at most 63 bytes of the usual characters.
pub fn label_value(text: &str) -> Vec<String> {
    check(text, LABEL_MAX, text.is_empty() || qualified_shape(text), LABEL_VALUE)
}

/// A key of a ConfigMap or a Secret.
pub fn config_map_key(text: &str) -> Vec<String> {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let mut complaints = check(text, SUBDOMAIN_MAX, good, CONFIG_KEY);
    complaints.extend(no_parent_reference(text));
    complaints
}

/// A key that names a file must not lead out of its folder.
fn no_parent_reference(text: &str) -> Option<String> {
    match text {
        "." | ".." => Some(format!("must not be '{text}'")),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// An environment variable's name: any printable ASCII but `=`.
pub fn env_var_name(text: &str) -> Vec<String> {
    let good = !text.is_empty() && text.bytes().all(|b| (b == b' ' || b.is_ascii_graphic()) && b != b'=');
    if good { Vec::new() } else { vec![ENV_VAR.to_owned()] }
}

/// An IANA service name, as container and Service ports may carry.
pub fn port_name(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if text.len() > 15 {
        complaints.push(too_long(15));
    }
    if text.is_empty() || !text.bytes().all(|b| lower_alnum(b) || b == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// A port's number.
pub fn port_number(port: i64) -> Option<&'static str> {
    if (1..=65535).contains(&port) { None } else { Some("must be between 1 and 65535, inclusive") }
}

/// Checks a name against a kind's rule. A `generateName` is judged as the beginning of a name: it may end in a dash.
pub fn by_rule(rule: NameRule, name: &str, is_prefix: bool) -> Vec<String> {
    let masked;
    let name = match name.strip_suffix('-') {
        Some(rest) if is_prefix && !rest.is_empty() && rule != NameRule::PathSegment => {
            masked = format!("{rest}a");
            &masked
        }
        _ => name,
    };
    match rule {
        NameRule::DnsSubdomain => dns1123_subdomain(name),
        NameRule::DnsLabel => dns1123_label(name),
        NameRule::Dns1035Label => dns1035_label(name),
        NameRule::PathSegment => path_segment(name),
        NameRule::IpAddress => ip_address(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_lower_case_and_short() {
        assert!(dns1123_label("my-name").is_empty() && dns1123_label("123-abc").is_empty());
        assert_eq!(
            dns1123_label("A"),
            ["a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"]
        );
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(dns1123_label("").len(), 1);
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(dns1123_label("a..b")[0].starts_with("a lowercase RFC 1123 label"));
    }

    #[test]
    fn a_subdomain_is_labels_joined_by_dots() {
        assert!(dns1123_subdomain("a.b-c.3").is_empty());
        for bad in ["a..b", ".a", "a.", "-a", "a_b", "A.b", ""] {
            assert_eq!(dns1123_subdomain(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_wildcard_is_the_first_label() {
        assert!(wildcard_subdomain("*.example.com").is_empty());
        for bad in ["*", "*.", "a.*", "*a.b", "*.A"] {
            assert_eq!(wildcard_subdomain(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn an_address_has_one_text() {
        assert!(ip_address("10.0.0.1").is_empty() && ip_address("2001:db8::1").is_empty());
        assert_eq!(ip_address("2001:DB8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
        assert_eq!(ip_address("x").len(), 1);
    }

    #[test]
    fn a_service_name_begins_with_a_letter() {
        assert!(dns1035_label("abc-123").is_empty());
        assert_eq!(dns1035_label("1abc").len(), 1);
    }

    #[test]
    fn a_qualified_name_may_have_one_prefix() {
        assert!(qualified_name("example.com/My_Name.1").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/").len(), 2);
        assert!(qualified_name("a/b/c").first().is_some_and(|m| m.ends_with("(e.g. 'example.com/MyName')")));
    }

    #[test]
    fn a_prefix_of_a_name_may_end_in_a_dash() {
        assert!(by_rule(NameRule::DnsSubdomain, "web-", true).is_empty());
        assert!(!by_rule(NameRule::DnsSubdomain, "web-", false).is_empty());
        assert!(!by_rule(NameRule::DnsSubdomain, "Web-", true).is_empty());
    }

    #[test]
    fn a_config_key_never_leaves_its_folder() {
        assert!(config_map_key("a.b_C-1").is_empty());
        assert_eq!(config_map_key(".."), ["must not be '..'"]);
        assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
        assert_eq!(config_map_key("a/b").len(), 1);
    }

    #[test]
    fn a_port_name_has_a_letter_and_no_double_hyphen() {
        assert!(port_name("http-8080").is_empty());
        assert_eq!(port_name("8080"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b"), ["must not contain consecutive hyphens"]);
        assert_eq!(port_name("a-name-that-is-long"), ["must be no more than 15 bytes"]);
    }
}
