//! Security contexts, as far as they can contradict themselves.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::volumes::validate_local;
use super::windows;
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{int, is_true, list, some, text};

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
/// Bytes of the name of an AppArmor profile.
pub(in crate::kinds) const PROFILE_MAX: usize = 4095;
const SYSCTL_MAX: usize = 253;
const SYSCTL_SHAPE: &str = "must have at most 253 characters and match regex \
     ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
/// Fields with few values.
const CHOICES: [(&str, &[&str]); 3] = [
    ("fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
    ("supplementalGroupsPolicy", &["Merge", "Strict"]),
    ("seLinuxChangePolicy", &["MountOption", "Recursive"]),
];

pub(super) fn validate_pod(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(context) = some(spec, "/securityContext") else { return };
    let path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        validate_id(int(context, &format!("/{field}")), &path.child(field), errors);
    }
    for (index, group) in list(context, "/supplementalGroups").iter().enumerate() {
        validate_id(group.as_i64(), &path.child("supplementalGroups").index(index), errors);
    }
    if is_true(spec, "/shareProcessNamespace") && is_true(spec, "/hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), &json!(true), why);
    }
    validate_sysctls(spec, &path.child("sysctls"), errors);
    validate_profiles(context, &path, errors);
    windows::validate(context, &path, errors);
    for (field, values) in CHOICES {
        if let Some(value) = some(context, &format!("/{field}")).and_then(Value::as_str)
            && !values.contains(&value)
        {
            errors.not_supported(&path.child(field), value, values);
        }
    }
}

/// `host_users`: whether the pod's users are the host's.
pub(super) fn validate_container(container: &Value, host_users: bool, path: &Path, errors: &mut ErrorList) {
    let Some(context) = some(container, "/securityContext") else { return };
    for field in ["runAsUser", "runAsGroup"] {
        validate_id(int(context, &format!("/{field}")), &path.child(field), errors);
    }
    match some(context, "/procMount").and_then(Value::as_str) {
        Some("Unmasked") if host_users => {
            let why = "`hostUsers` must be false to use `Unmasked`";
            errors.invalid(&path.child("procMount"), &json!("Unmasked"), why);
        }
        None | Some("Default" | "Unmasked") => {}
        Some(other) => errors.not_supported(&path.child("procMount"), other, &["Default", "Unmasked"]),
    }
    validate_profiles(context, path, errors);
    windows::validate(context, path, errors);
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

fn validate_sysctls(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, sysctl) in list(spec, "/securityContext/sysctls").iter().enumerate() {
        let (name, path) = (text(sysctl, "/name"), path.index(index).child("name"));
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            errors.invalid(&path, &json!(name), SYSCTL_SHAPE);
        } else if seen.contains(name) {
            errors.duplicate(&path, &json!(name));
        }
        if let Some(field) = namespace_of(name).filter(|field| is_true(spec, &format!("/{field}"))) {
            errors.invalid(&path, &json!(name), &format!("may not be specified when '{field}' is true"));
        }
        seen.insert(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    name.len() <= SYSCTL_MAX
        && name
            .split(['.', '/'])
            .map(str::as_bytes)
            .all(|part| edge(part.first()) && edge(part.last()) && part.iter().all(|b| inner(*b)))
}

/// The field that shares with the host the namespace which a kernel parameter belongs to.
fn namespace_of(name: &str) -> Option<&'static str> {
    // Dots and slashes change places if the first separator is a slash.
    let slashed = name.find(['.', '/']).is_some_and(|at| name.as_bytes().get(at) == Some(&b'/'));
    let name = if slashed { name.replace('.', "\0").replace('/', ".").replace('\0', "/") } else { name.to_owned() };
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start));
    match name.as_str() {
        "kernel.sem" => Some("hostIPC"),
        _ if ipc => Some("hostIPC"),
        name if name.starts_with("net.") => Some("hostNetwork"),
        _ => None,
    }
}

fn validate_profiles(context: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(profile) = some(context, "/seccompProfile") {
        validate_seccomp(profile, &path.child("seccompProfile"), errors);
    }
    if let Some(profile) = some(context, "/appArmorProfile") {
        validate_app_armor(profile, &path.child("appArmorProfile"), errors);
    }
}

fn validate_seccomp(profile: &Value, path: &Path, errors: &mut ErrorList) {
    validate_type(profile, "seccompProfile", path, errors);
    let (file, path) = (some(profile, "/localhostProfile"), path.child("localhostProfile"));
    match (text(profile, "/type"), file) {
        ("Localhost", None) => errors.required(&path, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => validate_local(file.as_str().unwrap_or_default(), &path, errors),
        (_, Some(_)) => errors.invalid(&path, profile, "can only be set when seccomp type is Localhost"),
        (_, None) => {}
    }
}

fn validate_app_armor(profile: &Value, path: &Path, errors: &mut ErrorList) {
    validate_type(profile, "appArmorProfile", path, errors);
    let (name, path) = (some(profile, "/localhostProfile").and_then(Value::as_str), path.child("localhostProfile"));
    match (text(profile, "/type"), name) {
        ("Localhost", None | Some("")) => errors.required(&path, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&path, &json!(name), "must not be padded with whitespace");
            }
            if name.len() > PROFILE_MAX {
                errors.too_long(&path, PROFILE_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&path, &json!(name), "can only be set when AppArmor type is Localhost");
        }
        _ => {}
    }
}

fn validate_type(profile: &Value, what: &str, path: &Path, errors: &mut ErrorList) {
    match text(profile, "/type") {
        "" => errors.required(&path.child("type"), &format!("type is required when {what} is set")),
        kind if PROFILE_TYPES.contains(&kind) => {}
        other => errors.not_supported(&path.child("type"), other, PROFILE_TYPES),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, complaints};
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

    #[test]
    fn a_pods_context_says_what_exists() {
        let shape = format!("Invalid value: \"a..b\": {SYSCTL_SHAPE}");
        for (context, field, why) in [
            (json!({"sysctls": [{"name": "a..b", "value": "1"}]}), "sysctls[0].name", shape.as_str()),
            (
                json!({"sysctls": [{"name": "a.b", "value": "1"}, {"name": "a.b", "value": "1"}]}),
                "sysctls[1].name",
                "Duplicate value: \"a.b\"",
            ),
            (json!({"sysctls": [{"value": "1"}]}), "sysctls[0].name", "Required value"),
            (
                json!({"fsGroupChangePolicy": "X"}),
                "fsGroupChangePolicy",
                "Unsupported value: \"X\": supported values: \"Always\", \"OnRootMismatch\"",
            ),
            (
                json!({"supplementalGroupsPolicy": "x"}),
                "supplementalGroupsPolicy",
                "Unsupported value: \"x\": supported values: \"Merge\", \"Strict\"",
            ),
            (
                json!({"seLinuxChangePolicy": "x"}),
                "seLinuxChangePolicy",
                "Unsupported value: \"x\": supported values: \"MountOption\", \"Recursive\"",
            ),
        ] {
            assert_refused(
                json!({"securityContext": context}),
                &json!({}),
                &format!("spec.securityContext.{field}: {why}"),
            );
        }
    }

    #[test]
    fn a_profile_names_a_file_if_it_is_one() {
        for (sort, kind, file, why) in [
            (
                "seccomp",
                "RuntimeDefault",
                Some("a"),
                "Invalid value: {\"localhostProfile\":\"a\",\"type\":\"RuntimeDefault\"}: can only be set when seccomp type \
                 is Localhost",
            ),
            ("seccomp", "Localhost", Some("/a"), "Invalid value: \"/a\": must be a relative path"),
            ("seccomp", "Localhost", Some("a/../b"), "Invalid value: \"a/../b\": must not contain '..'"),
            ("seccomp", "Localhost", None, "Required value: must be set when seccomp type is Localhost"),
            ("appArmor", "Localhost", None, "Required value: must be set when AppArmor type is Localhost"),
            ("appArmor", "Localhost", Some(" a"), "Invalid value: \" a\": must not be padded with whitespace"),
            (
                "appArmor",
                "Unconfined",
                Some("a"),
                "Invalid value: \"a\": can only be set when AppArmor type is Localhost",
            ),
        ] {
            let profile = format!("{sort}Profile");
            let context = json!({profile.as_str(): {"type": kind, "localhostProfile": file}});
            let place = format!("spec.securityContext.{profile}.localhostProfile");
            assert_refused(json!({"securityContext": context}), &json!({}), &format!("{place}: {why}"));
        }
        assert_refused(
            json!({"securityContext": {"appArmorProfile": {"type": "X"}}}),
            &json!({}),
            "spec.securityContext.appArmorProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \
             \"RuntimeDefault\", \"Unconfined\"",
        );
    }

    #[test]
    fn a_kernel_parameter_of_the_host_is_not_set() {
        for (name, field) in
            [("net.ipv4.x", "hostNetwork"), ("net/ipv4/a.b", "hostNetwork"), ("kernel.shmall", "hostIPC")]
        {
            let why = format!(
                "spec.securityContext.sysctls[0].name: Invalid value: {name:?}: may not be specified when '{field}' is true"
            );
            let context = json!({"sysctls": [{"name": name, "value": "1"}]});
            assert_refused(json!({"securityContext": context, field: true}), &json!({}), &why);
        }
    }

    #[test]
    fn an_unmasked_proc_needs_users_of_its_own() {
        let context = |mount: &str| json!({"securityContext": {"procMount": mount}});
        let path = "spec.containers[0].securityContext.procMount";
        assert_refused(
            json!({}),
            &context("X"),
            &format!("{path}: Unsupported value: \"X\": supported values: \"Default\", \"Unmasked\""),
        );
        assert_refused(
            json!({}),
            &context("Unmasked"),
            &format!("{path}: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"),
        );
        let mut spec = json!({"hostUsers": false, "containers": [context("Unmasked")]});
        spec["containers"][0]["name"] = json!("a");
        spec["containers"][0]["image"] = json!("x");
        assert_eq!(complaints(&spec), Vec::<String>::new());
    }
}
