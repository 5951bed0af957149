//! NetworkPolicy: who may talk to a group of pods, and to whom these may.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::cidr;
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::cells::{self, column};
use crate::kinds::check::one_of;
use crate::kinds::core::addresses::warn_of_range;
use crate::kinds::tree::{fill, int, list, list_mut, object, set, some, text};
use crate::meta::{names, push_all};
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const TYPES: &[&str] = &["Ingress", "Egress"];
/// A direction's rules, and what they call their peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<NetworkPolicy>()
        .idle(Idle::Yet)
        .short(&["netpol"])
        .columns(vec![
            cells::name(),
            column("Pod-Selector", "string", "Selects the pods to which this NetworkPolicy applies.", |o, _| {
                json!(cells::selector(o, "/spec/podSelector"))
            }),
            cells::age(),
        ])
        .strategy(NetworkPolicyStrategy)
}

#[derive(Debug)]
struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    fn default(&self, policy: &mut Value) {
        let Some(spec) = object(policy, "spec") else { return };
        object(spec, "podSelector");
        if list(spec, "/policyTypes").is_empty() {
            let egress = !list(spec, "/egress").is_empty();
            set(spec, "policyTypes", if egress { json!(TYPES) } else { json!(["Ingress"]) });
        }
        for (direction, _) in DIRECTIONS {
            for port in list_mut(spec, direction).flat_map(|rule| list_mut(rule, "ports")) {
                fill(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, policy: &Value, errors: &mut ErrorList) {
        let (spec, path) = (policy.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
        validate_selector(spec.get("podSelector").unwrap_or(&Value::Null), &path.child("podSelector"), errors);
        for (direction, peers) in DIRECTIONS {
            for (index, rule) in list(spec, &format!("/{direction}")).iter().enumerate() {
                let path = path.child(direction).index(index);
                for (index, port) in list(rule, "/ports").iter().enumerate() {
                    validate_port(port, &path.child("ports").index(index), errors);
                }
                for (index, peer) in list(rule, &format!("/{peers}")).iter().enumerate() {
                    validate_peer(peer, &path.child(peers).index(index), errors);
                }
            }
        }
        let types = list(spec, "/policyTypes");
        let path = path.child("policyTypes");
        if types.len() > TYPES.len() {
            return errors.invalid(&path, &json!(types), "may not specify more than two policyTypes");
        }
        for (index, kind) in types.iter().filter_map(Value::as_str).enumerate() {
            if !TYPES.contains(&kind) {
                errors.not_supported(&path.index(index), kind, TYPES);
            }
        }
    }

    fn warnings(&self, policy: &Value) -> Vec<String> {
        let mut all = Vec::new();
        for (direction, peers) in DIRECTIONS {
            for (index, rule) in list(policy, &format!("/spec/{direction}")).iter().enumerate() {
                for (at, peer) in list(rule, &format!("/{peers}")).iter().enumerate() {
                    let path = Path::new("spec").child(direction).index(index).child(peers).index(at).child("ipBlock");
                    all.extend(warn_of_range(text(peer, "/ipBlock/cidr"), &path.child("cidr")));
                    let except = list(peer, "/ipBlock/except").iter().filter_map(Value::as_str).enumerate();
                    let path = path.child("except");
                    all.extend(except.filter_map(|(index, range)| warn_of_range(range, &path.index(index))));
                }
            }
        }
        all
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        errors.judge_change(new, old, |policy, errors| self.validate(policy, errors));
    }
}

fn validate_port(port: &Value, path: &Path, errors: &mut ErrorList) {
    one_of(port, "protocol", path, &["TCP", "UDP", "SCTP"], errors);
    let (end, end_path) = (int(port, "/endPort"), path.child("endPort"));
    let refuse_end = |why: &str, errors: &mut ErrorList| {
        if let Some(end) = end {
            errors.invalid(&end_path, &json!(end), why);
        }
    };
    match some(port, "/port") {
        None => refuse_end("may not be specified when `port` is not specified", errors),
        Some(Value::String(name)) => {
            refuse_end("may not be specified when `port` is non-numeric", errors);
            push_all(errors, &path.child("port"), name, names::port_name(name));
        }
        Some(number) => {
            let start = number.as_i64().unwrap_or_default();
            if let Some(why) = names::port_number(start) {
                errors.invalid(&path.child("port"), number, why);
            }
            if end.is_some_and(|end| end < start) {
                // Kubernetes tells the port.
                errors.invalid(&end_path, number, "must be greater than or equal to `port`");
            }
            if let (Some(end), Some(why)) = (end, end.and_then(names::port_number)) {
                errors.invalid(&end_path, &json!(end), why);
            }
        }
    }
}

fn validate_peer(peer: &Value, path: &Path, errors: &mut ErrorList) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = some(peer, &format!("/{field}")) {
            selectors += 1;
            validate_selector(selector, &path.child(field), errors);
        }
    }
    match some(peer, "/ipBlock") {
        None if selectors == 0 => errors.required(path, "must specify a peer"),
        None => {}
        Some(block) => {
            validate_block(block, &path.child("ipBlock"), errors);
            if selectors > 0 {
                errors.forbidden(path, "may not specify both ipBlock and another peer");
            }
        }
    }
}

fn validate_block(block: &Value, path: &Path, errors: &mut ErrorList) {
    let text_of_range = text(block, "/cidr");
    if text_of_range.is_empty() {
        return errors.required(&path.child("cidr"), "");
    }
    let Some(range) = cidr::validate_strict(text_of_range, &path.child("cidr"), errors) else { return };
    for (index, except) in list(block, "/except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("except").index(index);
        if let Some(inner) = cidr::validate_strict(except, &path, errors)
            && !cidr::strictly_contains(range, inner)
        {
            errors.invalid(&path, &json!(except), "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(rule: &Value) -> Vec<String> {
        let mut policy = json!({"spec": {"egress": [rule]}});
        NetworkPolicyStrategy.default(&mut policy);
        complaints(|errors| NetworkPolicyStrategy.validate(&policy, errors))
    }

    #[test]
    fn a_policy_is_about_what_it_has_rules_for() {
        for (spec, types) in [(json!({}), json!(["Ingress"])), (json!({"egress": [{}]}), json!(["Ingress", "Egress"]))]
        {
            let mut policy = json!({ "spec": spec });
            NetworkPolicyStrategy.default(&mut policy);
            assert_eq!(policy["spec"]["policyTypes"], types);
        }
    }

    #[test]
    fn a_peer_is_selected_or_a_block() {
        for (peer, expected) in [
            (json!({"podSelector": {}}), None),
            (json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}), None),
            (json!({}), Some("spec.egress[0].to[0]: Required value: must specify a peer")),
            (
                json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
                Some("spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer"),
            ),
            (
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}),
                Some(
                    "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/8\": must be a strict subset of \
                     `cidr`",
                ),
            ),
        ] {
            assert_eq!(judge(&json!({"to": [peer]})), expected.into_iter().collect::<Vec<_>>(), "{peer}");
        }
    }

    #[test]
    fn a_range_of_ports_ends_after_it_begins() {
        for (port, count) in [
            (json!({"port": 80, "endPort": 90}), 0),
            (json!({"port": "http"}), 0),
            (json!({"port": 80, "endPort": 79}), 1),
            (json!({"port": "http", "endPort": 90}), 1),
            (json!({"endPort": 90}), 1),
            (json!({"port": 0}), 1),
            (json!({"protocol": "ICMP"}), 1),
        ] {
            assert_eq!(judge(&json!({"ports": [port]})).len(), count, "{port}");
        }
    }
    #[test]
    fn a_range_of_one_meaning_is_asked_of_what_is_new() {
        let policy = |cidr: &str| {
            let mut policy = json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}});
            NetworkPolicyStrategy.default(&mut policy);
            policy
        };
        let said = |new: &Value, old: &Value| {
            let mut errors = ErrorList::default();
            NetworkPolicyStrategy.validate_update(new, old, Part::Main, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let (loose, strict) = (policy("10.0.0.5/24"), policy("10.0.0.0/24"));
        assert_eq!(
            said(&loose, &strict),
            [
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.5/24\": must not have bits set beyond the \
              prefix length"
            ]
        );
        assert_eq!(said(&loose, &loose), Vec::<String>::new());
    }

    #[test]
    fn a_range_that_ends_too_early_is_told_with_its_port() {
        let said = |port: i64, end: i64| judge(&json!({"ports": [{"port": port, "endPort": end}]}));
        let at = "spec.egress[0].ports[0]";
        let port = "must be between 1 and 65535, inclusive";
        assert_eq!(said(80, 79), [format!("{at}.endPort: Invalid value: 80: must be greater than or equal to `port`")]);
        assert_eq!(
            said(70_000, 70_001),
            [format!("{at}.port: Invalid value: 70000: {port}"), format!("{at}.endPort: Invalid value: 70001: {port}")]
        );
    }
}
