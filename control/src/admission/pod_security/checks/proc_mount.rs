//! The masks of /proc stay on: at baseline unless the pod has users of its own, at restricted always.

use serde_json::Value;

use super::{Pod, Violation, containers, insert, quoted};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let mut kinds = Vec::new();
    let bad = pod.containers_where(|container| {
        let kind = container.security("/procMount").and_then(Value::as_str).filter(|kind| *kind != "Default");
        kind.inspect(|kind| insert(&mut kinds, kind)).is_some()
    });
    (!bad.is_empty()).then(|| {
        let (who, what) = (containers(&bad), quoted(&kinds));
        Violation::new("procMount", format!("{who} must not set securityContext.procMount to {what}"))
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
    fn proc_is_masked() {
        let unmasked = pod(&[json!({"procMount": "Unmasked"})]);
        let mut own_users = unmasked.clone();
        own_users["hostUsers"] = json!(false);
        let says = Some("procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")");
        assert_cases(judge, &[(pod(&[json!({"procMount": "Default"})]), None), (own_users.clone(), says)]);
        assert_cases(judge_outside_user_namespaces, &[(own_users, None), (unmasked, says)]);
    }
}
