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

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::{Mutex, RwLock};

use super::Protocol;

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

/// Builds what the table holds of a Service from the objects. `old` gives the turn counters; `node` is this node's name,
/// for traffic policies.
pub(super) fn build(service: &Service, slices: &[EndpointSlice], node: &str, old: Option<&Named>) -> Named {
    let spec = service.spec.clone().unwrap_or_default();
    let full = format!("{}/{}", text(service.metadata.namespace.as_ref()), text(service.metadata.name.as_ref()));
    if spec.type_.as_deref() == Some("ExternalName") {
        return Named { external_name: spec.external_name, ..Named::default() };
    }
    let local_only = spec.internal_traffic_policy.as_deref() == Some("Local")
        || spec.external_traffic_policy.as_deref() == Some("Local");
    let endpoints = usable(slices, local_only.then_some(node));
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let configured =
            spec.session_affinity_config.and_then(|c| c.client_ip).and_then(|c| c.timeout_seconds).unwrap_or(10_800);
        Duration::from_secs(u64::try_from(configured).unwrap_or(10_800))
    });
    let specified = spec.ports.unwrap_or_default();
    let opens = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    let names: Vec<&str> = specified.iter().map(|port| text(port.name.as_ref())).collect();
    // Where Kubernetes writes the slices, by the Service's selector.
    let follows = spec.selector.is_some_and(|selector| !selector.is_empty());
    let ports = specified.iter().filter_map(|port| {
        let name = port.name.clone().unwrap_or_default();
        let before = old.and_then(|old| old.ports.iter().find(|p| p.name == name));
        let stale = follows.then(|| Stale { target: target(port), names: &names });
        Some(Arc::new(ServicePort {
            service: full.clone(),
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| opens && *p != 0),
            endpoints: addresses(slices, &name, stale.as_ref(), local_only.then_some(node)),
            next: before.map_or_else(Arc::default, |p| p.next.clone()),
            affinity: affinity.map(|timeout| {
                let kept = before.and_then(|p| p.affinity.clone()).filter(|a| a.timeout == timeout);
                kept.unwrap_or_else(|| Arc::new(Affinity { timeout, chosen: Mutex::default() }))
            }),
            name,
        }))
    });
    Named {
        ports: ports.collect(),
        cluster_ip: spec.cluster_ip.and_then(|ip| ip.parse().ok()),
        external_name: None,
        endpoints: endpoints.into(),
    }
}

fn text(value: Option<&String>) -> &str {
    value.map_or("", String::as_str)
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// Ready endpoints of the slices with their hostnames, on `node` only if given.
fn usable(slices: &[EndpointSlice], node: Option<&str>) -> Vec<(IpAddr, Option<String>)> {
    let ready =
        slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).filter(|endpoint| is_usable(endpoint, node));
    ready.flat_map(|e| e.addresses.iter().filter_map(|a| Some((a.parse().ok()?, e.hostname.clone())))).collect()
}

fn is_usable(endpoint: &k8s_openapi::api::discovery::v1::Endpoint, node: Option<&str>) -> bool {
    let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
    ready && node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node))
}

/// How a slice is read that does not know a port's new name yet: by the number of the pods' port, under a name that the Service
/// no longer has. Otherwise a Service would answer nobody between a change of names and its slices'.
struct Stale<'a> {
    target: Option<i32>,
    names: &'a [&'a str],
}

impl Stale<'_> {
    fn is(&self, port: &EndpointPort) -> bool {
        port.port == self.target && !self.names.contains(&text(port.name.as_ref()))
    }
}

/// The number of the pods' port, if the Service gives one.
fn target(port: &k8s_openapi::api::core::v1::ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(_)) => None,
    }
}

/// Ready endpoints of one named port.
fn addresses(
    slices: &[EndpointSlice],
    port_name: &str,
    stale: Option<&Stale<'_>>,
    node: Option<&str>,
) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        let ports = || slice.ports.iter().flatten();
        let port = ports().find(|port| text(port.name.as_ref()) == port_name);
        let port =
            port.or_else(|| ports().find(|port| port.port.is_some() && stale.is_some_and(|stale| stale.is(port))));
        let Some(port) = port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else { continue };
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| is_usable(endpoint, node));
        found.extend(
            ready.flat_map(|e| &e.addresses).filter_map(|a| a.parse::<IpAddr>().ok()).map(|a| SocketAddr::new(a, port)),
        );
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})).unwrap()
    }

    fn slice(addresses: &[(&str, bool)]) -> EndpointSlice {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|(a, ready)| json!({"addresses": [a], "nodeName": "n1", "conditions": {"ready": ready}}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}))
        .unwrap()
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([127, 64, 0, last])
    }

    #[test]
    fn connections_take_turns_among_ready_endpoints_only() {
        let service = service(json!({"clusterIP": "127.1.0.9", "ports": [{"name": "http", "port": 80}]}));
        let named =
            build(&service, &[slice(&[("127.64.0.1", true), ("127.64.0.2", false), ("127.64.0.3", true)])], "n1", None);
        let firsts: Vec<_> = (0..4).map(|_| named.ports[0].choices(client(9)).next().unwrap().to_string()).collect();
        assert_eq!(firsts, ["127.64.0.1:8080", "127.64.0.3:8080", "127.64.0.1:8080", "127.64.0.3:8080"]);
        assert_eq!(named.ports[0].choices(client(9)).count(), 2);
    }

    #[test]
    fn a_port_with_a_new_name_keeps_its_endpoints_until_the_slices_follow() {
        let renamed = |spec: serde_json::Value| {
            let named = build(&service(spec), &[slice(&[("127.64.0.1", true)])], "n1", None);
            named.ports.iter().map(|port| port.endpoints.len()).collect::<Vec<_>>()
        };
        let main = json!({"name": "main", "port": 80, "targetPort": 8080});
        let http = json!({"name": "http", "port": 81, "targetPort": 8080});
        assert_eq!(renamed(json!({"selector": {"app": "web"}, "ports": [main]})), [1]);
        assert_eq!(
            renamed(json!({"selector": {"app": "web"}, "ports": [main, http]})),
            [0, 1],
            "the name is not stale"
        );
        assert_eq!(renamed(json!({"ports": [main]})), [0], "slices that a person writes mean what they say");
        let other = json!({"name": "main", "port": 80, "targetPort": 9090});
        assert_eq!(renamed(json!({"selector": {"app": "web"}, "ports": [other]})), [0]);
    }

    #[test]
    fn a_client_with_affinity_stays_with_its_endpoint() {
        let spec =
            json!({"clusterIP": "127.1.0.9", "sessionAffinity": "ClientIP", "ports": [{"name": "http", "port": 80}]});
        let named = build(&service(spec), &[slice(&[("127.64.0.1", true), ("127.64.0.2", true)])], "n1", None);
        let port = &named.ports[0];
        let chosen = port.choices(client(9)).next().unwrap();
        port.chose(client(9), chosen);
        assert!((0..5).all(|_| port.choices(client(9)).next() == Some(chosen)));
    }

    #[test]
    fn a_local_policy_leaves_out_other_nodes() {
        let spec = json!({"clusterIP": "127.1.0.9", "internalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80}]});
        let slices = [slice(&[("127.64.0.1", true)])];
        assert_eq!(build(&service(spec.clone()), &slices, "n1", None).ports[0].endpoints.len(), 1);
        assert_eq!(build(&service(spec), &slices, "n2", None).ports[0].endpoints.len(), 0);
    }

    #[test]
    fn a_replaced_service_leaves_nothing_of_itself_behind() {
        let services = Services::default();
        let with = |spec| build(&service(spec), &[], "n1", None);
        services.replace(
            "shop",
            "web",
            Some(with(json!({"clusterIP": "127.1.0.9", "ports": [{"port": 80, "nodePort": 30001}]}))),
        );
        services.replace("shop", "web", Some(with(json!({"clusterIP": "127.1.0.9", "ports": [{"port": 81}]}))));
        let address = Ipv4Addr::new(127, 1, 0, 9);
        assert!(
            services.by_address(Protocol::Tcp, address, 80).is_none()
                && services.by_node_port(Protocol::Tcp, 30001).is_none()
        );
        assert!(services.by_address(Protocol::Tcp, address, 81).is_some());
        services.replace("shop", "web", None);
        assert!(services.by_address(Protocol::Tcp, address, 81).is_none() && services.named("shop", "web").is_none());
    }

    #[test]
    fn the_host_is_served_on_addresses_of_loopback_and_guests_on_all() {
        let services = Services::default();
        let with =
            |address| Some(build(&service(json!({"clusterIP": address, "ports": [{"port": 80}]})), &[], "n1", None));
        services.replace("shop", "near", with("127.1.0.9"));
        services.replace("shop", "far", with("203.0.113.9"));
        let (near, far) = (Ipv4Addr::new(127, 1, 0, 9), Ipv4Addr::new(203, 0, 113, 9));
        assert_eq!(services.frontends(), HashSet::from([Frontend::Address(near, 80)]));
        assert!(services.by_address(Protocol::Tcp, far, 80).is_some() && services.has_address(far));
        services.replace("shop", "far", None);
        assert!(!services.has_address(far) && services.has_address(near));
    }

    #[test]
    fn a_service_that_goes_late_leaves_its_successor_s_port_alone() {
        let services = Services::default();
        let with = |address| {
            let spec = json!({"type": "NodePort", "clusterIP": address, "ports": [{"port": 80, "nodePort": 30001}]});
            Some(build(&service(spec), &[], "n1", None))
        };
        services.replace("shop", "old", with("127.1.0.9"));
        services.replace("shop", "new", with("127.1.0.9"));
        services.replace("shop", "old", None);
        assert!(services.by_node_port(Protocol::Tcp, 30001).is_some());
        assert!(services.by_address(Protocol::Tcp, Ipv4Addr::new(127, 1, 0, 9), 80).is_some());
    }

    #[test]
    fn the_environment_has_kubernetes_variables() {
        let services = Services::default();
        let named = build(
            &service(json!({"clusterIP": "127.1.0.9", "ports": [{"name": "http", "port": 80}]})),
            &[],
            "n1",
            None,
        );
        services.replace("shop", "my-web", Some(named));
        let env = services.environment("shop");
        for (key, value) in [
            ("MY_WEB_SERVICE_HOST", "127.1.0.9"),
            ("MY_WEB_SERVICE_PORT", "80"),
            ("MY_WEB_SERVICE_PORT_HTTP", "80"),
            ("MY_WEB_PORT", "tcp://127.1.0.9:80"),
            ("MY_WEB_PORT_80_TCP_ADDR", "127.1.0.9"),
        ] {
            assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(services.environment("other").is_empty());
    }
}
