//! What a pod's annotations may say: some of them are trusted, as marks of what a pod is.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{list, map, text};

/// The mark of a pod that a node runs by itself and only shows here.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

const ALL: &str = "/metadata/annotations";

pub(super) fn is_mirror(pod: &Value) -> bool {
    map(pod, ALL).any(|(key, _)| key == MIRROR)
}

pub(super) fn validate(pod: &Value, errors: &mut ErrorList) {
    for (key, value) in map(pod, ALL) {
        let (path, value) = (path(key), value.as_str().unwrap_or_default());
        if key == MIRROR && text(pod, "/spec/nodeName").is_empty() {
            errors.invalid(&path, &json!(value), "must set spec.nodeName if mirror pod annotation is set");
        } else if key == DELETION_COST && !is_cost(value) {
            errors.invalid(&path, &json!(value), "must be a 32bit integer");
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP) {
            validate_seccomp(value, &path, errors);
        } else if let Some(container) = key.strip_prefix(APPARMOR) {
            validate_apparmor(pod, container, value, &path, errors);
        }
    }
}

fn path(key: &str) -> Path {
    Path::new("metadata").child("annotations").key(key)
}

/// A number without a plus or leading noughts.
fn is_cost(value: &str) -> bool {
    value.parse::<i32>().is_ok() && !value.starts_with('+') && (value == "0" || !value.starts_with('0'))
}

fn validate_seccomp(profile: &str, path: &Path, errors: &mut ErrorList) {
    let known = ["runtime/default", "docker/default", "unconfined"].contains(&profile);
    match profile.strip_prefix("localhost/") {
        Some(file) if file.starts_with('/') => errors.invalid(path, &json!(file), "must be a relative path"),
        Some(file) if file.split('/').any(|part| part == "..") => {
            errors.invalid(path, &json!(file), "must not contain '..'");
        }
        None if !known => errors.invalid(path, &json!(profile), "must be a valid seccomp profile"),
        _ => {}
    }
}

fn validate_apparmor(pod: &Value, container: &str, profile: &str, path: &Path, errors: &mut ErrorList) {
    let known = ["", "runtime/default", "unconfined"].contains(&profile);
    if !known && !profile.starts_with("localhost/") {
        errors.invalid(path, &json!(profile), &format!("invalid AppArmor profile name: {profile:?}"));
    }
    let all = ["/spec/initContainers", "/spec/containers"].into_iter().flat_map(|field| list(pod, field));
    if !all.into_iter().any(|known| text(known, "/name") == container) {
        errors.invalid(path, &json!(container), "container not found");
    }
}

/// Judges a change: marks stay as they are.
pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let value = |pod: &Value, key: &str| pod.pointer(ALL).and_then(|all| all.get(key)).cloned();
    let mark = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ if key.starts_with(APPARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, before) in map(old, ALL) {
        if let Some(what) = mark(key).filter(|_| value(new, key).as_ref() != Some(before)) {
            errors.forbidden(&path(key), &format!("may not remove or update {what}"));
        }
    }
    for (key, _) in map(new, ALL) {
        if let Some(what) = mark(key).filter(|_| value(old, key).is_none()) {
            errors.forbidden(&path(key), &format!("may not add {what}"));
        }
    }
    errors.judge_change(new, old, validate);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &Value) -> Value {
        json!({"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "a"}]}})
    }

    fn said(judge: impl FnOnce(&mut ErrorList)) -> Vec<String> {
        let mut errors = ErrorList::default();
        judge(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn annotations_that_mean_something_make_sense() {
        for (key, value, why) in [
            (MIRROR, "x", "Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set"),
            (DELETION_COST, "+1", "Invalid value: \"+1\": must be a 32bit integer"),
            (DELETION_COST, "3000000000", "Invalid value: \"3000000000\": must be a 32bit integer"),
            (SECCOMP_POD, "x", "Invalid value: \"x\": must be a valid seccomp profile"),
            (SECCOMP_POD, "localhost/../x", "Invalid value: \"../x\": must not contain '..'"),
        ] {
            let pod = pod(&json!({key: value}));
            assert_eq!(said(|errors| validate(&pod, errors)), [format!("metadata.annotations[{key}]: {why}")]);
        }
        let of = |container: &str| format!("{APPARMOR}{container}");
        let odd = pod(&json!({of("a"): "x", of("b"): "unconfined"}));
        assert_eq!(
            said(|errors| validate(&odd, errors)),
            [
                format!(
                    "metadata.annotations[{}]: Invalid value: \"x\": invalid AppArmor profile name: \"x\"",
                    of("a")
                ),
                format!("metadata.annotations[{}]: Invalid value: \"b\": container not found", of("b")),
            ]
        );
        let good =
            pod(&json!({DELETION_COST: "-1", SECCOMP_POD: "localhost/a", of("a"): "runtime/default", "other": "x"}));
        assert_eq!(said(|errors| validate(&good, errors)), Vec::<String>::new());
    }

    #[test]
    fn marks_stay_as_they_are() {
        let (bare, mut marked) = (pod(&json!({})), pod(&json!({MIRROR: "x"})));
        marked["spec"]["nodeName"] = json!("n");
        let place = format!("metadata.annotations[{MIRROR}]: Forbidden: may not");
        assert_eq!(
            said(|errors| validate_update(&bare, &marked, errors)),
            [format!("{place} remove or update mirror pod annotation")]
        );
        assert_eq!(
            said(|errors| validate_update(&marked, &bare, errors)),
            [format!("{place} add mirror pod annotation")]
        );
        assert_eq!(said(|errors| validate_update(&marked, &marked, errors)), Vec::<String>::new());
    }
}
