//! Baseline: a pod shares neither network nor processes nor IPC with its node.

use serde_json::Value;

use super::{Pod, Violation};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec.get(**field) == Some(&Value::Bool(true)))
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::assert_cases;
    use super::*;

    #[test]
    fn a_pod_has_namespaces_of_its_own() {
        assert_cases(
            judge,
            &[
                (json!({"hostNetwork": false}), None),
                (
                    json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
                    Some("host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)"),
                ),
            ],
        );
    }
}
