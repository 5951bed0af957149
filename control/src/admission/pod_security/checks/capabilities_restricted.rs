//! Restricted: all capabilities are dropped, and at most the one for low ports is added.

use super::{Pod, Violation, containers, insert, list, quoted};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let keeping = pod.containers_where(|container| {
        !list(container.0, "/securityContext/capabilities/drop").iter().any(|c| c == "ALL")
    });
    let mut added = Vec::new();
    let adding = pod.containers_where(|container| {
        let capabilities = list(container.0, "/securityContext/capabilities/add").iter().filter_map(|c| c.as_str());
        let other: Vec<&str> = capabilities.filter(|c| *c != "NET_BIND_SERVICE").collect();
        for capability in &other {
            insert(&mut added, capability);
        }
        !other.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        let (who, what) = (containers(&adding), quoted(&added));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
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
    fn all_are_dropped_and_at_most_one_is_added() {
        assert_cases(
            judge,
            &[
                (pod(&[json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})]), None),
                (
                    pod(&[json!({}), json!({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}})]),
                    Some(
                        "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; \
                         container \"b\" must not include \"CHOWN\" in securityContext.capabilities.add)",
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
