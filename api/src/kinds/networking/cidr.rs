//! Addresses and ranges as networking kinds write them.

use std::net::IpAddr;

use serde_json::json;

use crate::field::{ErrorList, Path};

const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A range of addresses: a first address and how many of its bits are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    address: IpAddr,
    length: u8,
}

impl Cidr {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (address, length) = (address.parse().ok()?, length.parse().ok()?);
        let cidr = Self { address, length };
        (length <= cidr.bits()).then_some(cidr)
    }

    pub(super) fn is_v4(self) -> bool {
        self.address.is_ipv4()
    }

    fn bits(self) -> u8 {
        if self.is_v4() { 32 } else { 128 }
    }

    /// The address as the high bits of a number.
    fn number(self) -> u128 {
        match self.address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// The number with all but `length` bits cleared.
    fn masked(self, length: u8) -> u128 {
        self.number() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or_default()
    }

    /// Whether every address of `other` is in this range, and not every one of this range in `other`.
    pub(super) fn strictly_contains(self, other: Self) -> bool {
        self.is_v4() == other.is_v4()
            && self.length < other.length
            && self.masked(self.length) == other.masked(self.length)
    }

    /// Kubernetes' form: the first address of the range, in its shortest text.
    fn canonical(self) -> String {
        let masked = self.masked(self.length);
        let address = if self.is_v4() {
            IpAddr::V4(u32::try_from(masked >> 96).unwrap_or_default().into())
        } else {
            IpAddr::V6(masked.into())
        };
        format!("{address}/{}", self.length)
    }
}

/// Judges a range in a field that older objects filled loosely: it must only be one.
pub(super) fn validate_legacy(text: &str, path: &Path, errors: &mut ErrorList) -> Option<Cidr> {
    let cidr = Cidr::parse(text);
    if cidr.is_none() {
        errors.invalid(path, &json!(text), NO_RANGE);
    }
    cidr
}

/// Judges a range that must be written in its one canonical form.
pub(super) fn validate(text: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(cidr) = validate_legacy(text, path, errors)
        && cidr.canonical() != text
    {
        errors.invalid(path, &json!(text), &format!("must be in canonical form ({:?})", cidr.canonical()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_an_address_and_a_length() {
        for (text, canonical) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:DB8::/64", Some("2001:db8::/64")),
            ("::1/128", Some("::1/128")),
            ("10.0.0.0/33", None),
            ("10.0.0.0", None),
            ("10.0.0.0/+8", None),
            ("x/8", None),
        ] {
            assert_eq!(Cidr::parse(text).map(Cidr::canonical).as_deref(), canonical, "{text}");
        }
    }

    #[test]
    fn a_range_contains_longer_ones_of_its_family() {
        let contains = |a: &str, b: &str| Cidr::parse(a).unwrap().strictly_contains(Cidr::parse(b).unwrap());
        assert!(contains("10.0.0.0/8", "10.1.0.0/16") && contains("::/0", "2001:db8::/32"));
        assert!(!contains("10.0.0.0/8", "10.0.0.0/8") && !contains("10.0.0.0/8", "11.0.0.0/16"));
        assert!(!contains("0.0.0.0/0", "2001:db8::/32"));
    }

    proptest::proptest! {
        #[test]
        fn the_canonical_form_is_its_own(address: u32, length in 0_u8..=32) {
            let text = format!("{}/{length}", std::net::Ipv4Addr::from(address));
            let canonical = Cidr::parse(&text).unwrap().canonical();
            proptest::prop_assert_eq!(Cidr::parse(&canonical).unwrap().canonical(), canonical);
        }
    }
}
