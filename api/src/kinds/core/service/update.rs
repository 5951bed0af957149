//! What an update of a Service keeps: addresses and ports that were given out, as long as the type still has them.

use serde_json::{Value, json};

use super::{headless, needs_node_ports};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{carry, int, list, list_mut, remove, set, text};

/// An update that leaves allocated values out keeps them.
pub(super) fn keep_allocated(spec: &mut Value, old: &Value) {
    let has_address = |spec: &Value| text(spec, "/type") != "ExternalName";
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
        for port in list_mut(spec, "ports") {
            if int(port, "/nodePort").unwrap_or_default() == 0
                && let Some(number) = allocated(port, old)
            {
                set(port, "nodePort", number);
            }
        }
    }
    if int(spec, "/healthCheckNodePort").unwrap_or_default() == 0 && text(spec, "/externalTrafficPolicy") == "Local" {
        carry(spec, old, "healthCheckNodePort");
    }
}

/// The node port that the same port had.
fn allocated(port: &Value, old: &Value) -> Option<i64> {
    let same = |before: &&Value| {
        text(before, "/protocol") == text(port, "/protocol") && int(before, "/port") == int(port, "/port")
    };
    list(old, "/ports").iter().find(same).and_then(|before| int(before, "/nodePort")).filter(|n| *n != 0)
}

/// A change of type drops what the new type does not have, unless the update sets it itself.
pub(super) fn drop_foreign(spec: &mut Value, old: &Value) {
    if text(spec, "/type") == text(old, "/type") {
        return;
    }
    if text(spec, "/type") == "ExternalName" {
        if spec.get("clusterIPs") == old.get("clusterIPs") {
            remove(spec, "clusterIP");
            remove(spec, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if spec.get(field) == old.get(field) {
                remove(spec, field);
            }
        }
    }
    if !needs_node_ports(spec) {
        let before = old.clone();
        for port in list_mut(spec, "ports") {
            if int(port, "/nodePort") == allocated(port, &before) {
                remove(port, "nodePort");
            }
        }
    }
    if !super::externally_accessible(spec) && spec.get("externalTrafficPolicy") == old.get("externalTrafficPolicy") {
        remove(spec, "externalTrafficPolicy");
    }
    if text(spec, "/type") != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
            if spec.get(field) == old.get(field) {
                remove(spec, field);
            }
        }
    }
}

/// An address that was given out does not change.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut ErrorList) {
    let null = Value::Null;
    let (spec, before) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    let external = |spec: &Value| text(spec, "/type") == "ExternalName";
    if external(spec) || external(before) {
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
}
