//! What objects use of the resources that a ResourceQuota limits, and which quotas an object falls under. No I/O.
//!
//! Admission charges with it, and the controller recalculates with it: both must count alike.

mod pods;
mod scopes;

use std::collections::BTreeMap;

use serde_json::Value;
use wherry_api::kinds::core::podspec::busiest::Amounts;
use wherry_api::object;
use wherry_api::quantity::Quantity;

pub use self::pods::missing;
pub use self::scopes::selects;

/// Amounts by resource, as `status.used` has them.
pub type Usage = BTreeMap<String, Quantity>;

/// Kinds of the core group that quotas also know by their plural alone.
const BY_PLURAL: [&str; 6] =
    ["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];

/// `count/deployments.apps`.
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// The group and plural that a resource of a quota counts objects of; `None`: it measures something else about them.
pub fn counted(resource: &str) -> Option<(&str, &str)> {
    if BY_PLURAL.contains(&resource) {
        return Some(("", resource));
    }
    let kind = resource.strip_prefix("count/")?;
    Some(kind.split_once('.').map_or(("", kind), |(plural, group)| (group, plural)))
}

/// What one object uses.
pub fn usage(group: &str, plural: &str, object: &Value, now: jiff::Timestamp) -> Usage {
    let one = Quantity::from_units(1);
    let mut used = Usage::from([(count_name(group, plural), one)]);
    if !group.is_empty() {
        return used;
    }
    if BY_PLURAL.contains(&plural) {
        used.insert(plural.to_owned(), one);
    }
    match plural {
        "pods" => used.extend(pods::usage(object, now)),
        "services" => used.extend(of_service(object)),
        "persistentvolumeclaims" => used.extend(of_claim(object)),
        _ => {}
    }
    used
}

/// Whether an update can change what an object uses.
pub fn measured(group: &str, plural: &str, subresource: &str) -> bool {
    group.is_empty()
        && matches!((plural, subresource), ("services" | "persistentvolumeclaims", "") | ("pods", "resize"))
}

fn of_service(service: &Value) -> Usage {
    let ports = object::at(service, "spec.ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let count = |ports: usize| Quantity::from_units(i64::try_from(ports).unwrap_or(i64::MAX));
    let chosen = object::at(service, "spec.allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let asked = || ports.iter().filter(|port| port.get("nodePort").and_then(Value::as_i64).unwrap_or_default() != 0);
    match object::text_at(service, "spec.type").as_str() {
        "NodePort" => Usage::from([("services.nodeports".to_owned(), count(ports.len()))]),
        "LoadBalancer" => {
            let mut used = Usage::from([("services.loadbalancers".to_owned(), Quantity::from_units(1))]);
            let opened = if chosen { ports.len() } else { asked().count() };
            if opened > 0 {
                used.insert("services.nodeports".to_owned(), count(opened));
            }
            used
        }
        _ => Usage::new(),
    }
}

fn of_claim(claim: &Value) -> Usage {
    const STORAGE: &str = "requests.storage";
    const CLAIMS: &str = "persistentvolumeclaims";
    let asked = quantity(object::at(claim, "spec.resources.requests.storage"));
    let mut used = Usage::from([(STORAGE.to_owned(), asked)]);
    let class = match object::annotation(claim, "volume.beta.kubernetes.io/storage-class") {
        Some(class) => class.to_owned(),
        None => object::text_at(claim, "spec.storageClassName"),
    };
    if !class.is_empty() {
        let of_class = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{of_class}/{STORAGE}"), asked);
        used.insert(format!("{of_class}/{CLAIMS}"), Quantity::from_units(1));
    }
    used
}

/// An amount that has been judged before; what is none is nothing.
pub fn quantity(amount: Option<&Value>) -> Quantity {
    match amount {
        Some(Value::String(text)) => text.parse().unwrap_or(Quantity::ZERO),
        Some(value @ Value::Number(_)) => value.to_string().parse().unwrap_or(Quantity::ZERO),
        _ => Quantity::ZERO,
    }
}

/// The amounts of a map.
pub fn amounts(map: Option<&Value>) -> Usage {
    let map = map.and_then(Value::as_object);
    map.into_iter().flatten().map(|(name, amount)| (name.clone(), quantity(Some(amount)))).collect()
}

/// Adds each amount of `more`.
pub fn add(total: &mut Usage, more: &Usage) {
    Amounts::add(total, more);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used(plural: &str, object: &Value) -> Vec<(String, String)> {
        usage("", plural, object, jiff::Timestamp::UNIX_EPOCH)
            .into_iter()
            .map(|(name, amount)| (name, amount.to_string()))
            .collect()
    }

    fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned())).collect()
    }

    #[test]
    fn a_service_uses_its_node_ports() {
        let ports = json!([{"port": 1}, {"port": 2}]);
        assert_eq!(
            used("services", &json!({"spec": {"type": "LoadBalancer", "ports": ports}})),
            of(&[
                ("count/services", "1"),
                ("services", "1"),
                ("services.loadbalancers", "1"),
                ("services.nodeports", "2")
            ])
        );
        let closed = json!({"spec": {"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}});
        assert_eq!(used("services", &closed).len(), 3);
        let ports = json!([{"port": 1, "nodePort": 30001}, {"port": 2}]);
        let asked = json!({"spec": {"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}});
        assert!(used("services", &asked).contains(&("services.nodeports".to_owned(), "1".to_owned())));
        assert_eq!(
            used("services", &json!({"spec": {"ports": ports}})),
            of(&[("count/services", "1"), ("services", "1")])
        );
    }

    #[test]
    fn a_claim_uses_storage_in_all_and_of_its_class() {
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            used("persistentvolumeclaims", &claim),
            of(&[
                ("count/persistentvolumeclaims", "1"),
                ("gold.storageclass.storage.k8s.io/persistentvolumeclaims", "1"),
                ("gold.storageclass.storage.k8s.io/requests.storage", "2Gi"),
                ("persistentvolumeclaims", "1"),
                ("requests.storage", "2Gi"),
            ])
        );
    }

    #[test]
    fn a_count_names_the_kind_that_it_counts() {
        for (resource, kind) in [
            ("count/deployments.apps", Some(("apps", "deployments"))),
            ("count/pods", Some(("", "pods"))),
            ("secrets", Some(("", "secrets"))),
            ("pods", None),
            ("requests.cpu", None),
        ] {
            assert_eq!(counted(resource), kind, "{resource}");
            if let Some((group, plural)) = kind.filter(|_| resource.starts_with("count/")) {
                assert_eq!(count_name(group, plural), resource);
            }
        }
    }
}
