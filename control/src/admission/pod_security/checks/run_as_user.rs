//! Restricted: nobody asks to be root.

use serde_json::Value;

use super::{Pod, Violation, setters};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let root = |user: Option<&Value>| user.and_then(Value::as_i64) == Some(0);
    let bad = pod.containers_where(|c| root(c.security("/runAsUser")));
    let who = setters(root(pod.security("/runAsUser")), &bad)?;
    Some(Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
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
    fn user_zero_is_not_asked_for() {
        let mut both = pod(&[json!({"runAsUser": 0}), json!({"runAsUser": 0})]);
        both["securityContext"] = json!({"runAsUser": 0});
        let mut own_users = both.clone();
        own_users["hostUsers"] = json!(false);
        assert_cases(
            judge,
            &[
                (pod(&[json!({"runAsUser": 1000}), json!({})]), None),
                (both, Some("runAsUser=0 (pod and containers \"a\", \"b\" must not set runAsUser=0)")),
            ],
        );
        assert_cases(judge_outside_user_namespaces, &[(own_users, None)]);
    }
}
