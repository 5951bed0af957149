//! The `local` network: one machine, IPv4, no privileges. Pods, private localhosts and Services have addresses of
//! 127.0.0.0/8; connections between them are the host's own loopback sockets or calls in memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::host::Host;
use super::host_ports::HostPorts;
use super::ipam::{self, Ipam, Range, Slot};
use super::listeners::Listeners;
use super::resolver::Resolver;
use super::services::{ServicePort, Services};
use super::{LocalHttp, Network, NetworkError, PodIdentity, PodNetwork, Protocol, proxy, watch};

/// What all pods of the node share.
#[derive(Debug)]
pub(super) struct Shared {
    pub ipam: Ipam,
    pub listeners: Arc<Listeners>,
    pub services: Services,
    pub service_range: Range,
    pub host: Host,
    pub host_ports: HostPorts,
    pub resolver: Resolver,
}

impl Shared {
    /// Where a pod's port is on this host; `None` if nothing is known to listen there.
    pub fn reach(&self, protocol: Protocol, address: SocketAddr) -> Option<(SocketAddr, Option<Arc<dyn LocalHttp>>)> {
        let listener = self.listeners.find(protocol, address)?;
        Some((listener.actual, listener.http))
    }

    /// Where an endpoint of a Service is. Endpoints may be pods, or addresses outside this machine; of the host's own
    /// addresses only the API server's, which its Service `default/kubernetes` names.
    pub fn reach_endpoint(
        &self,
        protocol: Protocol,
        service: &ServicePort,
        endpoint: SocketAddr,
    ) -> Option<(SocketAddr, Option<Arc<dyn LocalHttp>>)> {
        match endpoint.ip() {
            IpAddr::V4(ip) if ipam::is_pod(ip) => self.reach(protocol, endpoint),
            IpAddr::V4(ip) if service.service == "default/kubernetes" || self.host.allowed(ip).is_ok() => {
                Some((endpoint, None))
            }
            _ => None,
        }
    }
}

/// The node's network and its tasks, which end when it is dropped.
pub struct LocalNetwork {
    shared: Arc<Shared>,
    slot: Slot,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for LocalNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalNetwork").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl LocalNetwork {
    /// Starts following Services and serving them to the host, for the node `node`; node ports listen on `node_ports`.
    pub fn start(slot: Slot, client: kube::Client, node: String, node_ports: IpAddr) -> Self {
        let shared = Arc::new(Shared {
            ipam: Ipam::new(slot.pods(), slot.localhosts()),
            listeners: Arc::default(),
            services: Services::default(),
            service_range: slot.services(),
            host: Host::default(),
            host_ports: HostPorts::new(node_ports),
            resolver: Resolver::default(),
        });
        let mut tasks = JoinSet::new();
        let (changed, changes) = tokio::sync::watch::channel(());
        tasks.spawn(watch::follow(shared.clone(), client, node, changed));
        tasks.spawn(proxy::serve(shared.clone(), changes));
        Self { shared, slot, _tasks: tasks }
    }

    /// Which node ports the host is served on.
    pub fn host_ports(&self) -> HostPorts {
        self.shared.host_ports.clone()
    }

    /// The range of pod addresses, for the node's `podCIDR`.
    pub fn pod_cidr(&self) -> String {
        self.slot.pods().to_string()
    }
}

#[async_trait]
impl Network for LocalNetwork {
    async fn attach(&self, pod: PodIdentity, previous: Option<Ipv4Addr>) -> Result<Arc<PodNetwork>, NetworkError> {
        let addresses = self
            .shared
            .ipam
            .allocate(previous)
            .ok_or_else(|| NetworkError::Exhausted { range: self.shared.ipam.range().to_string() })?;
        Ok(PodNetwork::new(self.shared.clone(), pod, addresses))
    }

    fn service_env(&self, namespace: &str) -> BTreeMap<String, String> {
        self.shared.services.environment(namespace)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A pod in a network without a cluster, for tests of what uses it.

    use super::*;

    /// A network without Services; every pod that it makes shares its listeners.
    #[derive(Debug)]
    pub(crate) struct Lone(Arc<Shared>, #[expect(dead_code, reason = "claims the addresses")] Slot);

    impl Lone {
        pub(crate) fn new() -> Self {
            Self::with_resolver(Resolver::default())
        }

        pub(in crate::network) fn with_resolver(resolver: Resolver) -> Self {
            let slot = Slot::claim(None).unwrap();
            let shared = Shared {
                ipam: Ipam::new(slot.pods(), slot.localhosts()),
                listeners: Arc::default(),
                services: Services::default(),
                service_range: slot.services(),
                host: Host::default(),
                host_ports: HostPorts::new(Ipv4Addr::LOCALHOST.into()),
                resolver,
            };
            Self(Arc::new(shared), slot)
        }

        pub(in crate::network) fn shared(&self) -> Arc<Shared> {
            Arc::clone(&self.0)
        }

        pub(crate) fn pod(&self, name: &str) -> Arc<PodNetwork> {
            self.pod_in("default", name)
        }

        pub(crate) fn pod_in(&self, namespace: &str, name: &str) -> Arc<PodNetwork> {
            let pod = PodIdentity { namespace: namespace.into(), name: name.into(), uid: name.into() };
            PodNetwork::new(self.0.clone(), pod, self.0.ipam.allocate(None).unwrap())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Denied;
    use super::testing::Lone;
    use super::*;

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    #[test]
    fn a_pods_localhost_is_its_own() {
        let network = Lone::new();
        let (one, other) = (network.pod("one"), network.pod("other"));
        let bound = one.bind(Protocol::Tcp, at("127.0.0.1", 9090)).unwrap();
        let _guard = one.listening(Protocol::Tcp, bound, bound, None).unwrap();
        assert_eq!(one.connect(Protocol::Tcp, at("127.0.0.1", 9090)).unwrap().destination, bound);
        assert!(matches!(other.connect(Protocol::Tcp, at("127.0.0.1", 9090)), Err(Denied::Refused(_))));
        assert_eq!(one.shown(Protocol::Tcp, bound), at("127.0.0.1", 9090));
        assert!(other.connect(Protocol::Tcp, bound).is_err(), "nor by the address behind it");
    }

    #[test]
    fn what_listens_everywhere_is_reached_over_localhost_too() {
        let network = Lone::new();
        let pod = network.pod("one");
        let bound = pod.bind(Protocol::Tcp, at("0.0.0.0", 8080)).unwrap();
        assert_eq!(bound.ip(), IpAddr::from(pod.address()));
        let guard = pod.listening(Protocol::Tcp, bound, bound, None).unwrap();
        assert!(matches!(pod.bind(Protocol::Tcp, at("0.0.0.0", 8080)), Err(Denied::InUse(_))));
        assert!(pod.connect(Protocol::Tcp, at("127.0.0.1", 8080)).is_ok());
        drop(guard);
        assert!(pod.connect(Protocol::Tcp, at("127.0.0.1", 8080)).is_err());
    }

    #[test]
    fn a_substitute_port_is_invisible() {
        let network = Lone::new();
        let (server, client) = (network.pod("server"), network.pod("client"));
        let asked = server.bind(Protocol::Tcp, at("0.0.0.0", 80)).unwrap();
        let actual = SocketAddr::new(asked.ip(), 40_080);
        let _guard = server.listening(Protocol::Tcp, asked, actual, None).unwrap();
        let route = client.connect(Protocol::Tcp, asked).unwrap();
        assert_eq!((route.destination, route.source), (actual, client.address().into()));
        assert_eq!(client.shown(Protocol::Tcp, actual), asked);
    }

    #[test]
    fn of_two_that_were_given_a_port_together_the_first_keeps_it() {
        let network = Lone::new();
        let pod = network.pod("one");
        let [first, second] = [(); 2].map(|()| pod.bind(Protocol::Tcp, at("0.0.0.0", 80)).unwrap());
        let actual = SocketAddr::new(second.ip(), 40_080);
        let guard = pod.listening(Protocol::Tcp, first, first, None).unwrap();
        assert!(matches!(pod.listening(Protocol::Tcp, second, actual, None), Err(Denied::InUse(_))));
        assert_eq!(pod.connect(Protocol::Tcp, first).unwrap().destination, first);
        assert_eq!(pod.shown(Protocol::Tcp, actual), actual);
        drop(guard);
        assert!(pod.listening(Protocol::Tcp, second, actual, None).is_ok());
    }

    #[test]
    fn the_host_is_out_of_reach_and_so_are_strangers_addresses() {
        let pod = Lone::new().pod("one");
        assert!(matches!(pod.connect(Protocol::Tcp, at("127.0.0.2", 22)), Err(Denied::Access(_))));
        // Another cluster's range: what answers there may be a server of the host that listens on all addresses.
        assert!(matches!(pod.connect(Protocol::Tcp, at("127.69.9.9", 22)), Err(Denied::Refused(_))));
        assert!(matches!(pod.connect(Protocol::Tcp, at("169.254.169.254", 80)), Err(Denied::Access(_))));
        assert!(matches!(pod.connect(Protocol::Tcp, at("::1", 22)), Err(Denied::NotSupported(_))));
        assert!(matches!(pod.bind(Protocol::Tcp, at("10.0.0.1", 80)), Err(Denied::Access(_))));
        assert!(pod.connect(Protocol::Tcp, at("198.51.100.1", 443)).unwrap().source.is_unspecified());
    }
}
