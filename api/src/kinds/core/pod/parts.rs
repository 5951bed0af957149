//! What may be changed of a pod that runs, each through a path of its own: containers that are added for a look
//! (`ephemeralcontainers`), and what containers ask for and may use (`resize`).

use serde_json::{Value, json};

use super::{annotations, resize};
use crate::field::{ErrorList, Path};
use crate::kinds::core::podspec;
use crate::kinds::tree::{carry, list, list_mut, map, object, set, text};
use crate::meta::same;

pub(super) const EPHEMERAL: &str = "ephemeralcontainers";
pub(super) const RESIZE: &str = "resize";
/// Lists of containers that are resized.
pub(super) const SIZED: [&str; 2] = ["containers", "initContainers"];
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
            _ => {
                for field in SIZED {
                    carry_sizes(spec, given, field);
                }
                carry(spec, given, "resources");
            }
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

/// Takes over what containers ask for. Containers that were added, removed, renamed or moved are kept so for [`validate`] to
/// refuse.
fn carry_sizes(spec: &mut Value, given: &Value, field: &str) {
    let pointer = format!("/{field}");
    let asked = list(given, &pointer);
    if !same_containers(list(spec, &pointer), asked) {
        return carry(spec, given, field);
    }
    for (container, other) in list_mut(spec, field).zip(asked) {
        set(container, "resources", other.get("resources").cloned().unwrap_or_else(|| json!({})));
        carry(container, other, "resizePolicy");
    }
}

fn same_containers(old: &[Value], new: &[Value]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| text(old, "/name") == text(new, "/name"))
}

pub(super) fn validate(new: &Value, old: &Value, part: &str, errors: &mut ErrorList) {
    let path = Path::new("spec");
    podspec::validate_change(new, old, errors);
    match part {
        EPHEMERAL => validate_ephemeral(new, old, &path, errors),
        _ => resize::validate(new, old, &path, errors),
    }
}

/// Containers that were added stay as they are.
fn validate_ephemeral(new: &Value, old: &Value, spec: &Path, errors: &mut ErrorList) {
    const POINTER: &str = "/spec/ephemeralContainers";
    let path = spec.child("ephemeralContainers");
    if annotations::is_mirror(new) {
        errors.forbidden(&Path::default(), "static pods do not support ephemeral containers");
    }
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
        for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, &format!("/{field}")).is_empty() {
                    let path = path.child("volumeMounts").index(index).child(field);
                    errors.forbidden(&path, "cannot be set for an Ephemeral Container");
                }
            }
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
}
