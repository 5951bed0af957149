//! Ranges of addresses as networking kinds write them.

use std::net::Ipv6Addr;

use serde_json::json;

use crate::cel::net::Cidr;
use crate::field::{ErrorList, Path};

const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Whether every address of `inner` is in `outer`, and not the other way round.
pub(super) fn strictly_contains(outer: Cidr, inner: Cidr) -> bool {
    outer.bits != inner.bits && outer.contains(inner)
}

fn parse(text: &str, path: &Path, errors: &mut ErrorList) -> Option<Cidr> {
    let cidr = Cidr::parse(text);
    if cidr.is_none() {
        errors.invalid(path, &json!(text), complaint(text));
    }
    cidr
}

/// What is wrong with a text that is no range: of an odd form, or none at all.
fn complaint(text: &str) -> &'static str {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let plain: Vec<&str> = address.split('.').map(bare).collect();
    let (plain, bits) = (plain.join("."), bare(bits));
    if Cidr::parse(&format!("{plain}/{bits}")).is_some() {
        return "must not have leading 0s in IP or prefix length";
    }
    let mapped = address.parse::<Ipv6Addr>().is_ok_and(|v6| v6.to_ipv4_mapped().is_some());
    if mapped && bits.parse::<u8>().is_ok_and(|bits| bits <= 128) {
        return "must not have an IPv4-mapped IPv6 address";
    }
    NO_RANGE
}

/// A number without the noughts before it.
fn bare(number: &str) -> &str {
    match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0",
        bare => bare,
    }
}

/// Judges a range that must mean one thing only. Fields that older objects filled loosely keep what they have.
pub(in crate::kinds) fn validate_strict(text: &str, path: &Path, errors: &mut ErrorList) -> Option<Cidr> {
    let cidr = parse(text, path, errors)?;
    if cidr.masked() != cidr {
        errors.invalid(path, &json!(text), "must not have bits set beyond the prefix length");
    }
    Some(cidr)
}

/// Judges a range that must be written in its one canonical form: its first address, in the shortest text.
pub(super) fn validate(text: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(cidr) = parse(text, path, errors)
        && cidr.masked().to_string() != text
    {
        let why = format!("must be in canonical form ({:?})", cidr.masked().to_string());
        errors.invalid(path, &json!(text), &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    #[test]
    fn a_range_has_one_text() {
        let judge = |text: &str| complaints(|errors| validate(text, &Path::new("c"), errors));
        assert!(judge("10.0.0.0/8").is_empty() && judge("2001:db8::/64").is_empty());
        assert_eq!(
            judge("10.1.2.3/8"),
            ["c: Invalid value: \"10.1.2.3/8\": must be in canonical form (\"10.0.0.0/8\")"]
        );
        assert_eq!(judge("10.0.0.0"), [format!("c: Invalid value: \"10.0.0.0\": {NO_RANGE}")]);
    }

    #[test]
    fn a_range_contains_longer_ones_of_its_family() {
        let contains = |a: &str, b: &str| strictly_contains(Cidr::parse(a).unwrap(), Cidr::parse(b).unwrap());
        assert!(contains("10.0.0.0/8", "10.1.0.0/16") && contains("::/0", "2001:db8::/32"));
        assert!(!contains("10.0.0.0/8", "10.0.0.0/8") && !contains("10.0.0.0/8", "11.0.0.0/16"));
        assert!(!contains("0.0.0.0/0", "2001:db8::/32"));
    }
    #[test]
    fn a_range_means_one_thing() {
        for (text, why) in [
            ("10.0.0.0/24", ""),
            ("2001:db8::/64", ""),
            ("10.0.0.5/24", "must not have bits set beyond the prefix length"),
            ("010.0.0.0/24", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("::ffff:10.0.0.0/120", "must not have an IPv4-mapped IPv6 address"),
            ("10.0.0.0", NO_RANGE),
            ("10.0.0.0/33", NO_RANGE),
        ] {
            let mut errors = ErrorList::default();
            validate_strict(text, &Path::new("cidr"), &mut errors);
            let wanted: Vec<String> =
                Some(format!("cidr: Invalid value: {text:?}: {why}")).filter(|_| !why.is_empty()).into_iter().collect();
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
        }
    }
}
