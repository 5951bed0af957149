//! THE list of checks: adding one is one file and one line here.
//!
//! A check has revisions; a policy's version picks the newest that is not newer than it. A restricted check may stand for
//! a weaker baseline check. The order of the list is that of the messages: baseline first, each by its name.

use serde_json::Value;

use super::policy::{Level, Standard, Version};

mod allow_privilege_escalation;
mod app_armor_profile;
mod capabilities_baseline;
mod capabilities_restricted;
mod host_namespaces;
mod host_path_volumes;
mod host_ports;
mod host_probes;
mod privileged;
mod proc_mount;
mod restricted_volumes;
mod run_as_non_root;
mod run_as_user;
mod se_linux_options;
mod seccomp_baseline;
mod seccomp_restricted;
mod sysctls;
mod windows_host_process;

/// The newest minor version whose checks are known.
const NEWEST: u32 = 36;

/// Why a pod is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: &'static str,
    /// Which part of the pod, in words.
    pub(super) detail: String,
}

impl Violation {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// A pod, or the template of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
}

type Judge = fn(Pod<'_>) -> Option<Violation>;

/// One check.
struct Check {
    id: &'static str,
    level: Level,
    /// Each with the minor version that it came with, the oldest first.
    revisions: &'static [(u32, Judge)],
    /// A baseline check that it makes superfluous.
    overrides: &'static str,
}

const fn baseline(id: &'static str, revisions: &'static [(u32, Judge)]) -> Check {
    Check { id, level: Level::Baseline, revisions, overrides: "" }
}

const fn restricted(id: &'static str, revisions: &'static [(u32, Judge)], overrides: &'static str) -> Check {
    Check { id, level: Level::Restricted, revisions, overrides }
}

static CHECKS: [Check; 19] = [
    baseline("appArmorProfile", &[(0, app_armor_profile::judge)]),
    baseline("capabilities_baseline", &[(0, capabilities_baseline::judge)]),
    baseline("hostNamespaces", &[(0, host_namespaces::judge)]),
    baseline("hostPathVolumes", &[(0, host_path_volumes::judge)]),
    baseline("hostPorts", &[(0, host_ports::judge)]),
    baseline("hostProbesAndHostLifecycle", &[(34, host_probes::judge)]),
    baseline("privileged", &[(0, privileged::judge)]),
    baseline("procMount", &[(0, proc_mount::judge), (35, proc_mount::judge_outside_user_namespaces)]),
    baseline("seLinuxOptions", &[(0, se_linux_options::judge), (31, se_linux_options::judge_1_31)]),
    baseline("seccompProfile_baseline", &[(0, seccomp_baseline::judge_annotations), (19, seccomp_baseline::judge)]),
    baseline(
        "sysctls",
        &[(0, sysctls::judge), (27, sysctls::judge_1_27), (29, sysctls::judge_1_29), (32, sysctls::judge_1_32)],
    ),
    baseline("windowsHostProcess", &[(0, windows_host_process::judge)]),
    restricted(
        "allowPrivilegeEscalation",
        &[(8, allow_privilege_escalation::judge), (25, allow_privilege_escalation::judge_unless_windows)],
        "",
    ),
    restricted(
        "capabilities_restricted",
        &[(22, capabilities_restricted::judge), (25, capabilities_restricted::judge_unless_windows)],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, proc_mount::judge)], "procMount"),
    restricted("restrictedVolumes", &[(0, restricted_volumes::judge)], "hostPathVolumes"),
    restricted(
        "runAsNonRoot",
        &[(0, run_as_non_root::judge), (35, run_as_non_root::judge_outside_user_namespaces)],
        "",
    ),
    restricted("runAsUser", &[(23, run_as_user::judge), (35, run_as_user::judge_outside_user_namespaces)], ""),
    restricted(
        "seccompProfile_restricted",
        &[(19, seccomp_restricted::judge), (25, seccomp_restricted::judge_unless_windows)],
        "seccompProfile_baseline",
    ),
];

impl Check {
    fn at(&self, version: u32) -> Option<Judge> {
        self.revisions.iter().rev().find(|(since, _)| *since <= version).map(|(_, judge)| *judge)
    }
}

/// Everything in a pod that a standard forbids.
pub(super) fn violations(standard: Standard, pod: Pod<'_>) -> Vec<Violation> {
    let version = match standard.version {
        Version::Latest => NEWEST,
        Version::Minor(minor) => minor.min(NEWEST),
    };
    let counts = |check: &&Check| check.level <= standard.level && standard.level != Level::Privileged;
    let overridden = |id: &str| CHECKS.iter().filter(counts).any(|c| c.overrides == id && c.at(version).is_some());
    let checks = CHECKS.iter().filter(counts).filter(|check| !overridden(check.id));
    checks.filter_map(|check| check.at(version)?(pod)).collect()
}

impl<'a> Pod<'a> {
    /// Init containers, containers, ephemeral containers.
    fn containers(self) -> impl Iterator<Item = Container<'a>> {
        let lists = ["/initContainers", "/containers", "/ephemeralContainers"];
        lists.into_iter().flat_map(move |at| list(self.spec, at)).map(Container)
    }

    /// The names of the containers of which something is true.
    fn containers_where(self, mut is: impl FnMut(Container<'a>) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| is(*container)).map(Container::name).collect()
    }

    /// A field of the pod's security context.
    fn security(self, pointer: &str) -> Option<&'a Value> {
        some(self.spec, &format!("/securityContext{pointer}"))
    }

    fn is_windows(self) -> bool {
        text(self.spec, "/os/name") == "windows"
    }

    /// Root in the pod is nobody outside it.
    fn has_user_namespace(self) -> bool {
        self.spec.get("hostUsers") == Some(&Value::Bool(false))
    }

    fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.metadata.get("annotations").and_then(Value::as_object);
        all.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

#[derive(Clone, Copy, Debug)]
struct Container<'a>(&'a Value);

impl<'a> Container<'a> {
    fn name(self) -> &'a str {
        text(self.0, "/name")
    }

    /// A field of the container's security context.
    fn security(self, pointer: &str) -> Option<&'a Value> {
        some(self.0, &format!("/securityContext{pointer}"))
    }
}

fn some<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    value.pointer(pointer).filter(|v| !v.is_null())
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Adds a value to a sorted set.
fn insert(set: &mut Vec<String>, value: &str) {
    if let Err(place) = set.binary_search_by(|have| have.as_str().cmp(value)) {
        set.insert(place, value.to_owned());
    }
}

/// `"a", "b"`.
fn quoted(items: &[impl AsRef<str>]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    quoted.join(", ")
}

/// One of two words, by how many there are.
fn plural<T>(one: &'static str, many: &'static str, items: &[T]) -> &'static str {
    if items.len() == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names), quoted(names))
}

/// `pod and containers "a", "b"`; `None` if it is neither.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, names) => Some(containers(names)),
        (true, names) => Some(format!("pod and {}", containers(names))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a check says about pods, as `reason (detail)`.
    pub(super) fn assert_cases(judge: Judge, cases: &[(Value, Option<&str>)]) {
        for (spec, expected) in cases {
            assert_eq!(said(judge, &json!({}), spec).as_deref(), *expected, "{spec}");
        }
    }

    pub(super) fn said(judge: Judge, metadata: &Value, spec: &Value) -> Option<String> {
        judge(Pod { metadata, spec }).map(|v| format!("{} ({})", v.reason, v.detail))
    }

    /// A pod of containers with these security contexts, named a, b, ….
    pub(super) fn pod(contexts: &[Value]) -> Value {
        let containers: Vec<Value> = ["a", "b", "c"]
            .iter()
            .zip(contexts)
            .map(|(name, context)| json!({"name": name, "securityContext": context}))
            .collect();
        json!({ "containers": containers })
    }

    fn reasons(level: Level, version: Version, spec: &Value) -> Vec<&'static str> {
        let pod = Pod { metadata: &json!({}), spec };
        violations(Standard { level, version }, pod).iter().map(|v| v.reason).collect()
    }

    #[test]
    fn checks_are_in_the_order_of_their_names_and_override_what_there_is() {
        assert!(CHECKS.is_sorted_by_key(|check| (check.level, check.id)));
        let is_baseline = |id: &str| CHECKS.iter().any(|c| c.id == id && c.level == Level::Baseline);
        assert!(CHECKS.iter().filter(|c| !c.overrides.is_empty()).all(|c| is_baseline(c.overrides)));
        assert!(CHECKS.iter().all(|c| c.revisions.is_sorted_by_key(|(since, _)| *since)));
    }

    #[test]
    fn an_ordinary_pod_is_baseline_and_not_restricted() {
        let spec = pod(&[json!({})]);
        assert!(reasons(Level::Privileged, Version::Latest, &spec).is_empty());
        assert!(reasons(Level::Baseline, Version::Latest, &spec).is_empty());
        assert_eq!(
            reasons(Level::Restricted, Version::Latest, &spec),
            [
                "allowPrivilegeEscalation != false",
                "unrestricted capabilities",
                "runAsNonRoot != true",
                "seccompProfile"
            ]
        );
        assert_eq!(reasons(Level::Restricted, Version::Minor(7), &spec), ["runAsNonRoot != true"]);
        let good = pod(&[json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})]);
        assert!(reasons(Level::Restricted, Version::Latest, &good).is_empty());
    }

    #[test]
    fn a_restricted_check_stands_for_the_baseline_one() {
        let spec = json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]});
        assert_eq!(reasons(Level::Baseline, Version::Latest, &spec), ["hostPath volumes"]);
        assert_eq!(reasons(Level::Restricted, Version::Latest, &spec), ["restricted volume types"]);
    }

    #[test]
    fn a_version_from_the_future_is_the_newest_known() {
        let spec = json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "x"}}}]});
        assert_eq!(reasons(Level::Baseline, Version::Minor(99), &spec), ["probe or lifecycle host"]);
        assert!(reasons(Level::Baseline, Version::Minor(33), &spec).is_empty());
    }
}
