//! What fits a pod's operating system, and what is shared with the host.

use serde_json::Value;

use super::CONTAINER_LISTS;
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{is_true, list, some, text};
use crate::meta::same;

const ON_LINUX: &str = "windows options cannot be set for a linux pod";
const ON_WINDOWS: &str = "cannot be set for a windows pod";
/// What a pod on Windows has not, below the pod spec.
const NOT_WINDOWS: [&str; 15] = [
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];
/// Those of them that are not given if they are empty.
const EMPTY_IS_ABSENT: [&str; 3] = ["hostPID", "hostIPC", "securityContext.sysctls"];
/// What a container on Windows has not, below its security context.
const NOT_IN_WINDOWS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(os) = some(spec, "/os") else { return };
    let os_path = path.child("os");
    match text(os, "/name") {
        "" => errors.required(&os_path.child("name"), "cannot be empty"),
        "linux" => {
            if some(spec, "/securityContext/windowsOptions").is_some() {
                errors.forbidden(&path.child("securityContext").child("windowsOptions"), ON_LINUX);
            }
            forbid_in_containers(spec, &["windowsOptions"], ON_LINUX, path, errors);
        }
        "windows" => {
            for field in NOT_WINDOWS {
                let value = some(spec, &format!("/{}", field.replace('.', "/")));
                let given = if EMPTY_IS_ABSENT.contains(&field) { !same(value, None) } else { value.is_some() };
                if given {
                    errors.forbidden(&field.split('.').fold(path.clone(), |path, part| path.child(part)), ON_WINDOWS);
                }
            }
            forbid_in_containers(spec, &NOT_IN_WINDOWS, ON_WINDOWS, path, errors);
        }
        other => errors.not_supported(&os_path, other, &["linux", "windows"]),
    }
}

fn forbid_in_containers(spec: &Value, fields: &[&str], why: &str, path: &Path, errors: &mut ErrorList) {
    for kind in CONTAINER_LISTS {
        for (index, container) in list(spec, &format!("/{kind}")).iter().enumerate() {
            for field in fields {
                if some(container, &format!("/securityContext/{field}")).is_some() {
                    errors.forbidden(&path.child(kind).index(index).child("securityContext").child(field), why);
                }
            }
        }
    }
}

/// Users of its own, and the host's namespaces, exclude each other.
pub(super) fn validate_host_users(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if spec.get("hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if is_true(spec, &format!("/{field}")) {
            errors.forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::assert_refused;

    #[test]
    fn a_pod_asks_for_what_its_system_has() {
        let (linux, windows) = (json!({"name": "linux"}), json!({"name": "windows"}));
        for (spec, container, why) in [
            (
                json!({"os": {"name": "dos"}}),
                json!({}),
                "spec.os: Unsupported value: \"dos\": supported values: \"linux\", \"windows\"",
            ),
            (json!({"os": {}}), json!({}), "spec.os.name: Required value: cannot be empty"),
            (
                json!({"os": windows, "securityContext": {"seLinuxOptions": {"level": "a"}}}),
                json!({}),
                "spec.securityContext.seLinuxOptions: Forbidden: cannot be set for a windows pod",
            ),
            (
                json!({"os": windows, "hostPID": true}),
                json!({}),
                "spec.hostPID: Forbidden: cannot be set for a windows pod",
            ),
            (
                json!({"os": windows}),
                json!({"securityContext": {"privileged": false}}),
                "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ),
            (
                json!({"os": linux, "securityContext": {"windowsOptions": {"runAsUserName": "a"}}}),
                json!({}),
                "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
            ),
            (
                json!({"os": linux}),
                json!({"securityContext": {"windowsOptions": {"runAsUserName": "a"}}}),
                "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux \
                 pod",
            ),
        ] {
            assert_refused(spec, &container, why);
        }
    }

    #[test]
    fn users_of_its_own_and_the_hosts_namespaces_exclude_each_other() {
        for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            let why = format!("spec.{shown}: Forbidden: when `pod.Spec.HostUsers` is false");
            assert_refused(json!({"hostUsers": false, field: true}), &json!({}), &why);
        }
    }
}
