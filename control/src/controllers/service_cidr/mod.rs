//! Ranges of Services' addresses, and the addresses themselves: ServiceCIDRs become ready and do not go while addresses need
//! them; IPAddresses and Services are kept in step, whatever somebody did to one of them by hand.

mod plan;
mod ranges;
mod repair;

pub use ranges::ServiceCidrs;
pub use repair::Repair;
