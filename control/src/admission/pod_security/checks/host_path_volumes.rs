//! Baseline: no folder of the node in a pod.

use super::{Pod, Violation, list, plural, quoted, some, text};

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let volumes = list(pod.spec, "/volumes").iter().filter(|v| some(v, "/hostPath").is_some());
    let names: Vec<&str> = volumes.map(|v| text(v, "/name")).collect();
    (!names.is_empty()).then(|| {
        Violation::new("hostPath volumes", format!("{} {}", plural("volume", "volumes", &names), quoted(&names)))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::assert_cases;
    use super::*;

    #[test]
    fn the_node_has_its_files_for_itself() {
        let host = |name: &str| json!({"name": name, "hostPath": {"path": "/"}});
        assert_cases(
            judge,
            &[
                (json!({"volumes": [{"name": "a", "emptyDir": {}}]}), None),
                (json!({"volumes": [host("a")]}), Some("hostPath volumes (volume \"a\")")),
                (json!({"volumes": [host("a"), host("b")]}), Some("hostPath volumes (volumes \"a\", \"b\")")),
            ],
        );
    }
}
