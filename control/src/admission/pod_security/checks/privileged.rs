//! Baseline: no container that is as good as root on the node.

use serde_json::Value;

use super::{Pod, Violation, containers};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let bad = pod.containers_where(|c| c.security("/privileged") == Some(&Value::Bool(true)));
    (!bad.is_empty()).then(|| {
        Violation::new("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod};
    use super::*;

    #[test]
    fn nobody_is_privileged() {
        assert_cases(
            judge,
            &[
                (pod(&[json!({"privileged": false})]), None),
                (
                    pod(&[json!({}), json!({"privileged": true})]),
                    Some("privileged (container \"b\" must not set securityContext.privileged=true)"),
                ),
            ],
        );
    }
}
