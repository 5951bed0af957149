//! Security contexts, as far as they can contradict themselves.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{int, is_true, list, some, text};

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

pub(super) fn validate_pod(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(context) = some(spec, "/securityContext") else { return };
    if is_true(spec, "/shareProcessNamespace") && is_true(spec, "/hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), &json!(true), why);
    }
    let path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        validate_id(int(context, &format!("/{field}")), &path.child(field), errors);
    }
    for (index, group) in list(context, "/supplementalGroups").iter().enumerate() {
        validate_id(group.as_i64(), &path.child("supplementalGroups").index(index), errors);
    }
    validate_seccomp(context, &path, errors);
}

pub(super) fn validate_container(container: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(context) = some(container, "/securityContext") else { return };
    for field in ["runAsUser", "runAsGroup"] {
        validate_id(int(context, &format!("/{field}")), &path.child(field), errors);
    }
    validate_seccomp(context, path, errors);
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if is_true(context, "/privileged") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context, why);
        }
        if list(context, "/capabilities/add").iter().any(|c| matches!(c.as_str(), Some("CAP_SYS_ADMIN"))) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context, why);
        }
    }
}

fn validate_id(id: Option<i64>, path: &Path, errors: &mut ErrorList) {
    if let Some(id) = id.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        errors.invalid(path, &json!(id), ID_RANGE);
    }
}

fn validate_seccomp(context: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(profile) = some(context, "/seccompProfile") else { return };
    let path = path.child("seccompProfile");
    let file = text(profile, "/localhostProfile");
    match text(profile, "/type") {
        "Localhost" if file.is_empty() => {
            errors.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost");
        }
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        other => errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints;
    use super::*;

    #[test]
    fn ids_are_in_range_and_privileges_agree() {
        let context = json!({"runAsUser": -1, "privileged": true, "allowPrivilegeEscalation": false});
        let all = complaints(&json!({"containers": [{"name": "a", "image": "x", "securityContext": context}]}));
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[0],
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"
        );
        assert!(all[1].ends_with("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
    }
}
