//! Baseline: only kernel parameters that change nothing outside the pod.

use super::{Pod, Violation, list, text};

/// Each with the minor version since which it is safe.
const SAFE: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    judge_at(pod, 0)
}

pub(super) fn judge_1_27(pod: Pod<'_>) -> Option<Violation> {
    judge_at(pod, 27)
}

pub(super) fn judge_1_29(pod: Pod<'_>) -> Option<Violation> {
    judge_at(pod, 29)
}

pub(super) fn judge_1_32(pod: Pod<'_>) -> Option<Violation> {
    judge_at(pod, 32)
}

fn judge_at(pod: Pod<'_>, version: u32) -> Option<Violation> {
    let safe = |name: &str| SAFE.iter().any(|(known, since)| *known == name && *since <= version);
    let all = list(pod.spec, "/securityContext/sysctls").iter().map(|sysctl| text(sysctl, "/name"));
    let bad: Vec<&str> = all.filter(|name| !safe(name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::assert_cases;
    use super::*;

    #[test]
    fn what_is_safe_grew() {
        let spec = json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced"}, {"name": "kernel.msgmax"},
            {"name": "net.ipv4.tcp_rmem"}]}});
        assert_cases(judge, &[(spec.clone(), Some("forbidden sysctls (kernel.msgmax, net.ipv4.tcp_rmem)"))]);
        assert_cases(judge_1_32, &[(spec, Some("forbidden sysctls (kernel.msgmax)"))]);
    }
}
