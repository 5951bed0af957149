//! What a Service has of addresses and ports, and what it needs. What an update leaves out, the kind's strategy has kept.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;

use super::Item;

fn spec_text<'a>(service: &'a Value, field: &str) -> &'a str {
    service.get("spec").and_then(|s| s.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn service_type(service: &Value) -> &str {
    match spec_text(service, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

pub(super) fn cluster_ip(service: &Value) -> &str {
    match spec_text(service, "clusterIP") {
        "" => service.pointer("/spec/clusterIPs/0").and_then(Value::as_str).unwrap_or_default(),
        address => address,
    }
}

/// Whether the Service has an address of its own: it is neither a name only nor headless.
pub(super) fn needs_address(service: &Value) -> bool {
    service_type(service) != "ExternalName" && cluster_ip(service) != "None"
}

/// Whether the nodes open the node ports that it names.
pub(super) fn has_node_ports(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

/// Whether ports are chosen for it where it names none.
pub(super) fn needs_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

pub(super) fn node_port(port: &Value) -> Option<i64> {
    port.get("nodePort").and_then(Value::as_i64).filter(|p| *p != 0)
}

pub(super) fn ports(service: &Value) -> &[Value] {
    service.pointer("/spec/ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The node ports that a Service's ports have, for those of other protocols to share. Made once for a Service: it may have
/// thousands of ports.
pub(super) struct Shared {
    of_port: HashMap<i64, BTreeSet<i64>>,
    taken: HashSet<(String, i64)>,
}

impl Shared {
    pub(super) fn of(ports: &[Value]) -> Self {
        let mut shared = Self { of_port: HashMap::new(), taken: HashSet::new() };
        for port in ports {
            if let Some(number) = node_port(port) {
                shared.add(port, number);
            }
        }
        shared
    }

    /// The node port that this port, which has none, has in common with another protocol of the same port.
    pub(super) fn find(&self, port: &Value) -> Option<i64> {
        let numbers = self.of_port.get(&number_of(port))?;
        numbers.iter().find(|number| !self.taken.contains(&(protocol(port), **number))).copied()
    }

    pub(super) fn add(&mut self, port: &Value, number: i64) {
        self.of_port.entry(number_of(port)).or_default().insert(number);
        self.taken.insert((protocol(port), number));
    }
}

fn number_of(port: &Value) -> i64 {
    port.get("port").and_then(Value::as_i64).unwrap_or_default()
}

fn protocol(port: &Value) -> String {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned()
}

/// Whether a load balancer asks the nodes which of them have pods.
pub(super) fn needs_health_check(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && spec_text(service, "externalTrafficPolicy") == "Local"
}

/// The port of the nodes where that is asked.
pub(super) fn health_port(service: &Value) -> Option<i64> {
    service.pointer("/spec/healthCheckNodePort").and_then(Value::as_i64).filter(|p| *p != 0)
}

pub(super) fn items(service: &Value) -> Vec<Item> {
    let address = needs_address(service).then(|| cluster_ip(service).parse().ok()).flatten().map(Item::Address);
    let ports = ports(service).iter().filter(|_| has_node_ports(service)).filter_map(node_port);
    let health = health_port(service).filter(|_| needs_health_check(service));
    let ports = ports.chain(health).filter_map(|p| u16::try_from(p).ok()).map(Item::Port);
    address.into_iter().chain(ports).collect()
}

/// IP families: this cluster has IPv4.
pub(super) fn families(service: &mut Value, errors: &mut ErrorList) {
    if service_type(service) == "ExternalName" {
        return;
    }
    let spec = Path::new("spec");
    let list = |field: &str| object::at(service, field).and_then(Value::as_array).cloned().unwrap_or_default();
    let (asked, addresses) = (list("spec.ipFamilies"), list("spec.clusterIPs"));
    let policy = spec_text(service, "ipFamilyPolicy");
    if policy == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(&spec.child("ipFamilyPolicy"), &json!(policy), detail);
    }
    if addresses.len() > 1 && matches!(policy, "" | "SingleStack") {
        let detail = "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified";
        errors.invalid(&spec.child("ipFamilyPolicy"), &json!("SingleStack"), detail);
    }
    for (index, family) in asked.iter().enumerate().filter(|(_, f)| **f != json!("IPv4")) {
        errors.invalid(&spec.child("ipFamilies").index(index), family, "not configured on this cluster");
    }
    // Where no family is named, the address tells it.
    let named = |index: usize| index < asked.len();
    let single = [json!(cluster_ip(service))];
    let told = if addresses.is_empty() { &single[..] } else { &addresses };
    for (index, _) in told.iter().enumerate().filter(|(index, address)| !named(*index) && is_ipv6(address)) {
        let path = spec.child("clusterIPs").index(index);
        errors.invalid(&path, &json!(told), "IPv6 is not configured on this cluster");
    }
    if asked.is_empty() {
        object::set_at(service, "spec.ipFamilies", json!(["IPv4"]));
    }
    if spec_text(service, "ipFamilyPolicy").is_empty() {
        object::set_at(service, "spec.ipFamilyPolicy", "SingleStack");
    }
    if cluster_ip(service) == "None" {
        object::set_at(service, "spec.clusterIP", "None");
        object::set_at(service, "spec.clusterIPs", json!(["None"]));
    }
}

fn is_ipv6(address: &Value) -> bool {
    address.as_str().is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}
