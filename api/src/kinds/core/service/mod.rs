//! Service: one address for many pods.
//!
//! Addresses and node ports are given out by the API server's allocators, between defaulting and validation; here is
//! only what an object says by itself.

mod columns;
mod rules;
mod update;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::kinds::deprecated;
use crate::kinds::tree::{fill, int, is_true, list, list_mut, object, remove, set, some, split_status, text};
use crate::resource::{Descriptor, PROXY};
use crate::strategy::{NameRule, Part, Strategy};

const CLIENT_IP_SECONDS: i64 = 10800;
/// Told to who makes a load balancer.
const PENDING: &str = "spec.type: a Service of type LoadBalancer gets no external address here yet; its cluster address and its node ports work";

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Service>()
        .short(&["svc"])
        .categories(&["all"])
        .create_on_update()
        .status()
        .named("proxy", "ServiceProxyOptions", PROXY)
        .columns(columns::columns())
        .selectable(&["spec.clusterIP", "spec.type"])
        .no_generation()
        .returns_deleted()
        .strategy(ServiceStrategy)
}

#[derive(Debug)]
struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut all = deprecated::of_service(object);
        // Another program may give addresses.
        let served = some(object, "/spec/loadBalancerClass").is_some()
            || !list(object, "/status/loadBalancer/ingress").is_empty();
        if text(object, "/spec/type") == "LoadBalancer" && !served {
            all.push(PENDING.to_owned());
        }
        all
    }

    fn prepare_create(&self, service: &mut Value) {
        set(service, "status", json!({"loadBalancer": {}}));
    }

    fn default(&self, service: &mut Value) {
        let Some(spec) = object(service, "spec") else { return };
        fill(spec, "type", "ClusterIP");
        fill(spec, "sessionAffinity", "None");
        default_affinity(spec);
        default_ports(spec);
        default_traffic(spec);
        default_addresses(spec);
        default_ingress(service);
    }

    fn validate(&self, service: &Value, errors: &mut ErrorList) {
        rules::validate(service, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
        if part == Part::Main
            && let (Some(spec), Some(old)) = (new.get_mut("spec"), old.get("spec"))
        {
            update::keep_allocated(spec, old);
            default_addresses(spec);
            update::drop_foreign(spec, old);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        match part {
            Part::Main => {
                errors.judge_change(new, old, rules::validate);
                update::validate(new, old, errors);
            }
            Part::Status => rules::validate_load_balancer(new, errors),
            Part::Named(_) => {}
        }
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Dns1035Label
    }
}

fn default_affinity(spec: &mut Value) {
    match text(spec, "/sessionAffinity") {
        "ClientIP" if int(spec, "/sessionAffinityConfig/clientIP/timeoutSeconds").is_none() => {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": CLIENT_IP_SECONDS}}));
        }
        "None" => drop(remove(spec, "sessionAffinityConfig")),
        _ => {}
    }
}

fn default_ports(spec: &mut Value) {
    for port in list_mut(spec, "ports") {
        fill(port, "protocol", "TCP");
        let unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(target) => target.as_i64() == Some(0) || target.as_str() == Some(""),
        };
        if unset && let Some(number) = port.get("port").cloned() {
            set(port, "targetPort", number);
        }
    }
}

fn default_traffic(spec: &mut Value) {
    if externally_accessible(spec) {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if has_address(spec) {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if is_balanced(spec) {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// What sends traffic to an address of a load balancer sends it as it came, if nothing else is said.
fn default_ingress(service: &mut Value) {
    let ingress = service.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
    for ingress in ingress.into_iter().flatten().filter(|ingress| !text(ingress, "/ip").is_empty()) {
        fill(ingress, "ipMode", "VIP");
    }
}

fn externally_accessible(spec: &Value) -> bool {
    has_node_ports(spec) || text(spec, "/type") == "ClusterIP" && !list(spec, "/externalIPs").is_empty()
}

/// One family, IPv4; and whoever gives one form of the address gets both.
fn default_addresses(spec: &mut Value) {
    if !has_address(spec) {
        return;
    }
    fill(spec, "ipFamilyPolicy", "SingleStack");
    if list(spec, "/ipFamilies").is_empty() {
        set(spec, "ipFamilies", json!(["IPv4"]));
    }
    let ip = text(spec, "/clusterIP").to_owned();
    let first = text(spec, "/clusterIPs/0").to_owned();
    if first.is_empty() && !ip.is_empty() {
        set(spec, "clusterIPs", json!([ip]));
    } else if ip.is_empty() && !first.is_empty() {
        set(spec, "clusterIP", first);
    }
}

fn has_address(spec: &Value) -> bool {
    text(spec, "/type") != "ExternalName"
}

fn is_balanced(spec: &Value) -> bool {
    text(spec, "/type") == "LoadBalancer"
}

/// Whether a load balancer asks nodes which of them have pods.
fn needs_health_check(spec: &Value) -> bool {
    is_balanced(spec) && text(spec, "/externalTrafficPolicy") == "Local"
}

/// Whether a Service has no address of its own.
fn headless(spec: &Value) -> bool {
    text(spec, "/clusterIP") == "None" || text(spec, "/clusterIPs/0") == "None"
}

/// Whether the nodes open the node ports that it names.
fn has_node_ports(spec: &Value) -> bool {
    matches!(text(spec, "/type"), "LoadBalancer" | "NodePort")
}

/// Whether node ports are chosen where it names none.
fn needs_node_ports(spec: &Value) -> bool {
    match text(spec, "/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            some(spec, "/allocateLoadBalancerNodePorts").is_none() || is_true(spec, "/allocateLoadBalancerNodePorts")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_service_gets_kubernetes_defaults_once() {
        let mut service = json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
        ServiceStrategy.default(&mut service);
        let expected = json!({"spec": {
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "selector": {"a": "b"},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]
        }});
        assert_eq!(service, expected);
        ServiceStrategy.default(&mut service);
        assert_eq!(service, expected);
    }

    #[test]
    fn whoever_makes_a_load_balancer_is_told_that_it_stays_pending() {
        let warned = |spec: Value, status: Value| ServiceStrategy.warnings(&json!({"spec": spec, "status": status}));
        assert_eq!(warned(json!({"type": "LoadBalancer"}), json!({})), [PENDING]);
        assert_eq!(warned(json!({"type": "NodePort"}), json!({})), [""; 0]);
        assert_eq!(warned(json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"}), json!({})), [""; 0]);
        let given = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        assert_eq!(warned(json!({"type": "LoadBalancer"}), given), [""; 0]);
    }

    #[test]
    fn either_form_of_the_address_gives_the_other() {
        let mut service = json!({"spec": {"clusterIP": "None"}});
        ServiceStrategy.default(&mut service);
        assert_eq!(service["spec"]["clusterIPs"], json!(["None"]));
    }

    #[test]
    fn sticky_clients_stick_for_three_hours() {
        let mut service = json!({"spec": {"sessionAffinity": "ClientIP"}});
        ServiceStrategy.default(&mut service);
        assert_eq!(service["spec"]["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
}
