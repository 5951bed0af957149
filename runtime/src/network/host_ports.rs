//! Which node ports the host is served on: another process may have the port, or another cluster of this machine.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;

/// What became of each node port that a Service has; as many as there are Services' ports.
#[derive(Clone, Debug, Default)]
pub struct HostPorts(Arc<RwLock<HashMap<u16, Result<(), io::ErrorKind>>>>);

impl HostPorts {
    /// Whether this node listens on a node port of TCP, and why not; `None` until it has tried.
    pub fn node_port(&self, port: u16) -> Option<Result<(), io::ErrorKind>> {
        self.0.read().get(&port).copied()
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
    pub fn set(&self, outcome: Result<(), io::ErrorKind>) {
        self.ports.0.write().insert(self.port, outcome);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.ports.0.write().remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_known_while_it_is_wanted() {
        let ports = HostPorts::default();
        let noted = ports.note(30080);
        assert_eq!(ports.node_port(30080), None);
        noted.set(Err(io::ErrorKind::AddrInUse));
        assert_eq!(ports.node_port(30080), Some(Err(io::ErrorKind::AddrInUse)));
        noted.set(Ok(()));
        assert_eq!(ports.node_port(30080), Some(Ok(())));
        drop(noted);
        assert_eq!(ports.node_port(30080), None);
    }
}
