//! Ranges of addresses as networking kinds write them.

use serde_json::json;

use crate::cel::net::Cidr;
use crate::field::{ErrorList, Path};

const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Whether every address of `inner` is in `outer`, and not the other way round.
pub(super) fn strictly_contains(outer: Cidr, inner: Cidr) -> bool {
    outer.bits != inner.bits && outer.contains(inner)
}

/// Judges a range in a field that older objects filled loosely: it must only be one.
pub(super) fn validate_legacy(text: &str, path: &Path, errors: &mut ErrorList) -> Option<Cidr> {
    let cidr = Cidr::parse(text);
    if cidr.is_none() {
        errors.invalid(path, &json!(text), NO_RANGE);
    }
    cidr
}

/// Judges a range that must be written in its one canonical form: its first address, in the shortest text.
pub(super) fn validate(text: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(cidr) = validate_legacy(text, path, errors)
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
}
