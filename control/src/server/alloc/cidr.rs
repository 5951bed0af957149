//! The range that Services' addresses come from: which of its addresses may be handed out, and which are left to those who
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
        let bad = || BadCidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().ok().filter(|b| (8..=30).contains(b)).ok_or_else(bad)?;
        let mask = u32::MAX << (32 - u32::from(bits));
        Ok(Self { base: u32::from(address) & mask, bits })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

impl Cidr {
    /// How many addresses can be handed out: all but the first and the last.
    pub(super) fn size(self) -> u32 {
        (1_u32 << (32 - u32::from(self.bits))) - 2
    }

    /// The `index`th address, counted from 0, that can be handed out.
    pub(super) fn nth(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1 + index)
    }

    /// The address of the `kubernetes` Service.
    pub fn first(self) -> Ipv4Addr {
        self.nth(0)
    }

    pub(super) fn contains(self, address: Ipv4Addr) -> bool {
        (self.base + 1..=self.base + self.size()).contains(&u32::from(address))
    }

    /// How many of the first addresses are left to those who ask for one: Kubernetes' rule.
    pub(super) fn reserved(self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
    }
}
