//! What an update of a pod may change: next to nothing.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{carry, int, list, map, object, remove, set, some, text};
use crate::meta;

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Of which one must match the node.
const TERMS: &str = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

pub(super) fn validate(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let null = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    let mut as_if = new.clone();
    for field in ["containers", "initContainers"] {
        let pointer = format!("/{field}");
        let (now, before) = (list(new, &pointer), list(old, &pointer));
        if now.len() != before.len() {
            return errors.forbidden(&path.child(field), "pod updates may not add or remove containers");
        }
        let mut kept = now.to_vec();
        kept.iter_mut().zip(before).for_each(|(container, before)| carry(container, before, "image"));
        if !kept.is_empty() {
            set(&mut as_if, field, kept);
        }
    }
    validate_deadline(new, old, &path, errors);
    validate_tolerations(new, old, &path, errors);
    validate_gates(new, old, &path, errors);
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        carry(&mut as_if, old, field);
    }
    let grace = |spec: &Value| int(spec, "/terminationGracePeriodSeconds");
    if grace(old).is_some_and(|g| g < 0) && grace(new) == Some(1) {
        carry(&mut as_if, old, "terminationGracePeriodSeconds");
    }
    if !list(old, "/schedulingGates").is_empty() {
        validate_narrowing(new, old, &path, errors);
        carry(&mut as_if, old, "nodeSelector");
        carry_node_affinity(&mut as_if, old);
    }
    let changed = differences(&as_if, old);
    if !changed.is_empty() {
        errors.forbidden(&path, &format!("{MAY_CHANGE}\n  changed: {}", changed.join(", ")));
    }
}

/// A pod that is not to be scheduled yet may still narrow where it may run.
fn validate_narrowing(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    if map(old, "/nodeSelector")
        .any(|(key, value)| new.pointer("/nodeSelector").and_then(|now| now.get(key)) != Some(value))
    {
        let now = new.get("nodeSelector").unwrap_or(&Value::Null);
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&path.child("nodeSelector"), now, why);
    }
    let (now, before) = (list(new, TERMS), list(old, TERMS));
    let path = TERMS.split('/').skip(1).fold(path.clone(), |path, part| path.child(part));
    if before.is_empty() {
        return;
    }
    if now.len() != before.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&path, &json!(now), why);
    }
    for (index, (now, before)) in now.iter().zip(before).enumerate() {
        if !only_adds(now, before) {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&path.index(index), now, why);
        }
    }
}

/// Whether a term only asks for more. A term that asks for nothing matches nothing, and must not begin to.
fn only_adds(now: &Value, before: &Value) -> bool {
    let fields = ["/matchExpressions", "/matchFields"];
    let empty = |term: &Value| fields.iter().all(|field| list(term, field).is_empty());
    let begins = |field: &&str| {
        let (now, before) = (list(now, field), list(before, field));
        let start = now.get(..before.len());
        start.is_some_and(|start| start.iter().zip(before).all(|(now, before)| meta::same(Some(now), Some(before))))
    };
    fields.iter().all(begins) && (!empty(before) || empty(now))
}

/// Leaves what is said about nodes as it was; what is said about other pods stays to be compared.
fn carry_node_affinity(as_if: &mut Value, old: &Value) {
    let before = old.pointer("/affinity/nodeAffinity").cloned();
    if some(as_if, "/affinity").is_none() && before.is_none() {
        return;
    }
    if let Some(affinity) = object(as_if, "affinity") {
        match before {
            Some(before) => set(affinity, "nodeAffinity", before),
            None => drop(remove(affinity, "nodeAffinity")),
        }
    }
}

/// Top-level fields that differ.
fn differences(new: &Value, old: &Value) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = map(new, "").chain(map(old, "")).map(|(key, _)| key).collect();
    let differs = |key: &&String| !meta::same(new.get(key.as_str()), old.get(key.as_str()));
    keys.into_iter().filter(differs).map(|key| format!("spec.{key}")).collect()
}

fn validate_deadline(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("activeDeadlineSeconds");
    match (int(new, "/activeDeadlineSeconds"), int(old, "/activeDeadlineSeconds")) {
        (Some(now), Some(before)) if now > before => {
            errors.invalid(&path, &json!(now), "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            errors.invalid(&path, &Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
}

fn validate_tolerations(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let bare = |toleration: &Value| {
        let mut bare = toleration.clone();
        remove(&mut bare, "tolerationSeconds");
        bare
    };
    let now: HashSet<Value> = list(new, "/tolerations").iter().map(bare).collect();
    if list(old, "/tolerations").iter().any(|before| !now.contains(&bare(before))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&path.child("tolerations"), why);
    }
}

fn validate_gates(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let before: HashSet<&str> = list(old, "/schedulingGates").iter().map(|g| text(g, "/name")).collect();
    for (index, gate) in list(new, "/schedulingGates").iter().enumerate() {
        if !before.contains(text(gate, "/name")) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "/name"));
            errors.forbidden(&path.child("schedulingGates").index(index).child("name"), &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "x"}], "nodeName": "n",
            "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 3}]}});
        let mut new = old.clone();
        change(&mut new["spec"]);
        let mut errors = ErrorList::default();
        validate(&new, &old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn image_deadline_and_more_tolerations_may_change() {
        let all = complaints(|spec| {
            spec["containers"][0]["image"] = json!("y");
            spec["activeDeadlineSeconds"] = json!(9);
            spec["tolerations"] = json!([{"key": "k", "operator": "Exists"}, {"key": "l"}]);
        });
        assert_eq!(all, Vec::<String>::new());
    }

    #[test]
    fn anything_else_may_not() {
        let all = complaints(|spec| spec["nodeName"] = json!("m"));
        assert_eq!(all.len(), 1);
        assert!(
            all[0].starts_with(
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            )
        );
        assert!(all[0].ends_with("changed: spec.nodeName"), "{}", all[0]);
        assert_eq!(
            complaints(|spec| spec["containers"] = json!([])),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
    }

    #[test]
    fn a_toleration_once_given_stays() {
        assert_eq!(
            complaints(|spec| spec["tolerations"] = json!([])),
            ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
        );
    }

    #[test]
    fn a_gated_pod_narrows_where_it_may_run() {
        let expression = |key: &str| json!({"key": key, "operator": "Exists"});
        let terms = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        let one = terms(json!([{"matchExpressions": [expression("a")]}]));
        let place = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        let selector = "spec.nodeSelector: Invalid value: ";
        let add_only = ": only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let other_pods = json!({"podAffinity": {}, "nodeAffinity": one["nodeAffinity"]});
        for (before, change, why) in [
            (json!({}), json!({"nodeSelector": {"a": "b", "c": "d"}}), String::new()),
            (json!({}), json!({"nodeSelector": {"a": "c"}}), format!("{selector}{{\"a\":\"c\"}}{add_only}")),
            (json!({}), json!({"nodeSelector": {}}), format!("{selector}{{}}{add_only}")),
            (json!({}), json!({ "affinity": one }), String::new()),
            (
                json!({ "affinity": one }),
                json!({"affinity": terms(json!([{"matchExpressions": [expression("a"), expression("b")]}]))}),
                String::new(),
            ),
            (
                json!({ "affinity": one }),
                json!({"affinity": terms(json!([{"matchExpressions": [expression("b")]}]))}),
                format!(
                    "{place}[0]: Invalid value: {{\"matchExpressions\":[{{\"key\":\"b\",\"operator\":\"Exists\"}}]}}: only \
                     additions are allowed (no mutations or deletions)"
                ),
            ),
            (
                json!({ "affinity": one }),
                json!({"affinity": null}),
                format!(
                    "{place}: Invalid value: []: no additions/deletions to non-empty NodeSelectorTerms list are allowed"
                ),
            ),
            (
                json!({"affinity": terms(json!([{}]))}),
                json!({ "affinity": one }),
                format!(
                    "{place}[0]: Invalid value: {{\"matchExpressions\":[{{\"key\":\"a\",\"operator\":\"Exists\"}}]}}: only \
                     additions are allowed (no mutations or deletions)"
                ),
            ),
            (
                json!({}),
                json!({"affinity": {"podAffinity": {"x": 1}}}),
                format!("spec: Forbidden: {MAY_CHANGE}\n  changed: spec.affinity"),
            ),
            (json!({ "affinity": one }), json!({ "affinity": other_pods }), String::new()),
        ] {
            let mut old = json!({"spec": {"containers": [{"name": "a", "image": "x"}], "nodeSelector": {"a": "b"},
                "schedulingGates": [{"name": "g"}]}});
            let merge = |pod: &mut Value, fields: &Value| {
                fields.as_object().into_iter().flatten().for_each(|(key, value)| pod["spec"][key] = value.clone());
            };
            merge(&mut old, &before);
            let mut new = old.clone();
            merge(&mut new, &change);
            let mut errors = ErrorList::default();
            validate(&new, &old, &mut errors);
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let wanted: Vec<String> = Some(why).filter(|why| !why.is_empty()).into_iter().collect();
            assert_eq!(said, wanted, "{before} to {change}");
        }
    }
}
