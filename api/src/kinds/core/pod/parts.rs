//! What may be changed of a pod that runs, each through a path of its own: containers that are added for a look
//! (`ephemeralcontainers`), and what containers ask for and may use (`resize`).

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::core::podspec::{self, resources};
use crate::kinds::tree::{carry, list, list_mut, map, object, set, text};
use crate::meta::same;

pub(super) const EPHEMERAL: &str = "ephemeralcontainers";
pub(super) const RESIZE: &str = "resize";
/// Lists of containers that are resized.
const SIZED: [&str; 2] = ["containers", "initContainers"];
/// What a container that is only there to look has not.
const NOT_EPHEMERAL: [&str; 8] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

/// Takes over from `new` what the path changes; everything else stays as it was.
pub(super) fn prepare(new: &mut Value, old: &Value, part: &str) {
    let mut kept = old.clone();
    if let (Some(spec), Some(given)) = (object(&mut kept, "spec"), new.get("spec")) {
        match part {
            EPHEMERAL => carry(spec, given, "ephemeralContainers"),
            _ => SIZED.iter().for_each(|field| carry_sizes(spec, given, field)),
        }
    }
    carry_version(&mut kept, new);
    *new = kept;
}

fn carry_version(kept: &mut Value, new: &Value) {
    if let (Some(meta), Some(given)) = (object(kept, "metadata"), new.get("metadata")) {
        carry(meta, given, "resourceVersion");
    }
}

fn carry_sizes(spec: &mut Value, given: &Value, field: &str) {
    for container in list_mut(spec, field) {
        let same_name = |other: &&Value| text(other, "/name") == text(container, "/name");
        let Some(other) = list(given, &format!("/{field}")).iter().find(same_name) else { continue };
        let (resources, policy) = (other.get("resources").cloned(), other.get("resizePolicy").cloned());
        set(container, "resources", resources.unwrap_or_else(|| json!({})));
        if let Some(policy) = policy {
            set(container, "resizePolicy", policy);
        }
    }
}

pub(super) fn validate(new: &Value, old: &Value, part: &str, errors: &mut ErrorList) {
    let path = Path::new("spec");
    podspec::validate(new.get("spec").unwrap_or(&Value::Null), &path, errors);
    match part {
        EPHEMERAL => validate_ephemeral(new, old, &path, errors),
        _ => validate_sizes(new, old, &path, errors),
    }
}

/// Containers that were added stay as they are.
fn validate_ephemeral(new: &Value, old: &Value, spec: &Path, errors: &mut ErrorList) {
    const POINTER: &str = "/spec/ephemeralContainers";
    let path = spec.child("ephemeralContainers");
    for before in list(old, POINTER) {
        let name = text(before, "/name");
        match list(new, POINTER).iter().find(|container| text(container, "/name") == name) {
            None => errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if !same(Some(now), Some(before)) => {
                errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
    let known = |name: &str| {
        let all = SIZED.iter().flat_map(|field| list(new, &format!("/spec/{field}")));
        all.into_iter().any(|container| text(container, "/name") == name)
    };
    for (index, container) in list(new, POINTER).iter().enumerate() {
        let path = path.index(index);
        let target = text(container, "/targetContainerName");
        if !target.is_empty() && !known(target) {
            errors.not_found(&path.child("targetContainerName"), &json!(target));
        }
        let given = |field: &str| !same(container.get(field), None);
        for field in NOT_EPHEMERAL.iter().filter(|field| given(field)) {
            errors.forbidden(&path.child(field), "cannot be set for an Ephemeral Container");
        }
        if map(container, "/resources").next().is_some() {
            errors.forbidden(&path.child("resources"), "cannot be set for an Ephemeral Container");
        }
    }
}

/// Only cpu and memory change, nothing that was said is taken back, and the pod stays in its class.
fn validate_sizes(new: &Value, old: &Value, spec: &Path, errors: &mut ErrorList) {
    let null = Value::Null;
    let (now, before) = (new.get("spec").unwrap_or(&null), old.get("spec").unwrap_or(&null));
    let class = resources::qos_class(now);
    if class != resources::qos_class(before) {
        errors.invalid(spec, &json!(class), "Pod QOS Class may not change as a result of resizing");
    }
    for field in SIZED {
        let pointer = format!("/{field}");
        for (index, (now, before)) in list(now, &pointer).iter().zip(list(before, &pointer)).enumerate() {
            validate_size(now, before, &spec.child(field).index(index).child("resources"), spec, errors);
        }
    }
}

fn validate_size(new: &Value, old: &Value, path: &Path, spec: &Path, errors: &mut ErrorList) {
    for field in ["limits", "requests"] {
        let pointer = format!("/resources/{field}");
        let now = |name: &str| new.pointer(&pointer).and_then(|map| map.get(name));
        for (name, amount) in map(old, &pointer) {
            match now(name) {
                None if matches!(name.as_str(), "cpu" | "memory") => {
                    errors.forbidden(&path.child(field), &format!("resource {field} cannot be removed"));
                }
                other if !matches!(name.as_str(), "cpu" | "memory") && other != Some(amount) => {
                    errors.forbidden(spec, "only cpu and memory resources are mutable");
                }
                _ => {}
            }
        }
        let known = |name: &str| old.pointer(&pointer).is_some_and(|map| map.get(name).is_some());
        if map(new, &pointer).any(|(name, _)| !matches!(name.as_str(), "cpu" | "memory") && !known(name)) {
            errors.forbidden(spec, "only cpu and memory resources are mutable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        let mut spec = json!({"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": "1"}}}]});
        podspec::default(&mut spec);
        json!({"metadata": {"name": "p", "resourceVersion": "3"}, "spec": spec})
    }

    fn change(part: &str, old: &Value, change: impl FnOnce(&mut Value)) -> (Value, Vec<String>) {
        let mut new = old.clone();
        change(&mut new["spec"]);
        podspec::default(&mut new["spec"]);
        prepare(&mut new, old, part);
        let mut errors = ErrorList::default();
        validate(&new, old, part, &mut errors);
        (new, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_look_adds_a_container_and_changes_nothing_else() {
        let look = json!([{"name": "look", "image": "y", "targetContainerName": "a"}]);
        let (looked, said) = change(EPHEMERAL, &pod(), |spec| {
            spec["ephemeralContainers"] = look.clone();
            spec["containers"][0]["image"] = json!("z");
        });
        assert_eq!(said, Vec::<String>::new());
        assert_eq!(
            (&looked["spec"]["ephemeralContainers"][0]["name"], &looked["spec"]["containers"][0]["image"]),
            (&json!("look"), &json!("x"))
        );
        let (_, said) = change(EPHEMERAL, &looked, |spec| spec["ephemeralContainers"] = json!([]));
        assert_eq!(
            said,
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"look\" may not be removed\n"]
        );
        let (_, said) = change(EPHEMERAL, &pod(), |spec| {
            spec["ephemeralContainers"] = json!([{"name": "l", "image": "y", "targetContainerName": "b", "livenessProbe": {"tcpSocket": {"port": 1}}}]);
        });
        assert_eq!(
            said,
            [
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"b\"",
                "spec.ephemeralContainers[0].livenessProbe: Forbidden: cannot be set for an Ephemeral Container"
            ]
        );
    }

    #[test]
    fn a_pod_is_resized_within_its_class() {
        let (resized, said) =
            change(RESIZE, &pod(), |spec| spec["containers"][0]["resources"]["requests"]["cpu"] = json!("2"));
        assert_eq!(
            (said, &resized["spec"]["containers"][0]["resources"]["requests"]["cpu"]),
            (Vec::new(), &json!("2"))
        );
        let (_, said) = change(RESIZE, &pod(), |spec| spec["containers"][0]["resources"] = json!({}));
        assert_eq!(
            said,
            [
                "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"
            ]
        );
    }
}
