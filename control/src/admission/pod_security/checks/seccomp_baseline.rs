//! Baseline: nobody turns the filter of system calls off; before 1.19 that was an annotation.

use serde_json::Value;

use super::{Pod, Violation, insert, plural, quoted, setters, text};

const REASON: &str = "seccompProfile";
const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Whether a profile is one that filters.
pub(super) fn is_good(profile: &Value) -> bool {
    matches!(text(profile, "/type"), "RuntimeDefault" | "Localhost")
}

/// What it is to ask for another one.
pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let mut kinds = Vec::new();
    let mut forbidden = |profile: Option<&Value>| {
        let bad = profile.filter(|profile| !is_good(profile));
        bad.inspect(|profile| insert(&mut kinds, text(profile, "/type"))).is_some()
    };
    let of_pod = forbidden(pod.security("/seccompProfile"));
    let bad = pod.containers_where(|c| forbidden(c.security("/seccompProfile")));
    let who = setters(of_pod, &bad)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&kinds));
    Some(Violation::new(REASON, detail))
}

pub(super) fn judge_annotations(pod: Pod<'_>) -> Option<Violation> {
    let names: Vec<&str> = pod.containers().map(super::Container::name).collect();
    let about = |key: &str| key == OF_POD || key.strip_prefix(OF_CONTAINER).is_some_and(|name| names.contains(&name));
    let good = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let mut forbidden = Vec::new();
    for (key, value) in pod.annotations().filter(|(key, value)| about(key) && !good(value)) {
        insert(&mut forbidden, &format!("{key}={value:?}"));
    }
    (!forbidden.is_empty()).then(|| {
        let what = plural("annotation", "annotations", &forbidden);
        Violation::new(REASON, format!("forbidden {what} {}", forbidden.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod, said};
    use super::*;

    #[test]
    fn nobody_is_unconfined() {
        assert_cases(
            judge,
            &[
                (pod(&[json!({}), json!({"seccompProfile": {"type": "RuntimeDefault"}})]), None),
                (
                    pod(&[json!({"seccompProfile": {"type": "Unconfined"}})]),
                    Some(
                        "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \
                         \"Unconfined\")",
                    ),
                ),
            ],
        );
    }

    #[test]
    fn annotations_counted_once() {
        let spec = pod(&[json!({})]);
        let annotated = |key: &str, value: &str| json!({"annotations": {key: value}});
        assert_eq!(said(judge_annotations, &annotated(OF_POD, "runtime/default"), &spec), None);
        assert_eq!(said(judge_annotations, &annotated(&format!("{OF_CONTAINER}other"), "unconfined"), &spec), None);
        assert_eq!(
            said(judge_annotations, &annotated(&format!("{OF_CONTAINER}a"), "unconfined"), &spec).as_deref(),
            Some(
                "seccompProfile (forbidden annotation container.seccomp.security.alpha.kubernetes.io/a=\"unconfined\")"
            )
        );
    }
}
