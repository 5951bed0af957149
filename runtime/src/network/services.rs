//! What the node knows of Services: their addresses, node ports, names, and the endpoints that connections go to.
//!
//! One watch task (`watch.rs`) writes; guests' connects, the proxy and name resolution read. What a connection costs does
//! not depend on how many Services or endpoints there are.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

pub(super) use self::build::build;
use super::Protocol;

mod build;
#[cfg(test)]
mod tests;

/// Most clients whose endpoint is remembered for one Service port with `sessionAffinity: ClientIP`.
const AFFINITIES: usize = 10_000;

/// One port of a Service and the endpoints behind it.
#[derive(Debug)]
pub(super) struct ServicePort {
    pub service: String,
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    pub endpoints: Vec<SocketAddr>,
    /// The next endpoint's index; kept when the Service changes, so that turns go on.
    next: Arc<AtomicUsize>,
    affinity: Option<Arc<Affinity>>,
}

#[derive(Debug)]
struct Affinity {
    timeout: Duration,
    chosen: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

impl ServicePort {
    /// The endpoints to try for a client, the best first; each is given once.
    pub fn choices(&self, client: IpAddr) -> impl Iterator<Item = SocketAddr> + '_ {
        let count = self.endpoints.len();
        let sticky =
            self.affinity.as_ref().and_then(|affinity| affinity.find(client)).filter(|e| self.endpoints.contains(e));
        let start = if sticky.is_some() || count == 0 { 0 } else { self.next.fetch_add(1, Ordering::Relaxed) % count };
        let turn = (0..count).filter_map(move |i| self.endpoints.get((start + i) % count).copied());
        sticky.into_iter().chain(turn.filter(move |endpoint| Some(*endpoint) != sticky))
    }

    /// Remembers which endpoint a client was given.
    pub fn chose(&self, client: IpAddr, endpoint: SocketAddr) {
        if let Some(affinity) = &self.affinity {
            affinity.remember(client, endpoint);
        }
    }
}

impl Affinity {
    fn find(&self, client: IpAddr) -> Option<SocketAddr> {
        let chosen = self.chosen.lock();
        chosen.get(&client).filter(|(_, at)| at.elapsed() < self.timeout).map(|(endpoint, _)| *endpoint)
    }

    fn remember(&self, client: IpAddr, endpoint: SocketAddr) {
        let mut chosen = self.chosen.lock();
        if chosen.len() >= AFFINITIES {
            chosen.retain(|_, (_, at)| at.elapsed() < self.timeout);
        }
        if chosen.len() < AFFINITIES {
            chosen.insert(client, (endpoint, Instant::now()));
        }
    }
}

/// Where the host reaches a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Frontend {
    Address(Ipv4Addr, u16),
    NodePort(u16),
}

/// A Service as names resolve to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    pub cluster_ip: Option<Ipv4Addr>,
    pub external_name: Option<String>,
    /// Ready endpoints' addresses and hostnames, for headless Services.
    pub endpoints: Arc<[(IpAddr, Option<String>)]>,
    pub ports: Arc<[Arc<ServicePort>]>,
}

#[derive(Default)]
struct Maps {
    named: HashMap<String, HashMap<String, Named>>,
    by_address: HashMap<(Protocol, Ipv4Addr, u16), Arc<ServicePort>>,
    by_node_port: HashMap<(Protocol, u16), Arc<ServicePort>>,
    /// How many Services have an address: two for a moment, when news of them come in another order.
    cluster_ips: HashMap<Ipv4Addr, usize>,
}

/// All Services.
#[derive(Default)]
pub(super) struct Services(RwLock<Maps>);

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("ports", &self.0.read().by_address.len()).finish()
    }
}

impl Services {
    pub fn by_address(&self, protocol: Protocol, address: Ipv4Addr, port: u16) -> Option<Arc<ServicePort>> {
        self.0.read().by_address.get(&(protocol, address, port)).cloned()
    }

    pub fn by_node_port(&self, protocol: Protocol, port: u16) -> Option<Arc<ServicePort>> {
        self.0.read().by_node_port.get(&(protocol, port)).cloned()
    }

    /// Whether a Service has this address, on whatever port.
    pub fn has_address(&self, address: Ipv4Addr) -> bool {
        self.0.read().cluster_ips.contains_key(&address)
    }

    /// Every TCP port of a Service that the host can be served on: node ports, and Service addresses of this machine's
    /// loopback. Addresses of other ranges are no machine's, so nothing can listen on them.
    pub fn frontends(&self) -> HashSet<Frontend> {
        let maps = self.0.read();
        let tcp = |protocol: Protocol| protocol == Protocol::Tcp;
        let addresses = maps
            .by_address
            .keys()
            .filter(|(p, address, _)| tcp(*p) && address.is_loopback())
            .map(|(_, address, port)| Frontend::Address(*address, *port));
        let node_ports = maps.by_node_port.keys().filter(|(p, _)| tcp(*p)).map(|(_, port)| Frontend::NodePort(*port));
        addresses.chain(node_ports).collect()
    }

    /// The Service port behind a frontend.
    pub fn behind(&self, frontend: Frontend) -> Option<Arc<ServicePort>> {
        match frontend {
            Frontend::Address(address, port) => self.by_address(Protocol::Tcp, address, port),
            Frontend::NodePort(port) => self.by_node_port(Protocol::Tcp, port),
        }
    }

    pub fn named(&self, namespace: &str, name: &str) -> Option<Named> {
        self.0.read().named.get(namespace).and_then(|services| services.get(name)).cloned()
    }

    /// Puts a Service in place, or takes it away (`None`).
    pub fn replace(&self, namespace: &str, name: &str, new: Option<Named>) {
        let mut maps = self.0.write();
        let services = maps.named.entry(namespace.to_owned()).or_default();
        let old = match new.clone() {
            Some(new) => services.insert(name.to_owned(), new),
            None => services.remove(name),
        };
        let old_address = old.as_ref().and_then(|old| old.cluster_ip);
        if let Some(address) = new.as_ref().and_then(|new| new.cluster_ip) {
            *maps.cluster_ips.entry(address).or_default() += 1;
        }
        if let Some(address) = old_address
            && let Entry::Occupied(mut count) = maps.cluster_ips.entry(address)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        for port in old.iter().flat_map(|old| old.ports.iter()) {
            if let Some(address) = old_address {
                remove(&mut maps.by_address, &(port.protocol, address, port.port), port);
            }
            if let Some(node_port) = port.node_port {
                remove(&mut maps.by_node_port, &(port.protocol, node_port), port);
            }
        }
        let Some(new) = new else { return };
        for port in new.ports.iter() {
            if let Some(address) = new.cluster_ip {
                maps.by_address.insert((port.protocol, address, port.port), port.clone());
            }
            if let Some(node_port) = port.node_port {
                maps.by_node_port.insert((port.protocol, node_port), port.clone());
            }
        }
    }

    /// Kubernetes' Service variables for the Services of a namespace, `default/kubernetes` always among them.
    pub fn environment(&self, namespace: &str) -> BTreeMap<String, String> {
        let maps = self.0.read();
        let mut env = BTreeMap::new();
        let kubernetes =
            maps.named.get("default").and_then(|all| all.get("kubernetes")).map(|named| ("kubernetes", named));
        let own = maps.named.get(namespace).into_iter().flatten().map(|(name, named)| (name.as_str(), named));
        for (name, named) in kubernetes.into_iter().chain(own) {
            variables(name, named, &mut env);
        }
        env
    }
}

/// Removes a port's entry, unless another Service has taken its place: news of the two come in any order after the watch
/// was interrupted.
fn remove<K: Eq + Hash>(map: &mut HashMap<K, Arc<ServicePort>>, key: &K, port: &Arc<ServicePort>) {
    if map.get(key).is_some_and(|found| Arc::ptr_eq(found, port)) {
        map.remove(key);
    }
}

/// `X_SERVICE_HOST`, `X_SERVICE_PORT[_NAME]` and Docker's `X_PORT…` variables.
fn variables(name: &str, named: &Named, env: &mut BTreeMap<String, String>) {
    let (Some(address), Some(first)) = (named.cluster_ip, named.ports.first()) else { return };
    let prefix = variable(name);
    env.insert(format!("{prefix}_SERVICE_HOST"), address.to_string());
    env.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    let word = |protocol| if protocol == Protocol::Udp { "udp" } else { "tcp" };
    env.insert(format!("{prefix}_PORT"), format!("{}://{address}:{}", word(first.protocol), first.port));
    for port in named.ports.iter() {
        if !port.name.is_empty() {
            env.insert(format!("{prefix}_SERVICE_PORT_{}", variable(&port.name)), port.port.to_string());
        }
        let word = word(port.protocol);
        let base = format!("{prefix}_PORT_{}_{}", port.port, word.to_uppercase());
        env.insert(base.clone(), format!("{word}://{address}:{}", port.port));
        env.insert(format!("{base}_PROTO"), word.to_owned());
        env.insert(format!("{base}_PORT"), port.port.to_string());
        env.insert(format!("{base}_ADDR"), address.to_string());
    }
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}
