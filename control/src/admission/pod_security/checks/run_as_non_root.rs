//! Restricted: nothing runs as root.

use serde_json::Value;

use super::{Pod, Violation, containers, setters};

const REASON: &str = "runAsNonRoot != true";

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let (yes, no) = (Some(&Value::Bool(true)), Some(&Value::Bool(false)));
    let of_pod = pod.security("/runAsNonRoot");
    let bad = pod.containers_where(|c| c.security("/runAsNonRoot") == no);
    if let Some(who) = setters(of_pod == no, &bad) {
        return Some(Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false")));
    }
    let silent = pod.containers_where(|c| c.security("/runAsNonRoot").is_none() && of_pod != yes);
    (!silent.is_empty()).then(|| {
        Violation::new(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
    })
}

pub(super) fn judge_outside_user_namespaces(pod: Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { judge(pod) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod};
    use super::*;

    #[test]
    fn the_pod_or_each_container_says_so() {
        let with = |own: Value, contexts: &[Value]| {
            let mut pod = pod(contexts);
            pod["securityContext"] = own;
            pod
        };
        let (yes, no) = (json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false}));
        assert_cases(
            judge,
            &[
                (with(yes.clone(), &[json!({})]), None),
                (with(json!({}), std::slice::from_ref(&yes)), None),
                (
                    with(json!({}), &[yes.clone(), json!({})]),
                    Some("runAsNonRoot != true (pod or container \"b\" must set securityContext.runAsNonRoot=true)"),
                ),
                (
                    with(no.clone(), &[no]),
                    Some(
                        "runAsNonRoot != true (pod and container \"a\" must not set securityContext.runAsNonRoot=false)",
                    ),
                ),
            ],
        );
        assert_cases(
            judge_outside_user_namespaces,
            &[(json!({"hostUsers": false, "containers": [{"name": "a"}]}), None)],
        );
    }
}
