//! Which node ports the host is served on: another process may have the port, or another cluster of this machine.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::RwLock;

/// What became of each node port that a Service has; as many as there are Services' ports.
#[derive(Clone, Debug)]
pub struct HostPorts {
    address: IpAddr,
    outcomes: Arc<RwLock<HashMap<u16, Outcome>>>,
}

#[derive(Clone, Copy, Debug)]
struct Outcome {
    listens: Result<(), io::ErrorKind>,
    /// Somebody asked why not, and tells it.
    asked: bool,
}

impl HostPorts {
    /// Node ports on an address of this machine; the unspecified one stands for all.
    pub fn new(address: IpAddr) -> Self {
        Self { address, outcomes: Arc::default() }
    }

    /// Where node ports listen.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Where this machine's own clients reach a node port.
    pub fn own_address(&self, port: u16) -> SocketAddr {
        let address = match self.address {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        SocketAddr::new(address, port)
    }

    /// Whether this node listens on a node port of TCP, and why not; `None` until it has tried.
    pub fn node_port(&self, port: u16) -> Option<Result<(), io::ErrorKind>> {
        let mut outcomes = self.outcomes.write();
        let outcome = outcomes.get_mut(&port)?;
        outcome.asked |= outcome.listens.is_err();
        Some(outcome.listens)
    }

    /// Notes what became of a port until the guard is dropped.
    pub(super) fn note(&self, port: u16) -> Noted {
        Noted { ports: self.clone(), port }
    }
}

/// A node port that is wanted.
pub(super) struct Noted {
    ports: HostPorts,
    port: u16,
}

impl Noted {
    pub fn set(&self, listens: Result<(), io::ErrorKind>) {
        let mut outcomes = self.ports.outcomes.write();
        let asked = listens.is_err() && outcomes.get(&self.port).is_some_and(|outcome| outcome.asked);
        outcomes.insert(self.port, Outcome { listens, asked });
    }

    /// Whether somebody has asked why the port is not served.
    pub fn is_known(&self) -> bool {
        self.ports.outcomes.read().get(&self.port).is_some_and(|outcome| outcome.asked)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.ports.outcomes.write().remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_reaches_ports_on_all_its_addresses_on_its_own_one() {
        for (address, own) in [("0.0.0.0", "127.0.0.1:80"), ("::", "[::1]:80"), ("192.0.2.1", "192.0.2.1:80")] {
            assert_eq!(HostPorts::new(address.parse().unwrap()).own_address(80).to_string(), own);
        }
    }

    #[test]
    fn a_port_is_known_while_it_is_wanted() {
        let ports = HostPorts::new(Ipv4Addr::LOCALHOST.into());
        let noted = ports.note(30080);
        assert_eq!(ports.node_port(30080), None);
        noted.set(Err(io::ErrorKind::AddrInUse));
        assert!(!noted.is_known());
        assert_eq!(ports.node_port(30080), Some(Err(io::ErrorKind::AddrInUse)));
        noted.set(Err(io::ErrorKind::AddrInUse));
        assert!(noted.is_known(), "who asked tells it");
        noted.set(Ok(()));
        assert_eq!((ports.node_port(30080), noted.is_known()), (Some(Ok(())), false));
        drop(noted);
        assert_eq!(ports.node_port(30080), None);
    }
}
