//! What a pod may ask for that this version of Wherry accepts but does not act on. It is said at creation, and what
//! would make a pod wrong or unsafe is marked, so that the node refuses to start it.
//!
//! An entry goes away with the change that makes the feature work.

use serde_json::Value;

use super::{CONTAINER_LISTS, access};
use crate::field::Path;
use crate::kinds::tree::{is_true, list, map, some, text};

/// One feature that a pod spec asks for in vain.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsupported {
    /// Relative to the pod spec: `containers[0].livenessProbe`.
    pub field: Path,
    pub why: &'static str,
    /// Whether the pod must not run without it.
    pub blocking: bool,
}

const PROBES: &str = "probes are not run yet: the container counts as healthy and ready while it runs";

/// Everything in a pod spec that this version does not act on.
pub fn unsupported(spec: &Value) -> Vec<Unsupported> {
    let mut found = Found(Vec::new());
    found.of_pod(spec);
    // Nobody asked for the account's token, which admission mounts: the pod runs without.
    let volumes = list(spec, "/volumes").iter().enumerate().filter(|(_, volume)| !access::is_access(volume));
    for (index, _) in volumes {
        found.blocking(Path::new("volumes").index(index), "volumes are not supported yet");
    }
    if given(spec, "initContainers") {
        found.blocking(Path::new("initContainers"), "init containers are not supported yet");
    }
    // They come to a pod that runs, and it goes on without.
    if given(spec, "ephemeralContainers") {
        found.ignored(Path::new("ephemeralContainers"), "ephemeral containers are not supported yet");
    }
    for field in CONTAINER_LISTS {
        for (index, container) in list(spec, &format!("/{field}")).iter().enumerate() {
            found.of_container(container, &Path::new(field).index(index));
        }
    }
    found.0
}

struct Found(Vec<Unsupported>);

impl Found {
    fn blocking(&mut self, field: Path, why: &'static str) {
        self.0.push(Unsupported { field, why, blocking: true });
    }

    fn ignored(&mut self, field: Path, why: &'static str) {
        self.0.push(Unsupported { field, why, blocking: false });
    }

    fn of_pod(&mut self, spec: &Value) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if is_true(spec, &format!("/{field}")) {
                self.blocking(Path::new(field), "the host's namespaces are not shared with pods yet");
            }
        }
        for (field, why) in [
            ("runtimeClassName", "runtime classes are not supported yet"),
            ("resourceClaims", "resource claims are not supported yet"),
        ] {
            if given(spec, field) {
                self.blocking(Path::new(field), why);
            }
        }
        if text(spec, "/os/name") == "windows" {
            self.blocking(Path::new("os.name"), "there are no Windows nodes");
        }
        for (field, why) in [
            ("topologySpreadConstraints", "spread constraints are not considered by the scheduler yet"),
            ("priorityClassName", "it says which pods are placed first; running pods do not make room for others yet"),
            ("dnsConfig", "the pod resolves names with the cluster's DNS only"),
            ("hostAliases", "host aliases are not resolved yet"),
        ] {
            if given(spec, field) {
                self.ignored(Path::new(field), why);
            }
        }
        let affinity = spec.get("affinity").unwrap_or(&Value::Null);
        for field in ["podAffinity", "podAntiAffinity"] {
            if given(affinity, field) {
                let path = Path::new("affinity").child(field);
                self.ignored(path, "affinity between pods is not considered by the scheduler yet");
            }
        }
        for field in ["shareProcessNamespace", "setHostnameAsFQDN"] {
            if is_true(spec, &format!("/{field}")) {
                self.ignored(Path::new(field), "this is not supported yet and has no effect");
            }
        }
        if matches!(text(spec, "/dnsPolicy"), "Default" | "None") {
            self.ignored(Path::new("dnsPolicy"), "names are always resolved as with ClusterFirst");
        }
        self.of_security(spec.get("securityContext"), &Path::new("securityContext"));
    }

    fn of_container(&mut self, container: &Value, path: &Path) {
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            if given(container, probe) {
                self.ignored(path.child(probe), PROBES);
            }
        }
        if given(container, "lifecycle") {
            self.ignored(path.child("lifecycle"), "lifecycle hooks are not run yet");
        }
        if given(container, "volumeDevices") {
            self.blocking(path.child("volumeDevices"), "volumes are not supported yet");
        }
        if given(container, "restartPolicy") || given(container, "restartPolicyRules") {
            self.ignored(path.child("restartPolicy"), "the pod's restart policy is used");
        }
        for field in ["stdin", "tty"] {
            if is_true(container, &format!("/{field}")) {
                self.ignored(path.child(field), "containers have no standard input yet");
            }
        }
        for (index, variable) in list(container, "/env").iter().enumerate() {
            if some(variable, "/valueFrom/fileKeyRef").is_some() {
                let path = path.child("env").index(index).child("valueFrom").child("fileKeyRef");
                self.blocking(path, "volumes are not supported yet");
            }
        }
        for (index, port) in list(container, "/ports").iter().enumerate() {
            if port.get("hostPort").and_then(Value::as_i64).is_some_and(|p| p != 0) {
                let path = path.child("ports").index(index).child("hostPort");
                self.ignored(path, "host ports are not opened yet; a Service of type NodePort is");
            }
        }
        let context = path.child("securityContext");
        if is_true(container, "/securityContext/privileged") {
            self.blocking(context.child("privileged"), "containers are never privileged");
        }
        self.of_security(container.get("securityContext"), &context);
    }

    /// What a sandbox grants to nobody anyway needs no word.
    fn of_security(&mut self, context: Option<&Value>, path: &Path) {
        for (field, value) in map(context.unwrap_or(&Value::Null), "") {
            let inherent = match field.as_str() {
                "allowPrivilegeEscalation" => value == &Value::Bool(false),
                "privileged" | "runAsNonRoot" | "readOnlyRootFilesystem" => true,
                "capabilities" => list(value, "/add").is_empty(),
                "seccompProfile" => text(value, "/type") == "RuntimeDefault",
                _ => value.is_null(),
            };
            if !inherent {
                self.ignored(path.child(field), "a component's sandbox has no such setting; it has no effect");
            }
        }
    }
}

/// Whether something is asked for: neither absent nor empty.
fn given(parent: &Value, field: &str) -> bool {
    match parent.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::core::podspec;

    fn fields(spec: &Value) -> Vec<(String, bool)> {
        unsupported(spec).iter().map(|u| (u.field.to_string(), u.blocking)).collect()
    }

    #[test]
    fn a_plain_pod_asks_for_nothing_special() {
        let mut spec = json!({"containers": [{"name": "a", "image": "x", "env": [{"name": "A", "value": "b"}],
            "ports": [{"containerPort": 80}], "resources": {"limits": {"memory": "1Gi"}},
            "securityContext": {"runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
            "nodeSelector": {"a": "b"}, "imagePullSecrets": [{"name": "s"}], "hostname": "h"});
        podspec::default(&mut spec);
        podspec::default_pod(&mut spec);
        assert_eq!(fields(&spec), []);
    }

    #[test]
    fn what_would_make_a_pod_wrong_blocks_it() {
        let spec = json!({"containers": [{"name": "a", "securityContext": {"privileged": true}, "livenessProbe": {"exec": {}}}],
            "volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [{"name": "i"}], "hostNetwork": true,
            "affinity": {"nodeAffinity": {"x": {}}, "podAntiAffinity": {"x": {}}}, "priorityClassName": "urgent"});
        assert_eq!(
            fields(&spec),
            [
                ("hostNetwork".to_owned(), true),
                ("priorityClassName".to_owned(), false),
                ("affinity.podAntiAffinity".to_owned(), false),
                ("volumes[0]".to_owned(), true),
                ("initContainers".to_owned(), true),
                ("containers[0].livenessProbe".to_owned(), false),
                ("containers[0].securityContext.privileged".to_owned(), true),
            ]
        );
    }

    #[test]
    fn the_token_that_admission_mounts_stops_no_pod_and_a_volume_like_it_does() {
        let mut spec = json!({"containers": [{"name": "a"}], "volumes": [access::new_volume("kube-api-access-x")]});
        assert_eq!(fields(&spec), []);
        spec["volumes"][0]["name"] = json!("mine");
        assert_eq!(fields(&spec), [("volumes[0]".to_owned(), true)]);
    }
}
