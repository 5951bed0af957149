//! Baseline: the AppArmor profile of the runtime, or one of the node's own, by field or by annotation.

use super::{Pod, Violation, containers, insert, plural, quoted, text};

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn judge(pod: Pod<'_>) -> Option<Violation> {
    let (mut setters, mut values) = (Vec::new(), Vec::new());
    let mut forbidden = |profile: Option<&serde_json::Value>| {
        let kind = profile.map(|p| text(p, "/type")).filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        kind.inspect(|kind| insert(&mut values, kind)).is_some()
    };
    if forbidden(pod.security("/appArmorProfile")) {
        setters.push("pod".to_owned());
    }
    let bad = pod.containers_where(|c| forbidden(c.security("/appArmorProfile")));
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    let good = |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let annotated = pod.annotations().filter(|(key, value)| key.starts_with(ANNOTATION) && !good(value));
    let mut annotated: Vec<String> = annotated.map(|(key, value)| format!("{key}={value:?}")).collect();
    annotated.sort();
    if !annotated.is_empty() {
        setters.push(plural("annotation", "annotations", &annotated).to_owned());
        values.append(&mut annotated);
    }
    (!setters.is_empty()).then(|| {
        let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", &values);
        let detail = format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values));
        Violation::new(reason, detail)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{assert_cases, pod, said};
    use super::*;

    #[test]
    fn nobody_is_unconfined() {
        let unconfined = json!({"appArmorProfile": {"type": "Unconfined"}});
        let mut both = pod(std::slice::from_ref(&unconfined));
        both["securityContext"] = unconfined;
        assert_cases(
            judge,
            &[
                (pod(&[json!({"appArmorProfile": {"type": "Localhost"}})]), None),
                (
                    both,
                    Some(
                        "forbidden AppArmor profile (pod and container \"a\" must not set AppArmor profile type to \
                         \"Unconfined\")",
                    ),
                ),
            ],
        );
        let annotated = |value: &str| json!({"annotations": {format!("{ANNOTATION}a"): value}});
        assert_eq!(said(judge, &annotated("localhost/mine"), &json!({})), None);
        let text = said(judge, &annotated("unconfined"), &json!({})).unwrap();
        assert!(text.starts_with("forbidden AppArmor profile (annotation must not set"), "{text}");
    }
}
