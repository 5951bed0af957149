//! What an update of a pod may change: next to nothing.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{carry, int, list, map, remove, set, text};
use crate::meta;

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let null = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    let mut as_if = new.clone();
    for (field, what) in [("containers", "containers"), ("initContainers", "init containers")] {
        let pointer = format!("/{field}");
        let (now, before) = (list(new, &pointer), list(old, &pointer));
        if now.len() != before.len() {
            return errors.forbidden(&path.child(field), &format!("pod updates may not add or remove {what}"));
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
    let gated = !list(old, "/schedulingGates").is_empty();
    if gated {
        carry(&mut as_if, old, "nodeSelector");
    }
    let changed = differences(&as_if, old);
    if !changed.is_empty() {
        errors.forbidden(&path, &format!("{MAY_CHANGE}\n  changed: {}", changed.join(", ")));
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
    for gate in list(new, "/schedulingGates") {
        if !before.contains(text(gate, "/name")) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "/name"));
            errors.forbidden(&path.child("schedulingGates"), &why);
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
}
