//! The host's table of what guests listen on: where a pod's port really is, and which of them is an HTTP server of this
//! process. It is what makes substitute ports, private localhosts and calls in memory work.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{LocalHttp, Protocol};

/// One listening port.
#[derive(Clone)]
pub(super) struct Listener {
    /// Where the host's socket is.
    pub actual: SocketAddr,
    pub http: Option<Arc<dyn LocalHttp>>,
}

#[derive(Default)]
struct Maps {
    /// By the address that a guest or client names.
    asked: HashMap<(Protocol, SocketAddr), Listener>,
    /// Back from the host's address, for substitutes only.
    shown: HashMap<(Protocol, SocketAddr), SocketAddr>,
}

/// The table. Shared by all pods of the node.
#[derive(Default)]
pub(super) struct Listeners(RwLock<Maps>);

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners").field("ports", &self.0.read().asked.len()).finish()
    }
}

impl Listeners {
    pub fn find(&self, protocol: Protocol, asked: SocketAddr) -> Option<Listener> {
        self.0.read().asked.get(&(protocol, asked)).cloned()
    }

    pub fn is_taken(&self, protocol: Protocol, asked: SocketAddr) -> bool {
        self.0.read().asked.contains_key(&(protocol, asked))
    }

    /// The address that a client named to reach this socket of the host.
    pub fn shown(&self, protocol: Protocol, actual: SocketAddr) -> Option<SocketAddr> {
        self.0.read().shown.get(&(protocol, actual)).copied()
    }

    /// Adds a listener; removed when the guard drops. `None`: another listens there.
    pub fn add(
        self: &Arc<Self>,
        protocol: Protocol,
        asked: SocketAddr,
        actual: SocketAddr,
        http: Option<Arc<dyn LocalHttp>>,
    ) -> Option<ListenGuard> {
        let mut maps = self.0.write();
        match maps.asked.entry((protocol, asked)) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => drop(free.insert(Listener { actual, http })),
        }
        if asked != actual {
            maps.shown.insert((protocol, actual), asked);
        }
        Some(ListenGuard { table: self.clone(), protocol, asked, actual })
    }
}

/// A listener's entry in the host's table; dropping it removes the entry.
#[derive(Debug)]
pub struct ListenGuard {
    table: Arc<Listeners>,
    protocol: Protocol,
    asked: SocketAddr,
    actual: SocketAddr,
}

impl ListenGuard {
    /// Where the host's socket is.
    pub(crate) fn actual(&self) -> SocketAddr {
        self.actual
    }
}

impl Drop for ListenGuard {
    fn drop(&mut self) {
        let mut maps = self.table.0.write();
        maps.asked.remove(&(self.protocol, self.asked));
        maps.shown.remove(&(self.protocol, self.actual));
    }
}
