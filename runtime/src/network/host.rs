//! Which addresses outside the cluster a guest may reach: none of the host's own, nor link-local ones, where clouds keep
//! their machines' credentials.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Denied;

/// How long the list of the host's addresses is believed.
const FRESH: Duration = Duration::from_secs(10);

/// The host's own addresses, looked up again when they are old.
#[derive(Debug, Default)]
pub(super) struct Host(Mutex<Option<(Instant, HashSet<IpAddr>)>>);

impl Host {
    /// Whether a guest may connect to this address, which is neither a pod's nor a Service's.
    pub fn allowed(&self, address: Ipv4Addr) -> Result<(), Denied> {
        let refused = |why: &str| Err(Denied::Access(format!("{address} is {why}; guests may not reach it")));
        if address.is_loopback() {
            return refused("an address of the host");
        }
        if address.is_link_local() {
            return refused("link-local");
        }
        if address.is_multicast() || address.is_broadcast() || address.octets().first() == Some(&0) {
            return refused("not one machine's");
        }
        if self.is_own(address.into()) {
            return refused("an address of the host");
        }
        Ok(())
    }

    fn is_own(&self, address: IpAddr) -> bool {
        let mut cached = self.0.lock();
        if cached.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            match if_addrs::get_if_addrs() {
                Ok(interfaces) => {
                    *cached = Some((Instant::now(), interfaces.iter().map(if_addrs::Interface::ip).collect()));
                }
                // Unknown is treated as the host's: a guest is better refused than let in.
                Err(error) => {
                    tracing::warn!(%error, "the host's addresses cannot be listed");
                    return true;
                }
            }
        }
        cached.as_ref().is_some_and(|(_, own)| own.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_link_local_addresses_are_out_of_reach() {
        let host = Host::default();
        for address in
            ["127.0.0.1", "127.0.0.53", "127.200.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "0.1.2.3"]
        {
            assert!(host.allowed(address.parse().unwrap()).is_err(), "{address}");
        }
        for interface in if_addrs::get_if_addrs().unwrap() {
            if let IpAddr::V4(own) = interface.ip() {
                assert!(host.allowed(own).is_err(), "{own}");
            }
        }
        assert!(host.allowed("198.51.100.7".parse().unwrap()).is_ok());
    }
}
