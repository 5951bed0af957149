//! What a Service has of addresses and ports, what it needs, and what an update that leaves it out keeps.

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

pub(super) fn items(service: &Value) -> Vec<Item> {
    let address = needs_address(service).then(|| cluster_ip(service).parse().ok()).flatten().map(Item::Address);
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).filter(|_| has_node_ports(service));
    let ports = ports.into_iter().flatten().filter_map(node_port).filter_map(|p| u16::try_from(p).ok()).map(Item::Port);
    address.into_iter().chain(ports).collect()
}

/// What an update leaves out stays as it was; what the new type has no use for goes.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    if service_type(new) == "ExternalName" {
        if cluster_ip(new) == cluster_ip(old) {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                object::set_at(new, &format!("spec.{field}"), Value::Null);
            }
        }
    } else if service_type(old) != "ExternalName" && cluster_ip(new).is_empty() {
        object::set_at(new, "spec.clusterIP", cluster_ip(old));
        object::set_at(new, "spec.clusterIPs", json!([cluster_ip(old)]));
    }
    let (had, needs) = (needs_node_ports(old), needs_node_ports(new));
    let old_ports = old.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(ports) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
    let same = |a: &Value, b: &Value| a.get("port") == b.get("port") && a.get("protocol") == b.get("protocol");
    for port in ports {
        let before = old_ports.iter().find(|p| same(p, port)).and_then(node_port);
        if had && needs && node_port(port).is_none() {
            if let Some(before) = before {
                object::set_at(port, "nodePort", before);
            }
        } else if had && !needs && node_port(port) == before {
            object::set_at(port, "nodePort", Value::Null);
        }
    }
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
