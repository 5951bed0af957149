//! Baseline: SELinux types of containers only, and neither user nor role.

use serde_json::Value;

use super::{Pod, Violation, insert, plural, quoted, setters, text};

const TYPES: [&str; 4] = ["", "container_t", "container_init_t", "container_kvm_t"];
const ENGINE: &str = "container_engine_t";

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    judge_by(pod, |kind| TYPES.contains(&kind))
}

pub(super) fn judge_1_31(pod: Pod<'_>) -> Option<Violation> {
    judge_by(pod, |kind| TYPES.contains(&kind) || kind == ENGINE)
}

fn judge_by(pod: Pod<'_>, allowed: impl Fn(&str) -> bool) -> Option<Violation> {
    let (mut types, mut user, mut role) = (Vec::new(), false, false);
    let mut forbidden = |options: Option<&Value>| {
        let Some(options) = options else { return false };
        let (bad_type, has) = (!allowed(text(options, "/type")), |field: &str| !text(options, field).is_empty());
        if bad_type {
            insert(&mut types, text(options, "/type"));
        }
        user |= has("/user");
        role |= has("/role");
        bad_type || has("/user") || has("/role")
    };
    let of_pod = forbidden(pod.security("/seLinuxOptions"));
    let bad = pod.containers_where(|c| forbidden(c.security("/seLinuxOptions")));
    let who = setters(of_pod, &bad)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", &types), quoted(&types)));
    }
    for (set, text) in [(user, "user may not be set"), (role, "role may not be set")] {
        if set {
            what.push(text.to_owned());
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod};
    use super::*;

    #[test]
    fn a_type_is_a_containers_and_the_rest_is_unset() {
        let with = |options: Value| pod(&[json!({ "seLinuxOptions": options })]);
        assert_cases(
            judge,
            &[
                (with(json!({"type": "container_t", "level": "s0"})), None),
                (
                    with(json!({"type": "spc_t", "user": "u", "role": "r"})),
                    Some(
                        "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; \
                         user may not be set; role may not be set)",
                    ),
                ),
            ],
        );
        assert_cases(judge_1_31, &[(with(json!({"type": ENGINE})), None)]);
        assert!(judge(Pod { metadata: &json!({}), spec: &with(json!({"type": ENGINE})) }).is_some());
    }
}
