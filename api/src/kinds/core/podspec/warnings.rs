//! What a user should know about a pod spec that is good enough to be stored: likely mistakes, in Kubernetes' words, and
//! features that this version does not act on.

use serde_json::Value;

use super::unsupported;
use crate::field::Path;
use crate::kinds::tree::{int, list, map, text};

/// All warnings about the pod spec at `path`.
pub fn warnings(spec: &Value, path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for (key, _) in map(spec, "/nodeSelector") {
        if let Some(instead) = renamed_label(key) {
            all.push(format!(
                "{}: deprecated since v1.14; use {instead:?} instead",
                path.child("nodeSelector").key(key)
            ));
        }
    }
    for (index, secret) in list(spec, "/imagePullSecrets").iter().enumerate() {
        if text(secret, "/name").is_empty() {
            let path = path.child("imagePullSecrets").index(index).child("name");
            all.push(format!("{path}: invalid empty name {:?}", ""));
        }
    }
    if int(spec, "/terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        all.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for field in ["initContainers", "containers"] {
        for (index, container) in list(spec, &format!("/{field}")).iter().enumerate() {
            of_container(container, &path.child(field).index(index), &mut all);
        }
    }
    all.extend(unsupported(spec).iter().map(|u| format!("{path}.{}: {}", u.field, u.why)));
    all
}

fn renamed_label(key: &str) -> Option<&'static str> {
    match key {
        "beta.kubernetes.io/arch" => Some("kubernetes.io/arch"),
        "beta.kubernetes.io/os" => Some("kubernetes.io/os"),
        "failure-domain.beta.kubernetes.io/region" => Some("topology.kubernetes.io/region"),
        "failure-domain.beta.kubernetes.io/zone" => Some("topology.kubernetes.io/zone"),
        "beta.kubernetes.io/instance-type" => Some("node.kubernetes.io/instance-type"),
        _ => None,
    }
}

fn of_container(container: &Value, path: &Path, all: &mut Vec<String>) {
    let variables = list(container, "/env");
    for (index, variable) in variables.iter().enumerate() {
        let name = text(variable, "/name");
        if !name.is_empty() && variables.iter().take(index).any(|v| text(v, "/name") == name) {
            let path = path.child("env").index(index);
            all.push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
    let ports = list(container, "/ports");
    let same =
        |a: &Value, b: &Value| ["containerPort", "protocol", "hostPort", "hostIP"].iter().all(|f| a.get(f) == b.get(f));
    for (index, port) in ports.iter().enumerate() {
        if let Some(first) = ports.iter().take(index).position(|earlier| same(earlier, port)) {
            let ports = path.child("ports");
            all.push(format!("{}: duplicate port definition with {}", ports.index(index), ports.index(first)));
        }
    }
    for field in ["limits", "requests"] {
        let amount = text(container, &format!("/resources/{field}/memory"));
        if amount.ends_with('m') {
            let path = path.child("resources").child(field).key("memory");
            all.push(format!("{path}: fractional byte value {amount:?} is invalid, must be an integer"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn likely_mistakes_are_pointed_out() {
        let spec = json!({"containers": [{"name": "a", "env": [{"name": "A"}, {"name": "A"}],
            "ports": [{"containerPort": 1}, {"containerPort": 1}], "resources": {"limits": {"memory": "1500m"}}}],
            "nodeSelector": {"beta.kubernetes.io/os": "linux"}});
        assert_eq!(
            warnings(&spec, &Path::new("spec")),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer"
            ]
        );
    }

    #[test]
    fn what_has_no_effect_is_said_with_its_place() {
        let spec = json!({"containers": [{"name": "a", "livenessProbe": {"exec": {"command": ["x"]}}}]});
        let all = warnings(&spec, &Path::new("spec.template.spec"));
        assert_eq!(all.len(), 1);
        assert!(all[0].starts_with("spec.template.spec.containers[0].livenessProbe: probes are not run yet"));
    }
}
