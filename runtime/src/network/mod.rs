//! The network in the host call: a pod's address, its private localhost, Services and names are applied where a guest
//! binds, connects and resolves. No iptables, no CNI plugin, no privileges.
//!
//! What must stay true: a guest reaches, within 127.0.0.0/8, ::1 and the host's own addresses, only a live pod, a Service
//! or its own localhost; and every one of its sockets has its pod's address as source.

mod host;
mod host_ports;
pub mod ipam;
mod listeners;
pub mod local;
mod names;
mod proxy;
mod resolver;
mod services;
mod watch;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use wasmtime_wasi_http::WasiBody;

pub use self::host_ports::HostPorts;
use self::ipam::Addresses;
pub use self::listeners::ListenGuard;
pub use self::local::LocalNetwork;
use self::local::Shared;
use self::names::Answer;
pub use self::names::is_name;
use self::resolver::Lookups;

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
    /// `connection-refused`: nobody listens there, or a Service without ready endpoints.
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
    /// `temporary-resolver-failure`.
    #[error("{0}")]
    NoAnswer(String),
}

/// Where a connection goes after policy and Service load balancing.
#[derive(Clone)]
pub struct Route {
    /// The host address to bind the socket to before connecting, so that its source is the pod's; unspecified for an
    /// address outside this machine.
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
    /// Serves a connection that the host accepted (a Service's proxy hands it over whole); gives it back if the server is
    /// about to end, or has so many that this one could not even wait.
    fn serve(&self, stream: tokio::net::TcpStream, peer: SocketAddr) -> Result<(), tokio::net::TcpStream>;

    /// Answers a guest's request in memory. Failures are answers, as over a socket.
    fn call(&self, request: http::Request<WasiBody>) -> BoxFuture<'static, http::Response<WasiBody>>;
}

/// One pod's view of the network. All addresses that a guest sees pass through it. Dropping it frees its address.
#[derive(Debug)]
pub struct PodNetwork {
    shared: Arc<Shared>,
    pod: PodIdentity,
    addresses: Addresses,
    /// Lookups of outside names that it may begin now.
    lookups: Lookups,
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        self.shared.ipam.free(self.addresses.pod);
    }
}

impl PodNetwork {
    fn new(shared: Arc<Shared>, pod: PodIdentity, addresses: Addresses) -> Arc<Self> {
        let lookups = shared.resolver.lookups(&pod.namespace);
        Arc::new(Self { shared, pod, addresses, lookups })
    }

    /// The pod's address (`status.podIP`).
    pub fn address(&self) -> Ipv4Addr {
        self.addresses.pod
    }

    /// The host address to bind for a guest's bind to `requested` (`0.0.0.0`: the pod's address; `127.0.0.1`: its
    /// private localhost; port 0: any).
    pub fn bind(&self, protocol: Protocol, requested: SocketAddr) -> Result<SocketAddr, Denied> {
        let IpAddr::V4(ip) = requested.ip() else { return Err(no_ipv6()) };
        let host = if ip.is_unspecified() || ip == self.addresses.pod {
            self.addresses.pod
        } else if ip == Ipv4Addr::LOCALHOST {
            self.addresses.localhost
        } else {
            return Err(Denied::Access(format!("{ip} is not an address of this pod ({})", self.addresses.pod)));
        };
        let address = SocketAddr::new(host.into(), requested.port());
        if address.port() != 0 && self.shared.listeners.is_taken(protocol, address) {
            return Err(in_use(address));
        }
        Ok(address)
    }

    /// Records that a guest listens: `asked` is the host address that [`PodNetwork::bind`] gave, with the port that the
    /// guest has, `actual` where the host bound (another port if that one could not be had). Released when the guard
    /// drops. Refused if another was faster since.
    pub fn listening(
        self: &Arc<Self>,
        protocol: Protocol,
        asked: SocketAddr,
        actual: SocketAddr,
        http: Option<Arc<dyn LocalHttp>>,
    ) -> Result<ListenGuard, Denied> {
        self.shared.listeners.add(protocol, asked, actual, http).ok_or_else(|| in_use(asked))
    }

    /// Where a guest's connect to `destination` goes.
    pub fn connect(&self, protocol: Protocol, destination: SocketAddr) -> Result<Route, Denied> {
        let IpAddr::V4(ip) = destination.ip() else { return Err(no_ipv6()) };
        let port = destination.port();
        if ip == Ipv4Addr::LOCALHOST || ip.is_unspecified() {
            return self.to_localhost(protocol, port);
        }
        if let Some(service) = self.shared.services.by_address(protocol, ip, port) {
            return self.to_service(protocol, &service, destination);
        }
        if self.shared.service_range.contains(ip) || self.shared.services.has_address(ip) {
            return Err(Denied::Refused(format!("no Service has the address {destination}")));
        }
        if ipam::is_pod(ip) {
            return self.to_pod(protocol, destination);
        }
        self.shared.host.allowed(ip)?;
        Ok(Route { source: Ipv4Addr::UNSPECIFIED.into(), destination, local: None })
    }

    /// The private localhost: what listens on it, else what listens on all of the pod's addresses.
    fn to_localhost(&self, protocol: Protocol, port: u16) -> Result<Route, Denied> {
        let Addresses { pod, localhost } = self.addresses;
        let found = [localhost, pod]
            .into_iter()
            .find_map(|ip| self.shared.listeners.find(protocol, SocketAddr::new(ip.into(), port)));
        let listener = found.ok_or_else(|| Denied::Refused(format!("nothing in this pod listens on port {port}")))?;
        Ok(Route { source: localhost.into(), destination: listener.actual, local: listener.http })
    }

    fn to_pod(&self, protocol: Protocol, destination: SocketAddr) -> Result<Route, Denied> {
        let source = self.addresses.pod.into();
        match self.shared.reach(protocol, destination) {
            Some((destination, local)) => Ok(Route { source, destination, local }),
            None => Err(Denied::Refused(format!("nothing listens on {destination}"))),
        }
    }

    fn to_service(
        &self,
        protocol: Protocol,
        service: &services::ServicePort,
        destination: SocketAddr,
    ) -> Result<Route, Denied> {
        let client = self.addresses.pod.into();
        for endpoint in service.choices(client) {
            if let Some((destination, local)) = self.shared.reach_endpoint(protocol, service, endpoint) {
                service.chose(client, endpoint);
                let source = if destination.ip().is_loopback() { client } else { Ipv4Addr::UNSPECIFIED.into() };
                return Ok(Route { source, destination, local });
            }
        }
        Err(Denied::Refused(format!("Service {} ({destination}) has no ready endpoint", service.service)))
    }

    /// The address to show a guest for a host address: private localhosts as 127.0.0.1, substitute ports undone.
    pub fn shown(&self, protocol: Protocol, actual: SocketAddr) -> SocketAddr {
        let mut shown = self.shared.listeners.shown(protocol, actual).unwrap_or(actual);
        if shown.ip() == IpAddr::V4(self.addresses.localhost) {
            shown.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        shown
    }

    /// Resolves a name: the cluster's zone first, without a packet, then the host's resolver. IPv4 only.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Denied> {
        if !is_name(name) {
            return Err(Denied::NoSuchName("this is no name".to_owned()));
        }
        let outside = match names::in_cluster(&self.shared.services, &self.pod, self.addresses.pod, name) {
            Answer::Addresses(addresses) => return Ok(addresses),
            Answer::NoSuchName => return Err(no_such_name(name)),
            Answer::Elsewhere(target) => target,
            Answer::NotOurs => name.to_owned(),
        };
        let mut found = self.shared.resolver.addresses(&self.lookups, outside.trim_end_matches('.')).await?;
        found.retain(IpAddr::is_ipv4);
        found.dedup();
        if found.is_empty() { Err(no_such_name(name)) } else { Ok(found) }
    }
}

fn no_such_name(name: &str) -> Denied {
    Denied::NoSuchName(format!("{name} cannot be resolved"))
}

fn in_use(address: SocketAddr) -> Denied {
    Denied::InUse(format!("port {} is in use by a container of this pod", address.port()))
}

fn no_ipv6() -> Denied {
    Denied::NotSupported("the local network is IPv4 only".into())
}

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
