//! What an update of a Service keeps: addresses and ports that were given out, as long as the type still has them.

use serde_json::{Value, json};

use super::{
    externally_accessible, has_address, has_node_ports, headless, is_balanced, needs_health_check, needs_node_ports,
};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{carry, int, list, list_mut, remove, set, some, text};

/// An update that leaves allocated values out keeps them.
pub(super) fn keep_allocated(spec: &mut Value, old: &Value) {
    if has_address(spec) && has_address(old) {
        if text(spec, "/clusterIP").is_empty() && list(spec, "/clusterIPs").is_empty() {
            carry(spec, old, "clusterIP");
            carry(spec, old, "clusterIPs");
        } else if text(spec, "/clusterIP") != text(old, "/clusterIP")
            && list(spec, "/clusterIPs") == list(old, "/clusterIPs")
        {
            // Only the one form was changed: the other follows.
            remove(spec, "clusterIPs");
        }
    }
    if needs_node_ports(spec) && needs_node_ports(old) {
        let asked: Vec<i64> = node_ports(spec).collect();
        for port in list_mut(spec, "ports") {
            if int(port, "/nodePort").unwrap_or_default() == 0
                && let Some(number) = allocated(port, old).filter(|number| !asked.contains(number))
            {
                set(port, "nodePort", number);
            }
        }
    }
    if int(spec, "/healthCheckNodePort").unwrap_or_default() == 0 && needs_health_check(spec) {
        carry(spec, old, "healthCheckNodePort");
    }
}

fn node_ports(spec: &Value) -> impl Iterator<Item = i64> {
    list(spec, "/ports").iter().filter_map(|port| int(port, "/nodePort")).filter(|number| *number != 0)
}

/// The node port that the port of the same name had, whatever else of it has changed.
fn allocated(port: &Value, old: &Value) -> Option<i64> {
    let same = |before: &&Value| text(before, "/name") == text(port, "/name");
    list(old, "/ports").iter().find(same).and_then(|before| int(before, "/nodePort")).filter(|n| *n != 0)
}

type Need = fn(&Value) -> bool;

/// Fields by what needs them.
const NEEDED: [(Need, &[&str]); 4] = [
    (has_address, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]),
    (externally_accessible, &["externalTrafficPolicy"]),
    (needs_health_check, &["healthCheckNodePort"]),
    (is_balanced, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]),
];

/// Drops what was needed before and is not now, unless the update sets it itself.
pub(super) fn drop_foreign(spec: &mut Value, old: &Value) {
    let now = spec.clone();
    let lost = |needs: Need| needs(old) && !needs(&now);
    for (_, fields) in NEEDED.iter().filter(|(needs, _)| lost(*needs)) {
        for field in fields.iter().filter(|field| now.get(field) == old.get(field)) {
            remove(spec, field);
        }
    }
    let had: Vec<i64> = node_ports(old).collect();
    if lost(has_node_ports) && node_ports(spec).all(|number| had.contains(&number)) {
        for port in list_mut(spec, "ports") {
            remove(port, "nodePort");
        }
    }
}

/// An address that was given out does not change, nor who balances and where health is asked.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut ErrorList) {
    let null = Value::Null;
    let (spec, before) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    validate_balanced(spec, before, errors);
    if !has_address(spec) || !has_address(before) {
        return;
    }
    let (now, was) = (text(spec, "/clusterIP"), text(before, "/clusterIP"));
    let path = Path::new("spec").child("clusterIPs").index(0);
    if !was.is_empty() && now != was {
        errors.invalid(&path, &json!(list(spec, "/clusterIPs")), "may not change once set");
    }
    if headless(before) != headless(spec) && was.is_empty() {
        errors.invalid(&path, &json!(list(spec, "/clusterIPs")), "may not change once set");
    }
}

fn validate_balanced(spec: &Value, before: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let class = |spec: &Value| some(spec, "/loadBalancerClass").cloned();
    if is_balanced(spec) && is_balanced(before) && class(spec) != class(before) {
        let now = class(spec).unwrap_or_default();
        errors.invalid(&path.child("loadBalancerClass"), &now, "may not change once set");
    }
    let port = |spec: &Value| int(spec, "/healthCheckNodePort").unwrap_or_default();
    let (now, was) = (port(spec), port(before));
    if needs_health_check(spec) && needs_health_check(before) && was != 0 && now != was {
        errors.invalid(&path.child("healthCheckNodePort"), &json!(now), "field is immutable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::{Part, Strategy};

    fn updated(mut new: Value, old: &Value) -> (Value, Vec<String>) {
        let strategy = super::super::ServiceStrategy;
        strategy.default(&mut new);
        strategy.prepare_update(&mut new, old, Part::Main);
        let mut errors = ErrorList::default();
        strategy.validate_update(&new, old, Part::Main, &mut errors);
        (new, errors.iter().map(ToString::to_string).collect())
    }

    fn old() -> Value {
        let mut old =
            json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30001}]}});
        super::super::ServiceStrategy.default(&mut old);
        old
    }

    #[test]
    fn what_an_update_leaves_out_stays() {
        let (new, errors) = updated(json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}}), &old());
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.1"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], json!(30001));
    }

    #[test]
    fn a_node_port_stays_with_its_ports_name() {
        let port =
            |name: &str, number: u16, protocol: &str| json!({"name": name, "port": number, "protocol": protocol});
        let (mut tcp, mut udp) = (port("tcp", 53, "TCP"), port("udp", 53, "UDP"));
        let service = |ports: Value| json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": ports}});
        let kept = |ports: Value, old: &Value| -> Vec<Option<i64>> {
            let (new, errors) = updated(service(ports), old);
            assert_eq!(errors, Vec::<String>::new());
            list(&new, "/spec/ports").iter().map(|port| int(port, "/nodePort")).collect()
        };
        (tcp["nodePort"], udp["nodePort"]) = (json!(30053), json!(30053));
        let old = service(json!([tcp, udp]));
        let both = json!([port("udp", 53, "UDP"), port("tcp", 1053, "TCP")]);
        assert_eq!(kept(both, &old), [Some(30053), Some(30053)]);
        tcp["name"] = json!("renamed");
        assert_eq!(kept(json!([tcp, port("udp", 53, "UDP")]), &old), [Some(30053), None], "it is asked for by another");
    }

    #[test]
    fn node_ports_stay_when_a_load_balancer_has_none_chosen_any_more() {
        let balanced = |chooses: bool| {
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1",
            "allocateLoadBalancerNodePorts": chooses, "ports": [{"port": 80, "nodePort": 30001}]}})
        };
        let (old, mut new) = (balanced(true), balanced(false));
        assert_eq!(updated(new.clone(), &old).0["spec"]["ports"][0]["nodePort"], json!(30001));
        remove(&mut new["spec"]["ports"][0], "nodePort");
        assert_eq!(updated(new, &old).0["spec"]["ports"][0].get("nodePort"), None, "unless they are removed");
    }

    #[test]
    fn an_address_once_given_stays() {
        let (_, errors) =
            updated(json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.2", "ports": [{"port": 80}]}}), &old());
        assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]);
    }

    #[test]
    fn another_type_drops_what_it_does_not_have() {
        let mut new = old();
        new["spec"]["type"] = json!("ClusterIP");
        let (new, errors) = updated(new, &old());
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
        assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
        assert_eq!(new["spec"]["clusterIP"], json!("10.0.0.1"));

        let mut external = old();
        external["spec"]["type"] = json!("ExternalName");
        external["spec"]["externalName"] = json!("a.b");
        let (external, errors) = updated(external, &old());
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(external["spec"].get("clusterIPs"), None);
    }

    #[test]
    fn what_is_no_longer_needed_goes_with_the_need() {
        let mut old = json!({"spec": {"type": "ClusterIP", "externalIPs": ["1.2.3.4"], "ports": [{"port": 80}]}});
        super::super::ServiceStrategy.default(&mut old);
        assert_eq!(old["spec"]["externalTrafficPolicy"], "Cluster");
        let mut new = old.clone();
        remove(&mut new["spec"], "externalIPs");
        let (new, errors) = updated(new, &old);
        assert_eq!((new["spec"].get("externalTrafficPolicy"), errors), (None, Vec::new()));

        let old = balanced();
        let mut new = old.clone();
        new["spec"]["externalTrafficPolicy"] = json!("Cluster");
        let (new, errors) = updated(new, &old);
        assert_eq!((new["spec"].get("healthCheckNodePort"), errors), (None, Vec::new()));
    }

    fn balanced() -> Value {
        let mut old = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30002,
            "clusterIP": "10.0.0.1", "loadBalancerClass": "a.b/c", "ports": [{"port": 80}]}});
        super::super::ServiceStrategy.default(&mut old);
        old
    }

    #[test]
    fn who_balances_and_where_health_is_asked_does_not_change() {
        let mut new = balanced();
        new["spec"]["loadBalancerClass"] = json!("a.b/d");
        new["spec"]["healthCheckNodePort"] = json!(30003);
        assert_eq!(
            updated(new, &balanced()).1,
            [
                "spec.loadBalancerClass: Invalid value: \"a.b/d\": may not change once set",
                "spec.healthCheckNodePort: Invalid value: 30003: field is immutable"
            ]
        );
    }
}
