//! Where a pod may run: taints and tolerations, affinity, spreading, gates.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::spread;
use crate::field::{ErrorKind, ErrorList, FieldError, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::tree::{int, list, object, set, some, text};
use crate::meta::{names, push_all};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// How long a pod stays on a node that is gone, unless it says otherwise.
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

/// Adds the tolerations that every pod gets on creation: five minutes for a node that is not ready or unreachable.
pub fn default_tolerations(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Value| {
            matches!(text(t, "/key"), k if k == key || k.is_empty()) && matches!(text(t, "/effect"), "NoExecute" | "")
        };
        let mut tolerations = list(spec, "/tolerations").to_vec();
        if !tolerations.iter().any(covers) {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": DEFAULT_TOLERATION_SECONDS}));
            set(spec, "tolerations", tolerations);
        }
    }
}

/// Judges what a pod spec says about its place.
pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    validate_tolerations(list(spec, "/tolerations"), &path.child("tolerations"), errors);
    validate_affinity(spec, &path.child("affinity"), errors);
    spread::validate(list(spec, "/topologySpreadConstraints"), &path.child("topologySpreadConstraints"), errors);
    let gates = list(spec, "/schedulingGates");
    let mut seen = HashSet::new();
    for (index, gate) in gates.iter().enumerate() {
        let path = path.child("schedulingGates").index(index);
        let name = text(gate, "/name");
        push_all(errors, &path, name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&path, &json!(name));
        }
    }
}

/// Judges a node's taints.
pub fn validate_taints(taints: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
        push_all(errors, &path.child("key"), key, names::qualified_name(key));
        if !value.is_empty() {
            push_all(errors, &path.child("value"), value, names::label_value(value));
        }
        validate_effect(effect, false, &path.child("effect"), errors);
        if !seen.insert((key, effect)) {
            let message = format!("Duplicate value: {taint}: taints must be unique by key and effect pair");
            errors.push(FieldError { kind: ErrorKind::Duplicate, path, message });
        }
    }
}

fn validate_effect(effect: &str, may_be_empty: bool, path: &Path, errors: &mut ErrorList) {
    if effect.is_empty() {
        if !may_be_empty {
            errors.required(path, "");
        }
    } else if !EFFECTS.contains(&effect) {
        errors.not_supported(path, effect, EFFECTS);
    }
}

pub(crate) fn validate_tolerations(tolerations: &[Value], path: &Path, errors: &mut ErrorList) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (text(toleration, "/key"), text(toleration, "/value"));
        let (operator, effect) = (text(toleration, "/operator"), text(toleration, "/effect"));
        if !key.is_empty() {
            push_all(errors, &path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), &json!(operator), why);
        }
        if some(toleration, "/tolerationSeconds").is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), &json!(effect), why);
        }
        match operator {
            "Equal" | "" => {
                let complaints = names::label_value(value);
                if !complaints.is_empty() {
                    errors.invalid(&path.child("operator"), &json!(value), &complaints.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(
                    &path.child("operator"),
                    &json!(value),
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        validate_effect(effect, true, &path.child("effect"), errors);
    }
}

fn validate_affinity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    if let Some(node) = some(spec, "/affinity/nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(required) = node.get(REQUIRED).filter(|r| !r.is_null()) {
            validate_node_selector(required, &path.child(REQUIRED), errors);
        }
        for (index, preferred) in list(node, &format!("/{PREFERRED}")).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            validate_weight(preferred, &path, errors);
            let term = preferred.get("preference").unwrap_or(&Value::Null);
            validate_node_term(term, false, &path.child("preference"), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(pods) = some(spec, &format!("/affinity/{kind}")) else { continue };
        let path = path.child(kind);
        for (index, term) in list(pods, &format!("/{REQUIRED}")).iter().enumerate() {
            validate_pod_term(term, &path.child(REQUIRED).index(index), errors);
        }
        for (index, preferred) in list(pods, &format!("/{PREFERRED}")).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            validate_weight(preferred, &path, errors);
            let term = preferred.get("podAffinityTerm").unwrap_or(&Value::Null);
            validate_pod_term(term, &path.child("podAffinityTerm"), errors);
        }
    }
}

fn validate_weight(preferred: &Value, path: &Path, errors: &mut ErrorList) {
    let weight = int(preferred, "/weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), &json!(weight), "must be in the range 1-100");
    }
}

/// Judges a node selector: terms of which one must match.
pub(crate) fn validate_node_selector(selector: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "/nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        validate_node_term(term, true, &path.index(index), errors);
    }
}

/// `required`: whether nodes must match. What is only preferred may name values that no label has.
fn validate_node_term(term: &Value, required: bool, path: &Path, errors: &mut ErrorList) {
    for (index, expression) in list(term, "/matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = list(expression, "/values");
        match text(expression, "/operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.child("values"), why);
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.required(&path.child("values"), why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(&path.child("operator"), &json!(other), "not a valid selector operator"),
        }
        let key = text(expression, "/key");
        push_all(errors, &path.child("key"), key, names::qualified_name(key));
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate().filter(|_| required) {
            push_all(errors, &path.child("values").index(index), value, names::label_value(value));
        }
    }
    for (index, expression) in list(term, "/matchFields").iter().enumerate() {
        validate_node_field(expression, &path.child("matchFields").index(index), errors);
    }
}

/// Of a node's fields its name can be asked for, and one at a time.
fn validate_node_field(expression: &Value, path: &Path, errors: &mut ErrorList) {
    let values = list(expression, "/values");
    match text(expression, "/operator") {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&path.child("values"), why);
        }
        "In" | "NotIn" => {}
        other => errors.invalid(&path.child("operator"), &json!(other), "not a valid selector operator"),
    }
    let key = text(expression, "/key");
    if key != "metadata.name" {
        return errors.invalid(&path.child("key"), &json!(key), "not a valid field selector key");
    }
    for (index, name) in values.iter().filter_map(Value::as_str).enumerate() {
        push_all(errors, &path.child("values").index(index), name, names::dns1123_subdomain(name));
    }
}

fn validate_pod_term(term: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(field).filter(|s| !s.is_null()) {
            validate_selector(selector, &path.child(field), errors);
        }
    }
    for namespace in list(term, "/namespaces").iter().filter_map(Value::as_str) {
        push_all(errors, &path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
    spread::validate_keys(term, path, errors);
    topology_key(term, path, errors);
}

pub(super) fn topology_key(term: &Value, path: &Path, errors: &mut ErrorList) {
    let key = text(term, "/topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    push_all(errors, &path.child("topologyKey"), key, names::qualified_name(key));
}

/// A pod with gates is shown as such from its creation.
pub fn gate(pod: &mut Value) {
    if list(pod, "/spec/schedulingGates").is_empty() {
        return;
    }
    if let Some(status) = object(pod, "status") {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"});
        set(status, "conditions", json!([condition]));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
    use super::*;

    fn with(field: &str, value: &Value) -> Vec<String> {
        complaints(&json!({"containers": [{"name": "a", "image": "x"}], field: value}))
    }

    #[test]
    fn every_pod_tolerates_a_lost_node_for_five_minutes_unless_it_says_so_itself() {
        let mut spec = json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]});
        default_tolerations(&mut spec);
        default_tolerations(&mut spec);
        assert_eq!(
            spec["tolerations"],
            json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}])
        );
        let mut all = json!({"tolerations": [{"operator": "Exists"}]});
        default_tolerations(&mut all);
        assert_eq!(all["tolerations"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_toleration_means_something() {
        assert_eq!(
            with(
                "tolerations",
                &json!([{"value": "x"}, {"key": "k", "operator": "Exists", "value": "v"},
                {"key": "k", "tolerationSeconds": 1}, {"key": "k", "operator": "Like"}])
            ),
            [
                "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which \
                 means \"match all values and all keys\"",
                "spec.tolerations[1].operator: Invalid value: \"v\": value must be empty when `operator` is 'Exists'",
                "spec.tolerations[2].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "spec.tolerations[3].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\""
            ]
        );
    }

    #[test]
    fn affinity_terms_are_complete() {
        let affinity = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {}}]}});
        assert_eq!(with("affinity", &affinity).len(), 4);
        let spread = json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Maybe"}]);
        assert_eq!(with("topologySpreadConstraints", &spread).len(), 2);
    }

    #[test]
    fn a_taint_is_given_once_per_effect() {
        let taint = json!({"key": "k", "effect": "NoSchedule"});
        let mut errors = ErrorList::default();
        validate_taints(&[taint.clone(), taint], &Path::new("spec.taints"), &mut errors);
        assert_eq!(errors.iter().count(), 1);
    }

    #[test]
    fn a_term_about_nodes_can_match() {
        let required = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
        let place = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
        let label = names::label_value("a b").join("");
        for (term, why) in [
            (
                json!({"matchFields": [{"key": "a", "operator": "In", "values": ["1"]}]}),
                "matchFields[0].key: Invalid value: \"a\": not a valid field selector key".to_owned(),
            ),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a", "b"]}]}),
                "matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node \
                 field selector"
                    .to_owned(),
            ),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "Exists"}]}),
                "matchFields[0].operator: Invalid value: \"Exists\": not a valid selector operator".to_owned(),
            ),
            (
                json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["a b"]}]}),
                format!("matchExpressions[0].values[0]: Invalid value: \"a b\": {label}"),
            ),
        ] {
            assert_refused(required(term), &json!({}), &format!("{place}.{why}"));
        }
    }
}
