//! The pod spec, wherever it stands (a Pod, a workload's template): its defaults and its rules, a file per topic.
//!
//! Defaults are idempotent. Rules judge a defaulted spec and speak with Kubernetes' paths and texts.

pub mod access;
pub mod busiest;
mod claims;
mod containers;
pub(in crate::kinds::core) mod disks;
mod env;
mod handlers;
pub mod image;
mod mounts;
mod network;
mod os;
mod podlevel;
mod ports;
pub mod resources;
mod restarts;
pub mod scheduling;
mod security;
mod sources;
mod spread;
mod unsupported;
mod volumes;
mod warnings;
mod windows;

use serde_json::{Value, json};

pub(in crate::kinds) use self::ports::validate_number_or_name as validate_port_reference;
pub(in crate::kinds) use self::security::PROFILE_MAX;
pub(in crate::kinds) use self::spread::merge_label_keys;
pub use self::unsupported::{Unsupported, unsupported};
pub(in crate::kinds) use self::volumes::validate_local;
pub use self::warnings::warnings;
use crate::field::{ErrorList, Path};
use crate::kinds::check::required_one_of;
use crate::kinds::tree::{drop_false, fill, int, list, list_mut, map, object, set, some, text};
use crate::meta::{self, names, push_all};
use crate::object::name as name_of;

/// Lists of containers in a pod spec.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills Kubernetes' defaults into a pod spec.
pub fn default(spec: &mut Value) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    object(spec, "securityContext");
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        drop_false(spec, field);
    }
    mirror_service_account(spec);
    volumes::default(spec);
    for field in CONTAINER_LISTS {
        for container in list_mut(spec, field) {
            containers::default(container);
        }
    }
}

/// Fills what only a Pod gets, beyond [`default`].
pub fn default_pod(spec: &mut Value) {
    fill(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for field in ["initContainers", "containers"] {
        for container in list_mut(spec, field) {
            resources::default_requests(container);
            if host_network {
                ports::default_host_ports(container);
            }
        }
    }
    podlevel::default(spec);
}

/// `serviceAccount` is the old name of `serviceAccountName`: both say the same.
fn mirror_service_account(spec: &mut Value) {
    let name = [text(spec, "/serviceAccountName"), text(spec, "/serviceAccount")];
    let Some(name) = name.into_iter().find(|n| !n.is_empty()).map(str::to_owned) else { return };
    set(spec, "serviceAccountName", name.clone());
    set(spec, "serviceAccount", name);
}

/// Whether the spec at `path` is a Pod's, and not a template's.
fn is_pod(path: &Path) -> bool {
    *path == Path::new("spec")
}

/// Judges the spec of a pod that is changed: what was wrong with it before is not held against the change.
pub fn validate_change(new: &Value, old: &Value, errors: &mut ErrorList) {
    errors.judge_change(new, old, validate_pod);
}

/// Judges the spec of a pod.
pub fn validate_pod(pod: &Value, errors: &mut ErrorList) {
    let (spec, path) = (pod.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    judge(spec, name_of(pod), &path, errors);
    if text(spec, "/serviceAccountName").is_empty() {
        volumes::forbid_tokens(spec, &path.child("volumes"), errors);
    }
}

/// Judges the spec of a template's pods.
pub fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    judge(spec, "", path, errors);
}

/// `pod`: the pod's name, if it has one already.
fn judge(spec: &Value, pod: &str, path: &Path, errors: &mut ErrorList) {
    let volumes = volumes::validate(spec, pod, path, errors);
    let claims = claims::validate(spec, &path.child("resourceClaims"), errors);
    containers::validate_all(&containers::Known { spec, in_pod: is_pod(path), volumes, claims }, path, errors);
    podlevel::validate(spec, path, errors);
    required_one_of(spec, "restartPolicy", path, &["Always", "OnFailure", "Never"], errors);
    network::validate(spec, path, errors);
    meta::labels(spec.get("nodeSelector"), &path.child("nodeSelector"), errors);
    security::validate_pod(spec, path, errors);
    validate_names(spec, path, errors);
    validate_deadlines(spec, path, errors);
    scheduling::validate(spec, path, errors);
    os::validate_host_users(spec, path, errors);
    os::validate(spec, path, errors);
    windows::validate_host_processes(spec, path, errors);
    for (index, gate) in list(spec, "/readinessGates").iter().enumerate() {
        let kind = text(gate, "/conditionType");
        let path = path.child("readinessGates").index(index).child("conditionType");
        push_all(errors, &path, kind, names::qualified_name(kind));
    }
    if let Some(policy) = some(spec, "/preemptionPolicy").and_then(Value::as_str) {
        let good = &["PreemptLowerPriority", "Never"];
        match policy {
            "" => errors.required(&path.child("preemptionPolicy"), ""),
            policy if good.contains(&policy) => {}
            other => errors.not_supported(&path.child("preemptionPolicy"), other, good),
        }
    }
    if let Some(overhead) = some(spec, "/overhead") {
        let path = path.child("overhead");
        resources::validate_list(overhead, &path.child("limits"), errors);
        resources::validate_relation(&json!({ "limits": overhead }), &path, errors);
    }
}

fn validate_names(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["serviceAccountName", "nodeName", "runtimeClassName", "priorityClassName"] {
        let name = text(spec, &format!("/{field}"));
        // The empty name of a class is a name that no class has.
        if !name.is_empty() || field == "runtimeClassName" && some(spec, "/runtimeClassName").is_some() {
            push_all(errors, &path.child(field), name, names::dns1123_subdomain(name));
        }
    }
    for (index, secret) in list(spec, "/imagePullSecrets").iter().enumerate() {
        if map(secret, "").any(|(key, _)| key != "name") {
            errors.invalid(&path.child("imagePullSecrets").index(index), secret, "only name may be set");
        }
    }
}

fn validate_deadlines(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(seconds) = int(spec, "/activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let path = path.child("activeDeadlineSeconds");
        errors.invalid(&path, &json!(seconds), "must be between 1 and 2147483647, inclusive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a pod of one container, each with these fields, is `why` and nothing else.
    pub(super) fn assert_refused(spec: Value, container: &Value, why: &str) {
        let mut spec = spec;
        let mut all = json!({"name": "a", "image": "x"});
        container.as_object().into_iter().flatten().for_each(|(key, value)| all[key] = value.clone());
        spec["containers"] = json!([all]);
        assert_eq!(complaints(&spec), [why], "{spec}");
    }

    /// Each volume is refused for the reason beside it.
    pub(super) fn assert_volumes_refused(rows: &[(Value, &str)]) {
        for (source, why) in rows {
            let mut volume = source.clone();
            volume["name"] = json!("v");
            assert_refused(json!({ "volumes": [volume] }), &json!({}), &format!("spec.volumes[0].{why}"));
        }
    }

    /// Of a pod with these volumes, whose container has these mounts.
    pub(super) fn complaints_of_mounts(volumes: &Value, mounts: &Value) -> Vec<String> {
        let container = json!({"name": "a", "image": "x", "volumeMounts": mounts});
        complaints(&json!({"containers": [container], "volumes": volumes}))
    }

    pub(super) fn complaints(spec: &Value) -> Vec<String> {
        let mut spec = spec.clone();
        default(&mut spec);
        default_pod(&mut spec);
        let mut errors = ErrorList::default();
        validate(&spec, &Path::new("spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bare_pod_spec_gets_kubernetes_defaults_once() {
        let mut spec = json!({"containers": [{"name": "a", "image": "nginx"}]});
        default(&mut spec);
        default_pod(&mut spec);
        assert_eq!(
            spec,
            json!({
                "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                "schedulerName": "default-scheduler", "securityContext": {}, "enableServiceLinks": true
            })
        );
        let once = spec.clone();
        default(&mut spec);
        default_pod(&mut spec);
        assert_eq!(spec, once);
    }

    #[test]
    fn the_old_name_of_the_service_account_mirrors_the_new() {
        let mut spec = json!({"serviceAccount": "robot"});
        default(&mut spec);
        assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("robot"), &json!("robot")));
    }

    #[test]
    fn a_good_spec_has_no_complaints() {
        let spec = json!({"containers": [{"name": "a", "image": "r.io/x@sha256:00", "ports": [{"containerPort": 80, "name": "http"}],
            "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"memory": "64Mi", "cpu": "100m"}},
            "livenessProbe": {"httpGet": {"port": "http"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v"}]});
        assert_eq!(complaints(&spec), Vec::<String>::new());
    }

    #[test]
    fn a_runtime_class_that_is_named_has_a_name() {
        let said = complaints(&json!({"containers": [{"name": "a", "image": "x"}], "runtimeClassName": ""}));
        assert!(said.len() == 1 && said[0].starts_with("spec.runtimeClassName: Invalid value: \"\": "), "{said:?}");
    }

    #[test]
    fn policies_have_few_values() {
        let spec =
            json!({"containers": [{"name": "a", "image": "x"}], "restartPolicy": "Sometimes", "dnsPolicy": "No"});
        assert_eq!(
            complaints(&spec),
            [
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \
                 \"Never\"",
                "spec.dnsPolicy: Unsupported value: \"No\": supported values: \"ClusterFirstWithHostNet\", \
                 \"ClusterFirst\", \"Default\", \"None\""
            ]
        );
    }
}
