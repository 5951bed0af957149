//! Restricted: no process gets more rights than its parent.

use serde_json::Value;

use super::{Pod, Violation, containers};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let bad = pod.containers_where(|c| c.security("/allowPrivilegeEscalation") != Some(&Value::Bool(false)));
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
        Violation::new("allowPrivilegeEscalation != false", detail)
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
    fn every_container_says_no() {
        assert_cases(
            judge,
            &[
                (pod(&[json!({"allowPrivilegeEscalation": false})]), None),
                (
                    pod(&[json!({}), json!({"allowPrivilegeEscalation": true})]),
                    Some(
                        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set \
                         securityContext.allowPrivilegeEscalation=false)",
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
