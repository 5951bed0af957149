//! Baseline: no port of the node.

use serde_json::Value;

use super::{Pod, Violation, containers, insert, list, plural};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let mut ports = Vec::new();
    let bad = pod.containers_where(|container| {
        let taken: Vec<i64> = list(container.0, "/ports")
            .iter()
            .filter_map(|port| port.get("hostPort").and_then(Value::as_i64))
            .filter(|port| *port != 0)
            .collect();
        for port in &taken {
            insert(&mut ports, &port.to_string());
        }
        !taken.is_empty()
    });
    (!bad.is_empty()).then(|| {
        let (uses, what) = (plural("uses", "use", &bad), plural("hostPort", "hostPorts", &ports));
        Violation::new("hostPort", format!("{} {uses} {what} {}", containers(&bad), ports.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::assert_cases;
    use super::*;

    #[test]
    fn the_node_has_its_ports_for_itself() {
        let container =
            |name: &str, port: i64| json!({"name": name, "ports": [{"containerPort": 1, "hostPort": port}]});
        assert_cases(
            judge,
            &[
                (json!({"containers": [container("a", 0)]}), None),
                (json!({"containers": [container("a", 80)]}), Some("hostPort (container \"a\" uses hostPort 80)")),
                (
                    json!({"initContainers": [container("i", 9)], "containers": [container("a", 80)]}),
                    Some("hostPort (containers \"i\", \"a\" use hostPorts 80, 9)"),
                ),
            ],
        );
    }
}
