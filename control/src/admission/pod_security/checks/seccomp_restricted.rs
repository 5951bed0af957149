//! Restricted: everybody asks for a filter of system calls.

use super::{Pod, Violation, containers, seccomp_baseline};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    if let Some(violation) = seccomp_baseline::judge(pod) {
        return Some(violation);
    }
    let of_pod = pod.security("/seccompProfile").is_some_and(seccomp_baseline::is_good);
    let silent = pod.containers_where(|c| c.security("/seccompProfile").is_none() && !of_pod);
    (!silent.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&silent)
        );
        Violation::new("seccompProfile", detail)
    })
}

pub(super) fn judge_unless_windows(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { judge(pod) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod};
    use super::*;

    #[test]
    fn the_pod_or_each_container_has_a_profile() {
        let mut by_pod = pod(&[json!({})]);
        by_pod["securityContext"] = json!({"seccompProfile": {"type": "RuntimeDefault"}});
        assert_cases(
            judge,
            &[
                (by_pod, None),
                (
                    pod(&[json!({}), json!({"seccompProfile": {"type": "Localhost"}})]),
                    Some(
                        "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \
                         \"RuntimeDefault\" or \"Localhost\")",
                    ),
                ),
                (
                    pod(&[json!({"seccompProfile": {"type": "Unconfined"}})]),
                    Some(
                        "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \
                         \"Unconfined\")",
                    ),
                ),
            ],
        );
        assert_cases(
            judge_unless_windows,
            &[(json!({"os": {"name": "windows"}, "containers": [{"name": "a"}]}), None)],
        );
    }
}
