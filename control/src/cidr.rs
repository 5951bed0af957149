//! A range that Services' addresses come from: which of its addresses may be handed out, and which are left to those who
//! ask for one.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 range in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    bits: u8,
}

/// A text that is not an IPv4 range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range in CIDR notation, such as 10.96.0.0/16")]
pub struct BadCidr(String);

impl FromStr for Cidr {
    type Err = BadCidr;
    fn from_str(text: &str) -> Result<Self, BadCidr> {
        Self::parse(text).ok_or_else(|| BadCidr(text.to_owned()))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

impl Cidr {
    /// A range of IPv4; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or_default();
        Some(Self { base: u32::from(address) & mask, bits })
    }

    /// How many addresses can be handed out: all but the first and the last.
    pub fn size(self) -> u32 {
        let all = 1_u64 << (32 - u32::from(self.bits));
        u32::try_from(all.saturating_sub(2)).unwrap_or_default()
    }

    /// The `index`th address, counted from 0, that can be handed out.
    pub(crate) fn nth(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base.wrapping_add(1).wrapping_add(index))
    }

    /// The address of the `kubernetes` Service.
    pub fn first(self) -> Ipv4Addr {
        self.nth(0)
    }

    /// Whether the address can be handed out.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (1..=self.size()).contains(&u32::from(address).wrapping_sub(self.base))
    }

    /// Whether every address of `other` is in this range.
    pub fn covers(self, other: Self) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or_default();
        self.bits <= other.bits && other.base & mask == self.base
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// How many of the first addresses are left to those who ask for one: Kubernetes' rule.
    pub(crate) fn reserved(self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_and_the_last_address_are_nobody_s() {
        let range = cidr("10.0.0.0/29");
        let given: Vec<u8> = (0..8).filter(|last| range.contains(Ipv4Addr::new(10, 0, 0, *last))).collect();
        assert_eq!(given, [1, 2, 3, 4, 5, 6]);
        assert_eq!((range.size(), range.first()), (6, Ipv4Addr::new(10, 0, 0, 1)));
        for nothing in ["10.0.0.4/31", "10.0.0.4/32"] {
            assert_eq!(cidr(nothing).size(), 0);
            assert!(!cidr(nothing).contains(Ipv4Addr::new(10, 0, 0, 4)), "{nothing}");
        }
        let all = cidr("0.0.0.0/0");
        assert_eq!(all.size(), u32::MAX - 1);
        assert!(all.contains(Ipv4Addr::new(10, 0, 0, 4)) && !all.contains(Ipv4Addr::BROADCAST));
        for bad in ["10.0.0.0", "10.0.0.0/33", "fd00::/64", "10.0.0/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_that_share_addresses_overlap() {
        assert!(cidr("10.0.0.0/8").covers(cidr("10.1.0.0/16")) && !cidr("10.1.0.0/16").covers(cidr("10.0.0.0/8")));
        assert!(cidr("10.1.0.0/16").overlaps(cidr("10.0.0.0/8")) && cidr("0.0.0.0/0").covers(cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/16").overlaps(cidr("10.1.0.0/16")));
    }
}
