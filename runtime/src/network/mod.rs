//! The network in the host call: a pod's address, its private localhost, Services and names are applied where a guest
//! binds, connects and resolves. No iptables, no CNI plugin, no privileges.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;

/// Transport of a guest's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Why the host refused a guest's socket call; maps to a WASI error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// `access-denied`: the address is not the pod's to use.
    #[error("{0}")]
    Access(String),
    /// `connection-refused`: a Service without ready endpoints.
    #[error("{0}")]
    Refused(String),
    /// `not-supported`: IPv6 in `local` mode.
    #[error("{0}")]
    NotSupported(String),
    /// `address-in-use` by another container of the pod.
    #[error("{0}")]
    InUse(String),
    /// `name-unresolvable`.
    #[error("{0}")]
    NoSuchName(String),
}

/// Where a connection goes after policy and Service load balancing.
#[derive(Clone)]
pub struct Route {
    /// The host address to bind the socket to before connecting, so that its source is the pod's.
    pub source: IpAddr,
    /// The host address to connect to (substitute ports applied).
    pub destination: SocketAddr,
    /// The HTTP server of a guest on this node that listens there: a `wasi:http` request to it is a call in memory.
    pub local: Option<Arc<dyn LocalHttp>>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route")
            .field("source", &self.source)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

/// A guest's HTTP server on this node, reachable without a socket.
pub trait LocalHttp: Send + Sync {
    /// Serves a connection that the host accepted (a Service's proxy hands it over whole).
    fn serve(&self, stream: tokio::net::TcpStream, peer: SocketAddr);
}

/// One pod's view of the network. All addresses that a guest sees pass through it.
#[derive(Debug)]
pub struct PodNetwork {}

impl PodNetwork {
    /// The pod's address (`status.podIP`).
    pub fn address(&self) -> Ipv4Addr {
        todo!()
    }

    /// The host address to bind for a guest's bind to `requested` (`0.0.0.0`: the pod's address; `127.0.0.1`: its
    /// private localhost; port 0: any).
    pub fn bind(&self, _protocol: Protocol, _requested: SocketAddr) -> Result<SocketAddr, Denied> {
        todo!()
    }

    /// Records that a guest listens: `asked` as the guest sees it, `actual` where the host bound (a substitute when
    /// the port could not be had). Released when the guard drops.
    pub fn listening(
        self: &Arc<Self>,
        _protocol: Protocol,
        _asked: SocketAddr,
        _actual: SocketAddr,
        _http: Option<Arc<dyn LocalHttp>>,
    ) -> ListenGuard {
        todo!()
    }

    /// Where a guest's connect to `destination` goes.
    pub fn connect(&self, _protocol: Protocol, _destination: SocketAddr) -> Result<Route, Denied> {
        todo!()
    }

    /// The address to show a guest for a host address (private localhost as 127.0.0.1, substitutes undone, the Service
    /// address that it connected to).
    pub fn shown(&self, _protocol: Protocol, _actual: SocketAddr) -> SocketAddr {
        todo!()
    }

    /// Resolves a name: the cluster's zone first, without a packet, then the host's resolver.
    pub async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, Denied> {
        todo!()
    }
}

/// A listener's entry in the host's table.
#[derive(Debug)]
pub struct ListenGuard {}

/// A pod, as the network knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Why a pod could not be given its place in the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Every address of the node's range is taken.
    #[error("no free pod address in {range}")]
    Exhausted { range: String },
    #[error("{message}")]
    Failed {
        message: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// The node's network, as pod workers use it.
#[async_trait]
pub trait Network: Send + Sync + std::fmt::Debug {
    /// Gives a pod its address: `previous` again (the Pod's status has it after a restart of the node) unless it is
    /// taken or outside the range. Dropping the last reference to the returned view frees the address.
    async fn attach(&self, pod: PodIdentity, previous: Option<Ipv4Addr>) -> Result<Arc<PodNetwork>, NetworkError>;

    /// The Service environment variables (`X_SERVICE_HOST`, …) for the Services of `namespace` with a cluster address.
    /// The `kubernetes` Service of `default` is always included.
    fn service_env(&self, namespace: &str) -> BTreeMap<String, String>;
}
