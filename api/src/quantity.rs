//! Kubernetes resource quantities: `100m`, `1.5Gi`, `1e3`.

use std::str::FromStr;

/// An exact quantity in 1e-9 units (nano), as the API's canonical form rounds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Quantity {}

impl FromStr for Quantity {
    type Err = &'static str;
    fn from_str(_text: &str) -> Result<Self, Self::Err> {
        todo!()
    }
}

impl Quantity {
    /// Whole units, rounded up (bytes).
    pub fn value(self) -> i64 {
        todo!()
    }
    /// Thousandths, rounded up (millicores).
    pub fn milli(self) -> i64 {
        todo!()
    }
}
