//! Baseline: a probe or a hook asks the pod itself, no other host.

use super::{Pod, Violation, insert, plural, quoted, text};

const HANDLERS: [&str; 5] =
    ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let (mut hosts, mut names) = (Vec::new(), Vec::new());
    for container in pod.containers() {
        for (handler, how) in HANDLERS.iter().flat_map(|handler| [(handler, "httpGet"), (handler, "tcpSocket")]) {
            let host = text(container.0, &format!("{handler}/{how}/host"));
            if !host.is_empty() {
                insert(&mut hosts, host);
                insert(&mut names, container.name());
            }
        }
    }
    (!names.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {} {}",
            plural("container", "containers", &names),
            quoted(&names),
            plural("uses", "use", &names),
            plural("probe or lifecycle host", "probe or lifecycle hosts", &hosts),
            quoted(&hosts)
        );
        Violation::new("probe or lifecycle host", detail)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::assert_cases;
    use super::*;

    #[test]
    fn a_probe_asks_the_pod() {
        assert_cases(
            judge,
            &[
                (json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": 1}}}]}), None),
                (
                    json!({"containers": [{"name": "a", "startupProbe": {"tcpSocket": {"host": "x"}},
                        "lifecycle": {"preStop": {"httpGet": {"host": "w"}}}}]}),
                    Some("probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"w\", \"x\")"),
                ),
            ],
        );
    }
}
