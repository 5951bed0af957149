//! Baseline: no capability beyond those that containers have by default.

use super::{Pod, Violation, containers, insert, list, quoted};

const DEFAULT: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let mut added = Vec::new();
    let bad = pod.containers_where(|container| {
        let capabilities = list(container.0, "/securityContext/capabilities/add").iter().filter_map(|c| c.as_str());
        let other: Vec<&str> = capabilities.filter(|c| !DEFAULT.contains(c)).collect();
        for capability in &other {
            insert(&mut added, capability);
        }
        !other.is_empty()
    });
    (!bad.is_empty()).then(|| {
        let (who, what) = (containers(&bad), quoted(&added));
        let detail = format!("{who} must not include {what} in securityContext.capabilities.add");
        Violation::new("non-default capabilities", detail)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod};
    use super::*;

    #[test]
    fn what_is_added_is_default() {
        assert_cases(
            judge,
            &[
                (pod(&[json!({"capabilities": {"add": ["CHOWN"]}})]), None),
                (
                    pod(&[json!({"capabilities": {"add": ["SYS_ADMIN", "NET_RAW"]}}), json!({})]),
                    Some(
                        "non-default capabilities (container \"a\" must not include \"NET_RAW\", \"SYS_ADMIN\" in \
                         securityContext.capabilities.add)",
                    ),
                ),
            ],
        );
    }
}
