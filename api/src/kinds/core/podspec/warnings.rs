//! What a user should know about a pod that is good enough to be stored: likely mistakes and what is deprecated, in
//! Kubernetes' words, and features that this version does not act on.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::unsupported;
use crate::field::Path;
use crate::kinds::core::addresses;
use crate::kinds::deprecated;
use crate::kinds::tree::{int, list, some, text};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// All warnings about a pod, or about the template at `path`.
pub fn warnings(pod: &Value, path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let null = Value::Null;
    let (spec, is_template) = (pod.get("spec").unwrap_or(&null), *path != Path::default());
    let at = path.child("spec");
    deprecated::node_labels(spec.get("nodeSelector").unwrap_or(&null), &at.child("nodeSelector"), &mut all);
    node_affinity(spec, &at, &mut all);
    spread(spec, &at, &mut all);
    deprecated::pod_annotations(pod, path, is_template, &mut all);
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        deprecated::volume(volume, &at.child("volumes").index(index), &mut all);
    }
    let servers = at.child("dnsConfig").child("nameservers");
    all.extend(addresses::warn_of_ips(list(spec, "/dnsConfig/nameservers"), &servers));
    twice(spec, "hostAliases", "ip", &at, &mut all);
    for (index, alias) in list(spec, "/hostAliases").iter().enumerate() {
        all.extend(addresses::warn_of_ip(text(alias, "/ip"), &at.child("hostAliases").index(index).child("ip")));
    }
    twice(spec, "imagePullSecrets", "name", &at, &mut all);
    for (index, secret) in list(spec, "/imagePullSecrets").iter().enumerate() {
        if text(secret, "/name").is_empty() {
            let path = at.child("imagePullSecrets").index(index).child("name");
            all.push(format!("{path}: invalid empty name {:?}", ""));
        }
    }
    amounts(spec.get("overhead"), &at.child("overhead"), &mut all);
    let containers = || {
        CONTAINERS.iter().flat_map(|field| {
            let at = at.child(field);
            list(spec, &format!("/{field}")).iter().enumerate().map(move |(index, c)| (c, at.index(index)))
        })
    };
    for (container, path) in containers() {
        of_container(container, &path, &mut all);
    }
    ports(containers(), &mut all);
    if int(spec, "/terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        let path = at.child("terminationGracePeriodSeconds");
        all.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    pod_affinity(spec, &at, &mut all);
    all.extend(unsupported(spec).iter().map(|u| format!("{at}.{}: {}", u.field, u.why)));
    all
}

fn node_affinity(spec: &Value, at: &Path, all: &mut Vec<String>) {
    let at = at.child("affinity").child("nodeAffinity");
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let terms = list(spec, &format!("/affinity/nodeAffinity/{required}/nodeSelectorTerms"));
    for (index, term) in terms.iter().enumerate() {
        let path = at.child(required).child("nodeSelectorTerms").index(index);
        deprecated::node_term(term, &path, true, all);
    }
    for (index, term) in list(spec, &format!("/affinity/nodeAffinity/{preferred}")).iter().enumerate() {
        let path = at.child(preferred).index(index).child("preference");
        deprecated::node_term(term.get("preference").unwrap_or(&Value::Null), &path, true, all);
    }
}

fn spread(spec: &Value, at: &Path, all: &mut Vec<String>) {
    for (index, constraint) in list(spec, "/topologySpreadConstraints").iter().enumerate() {
        let path = at.child("topologySpreadConstraints").index(index);
        let key = text(constraint, "/topologyKey");
        if let Some(said) = deprecated::node_label(key) {
            all.push(format!("{}: {key} is {said}", path.child("topologyKey")));
        }
        if some(constraint, "/labelSelector").is_none() {
            all.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    }
}

fn pod_affinity(spec: &Value, at: &Path, all: &mut Vec<String>) {
    for (kind, field, inner) in ["podAffinity", "podAntiAffinity"].iter().flat_map(|kind| {
        [
            (*kind, "requiredDuringSchedulingIgnoredDuringExecution", ""),
            (*kind, "preferredDuringSchedulingIgnoredDuringExecution", "podAffinityTerm"),
        ]
    }) {
        for (index, term) in list(spec, &format!("/affinity/{kind}/{field}")).iter().enumerate() {
            let path = at.child("affinity").child(kind).child(field).index(index);
            let (term, path) = match inner {
                "" => (term, path),
                inner => (term.get(inner).unwrap_or(&Value::Null), path.child(inner)),
            };
            if some(term, "/labelSelector").is_none() {
                all.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
            }
        }
    }
}

/// Items of a list that repeat an earlier one's key.
fn twice(spec: &Value, field: &str, key: &str, at: &Path, all: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, item) in list(spec, &format!("/{field}")).iter().enumerate() {
        let value = item.get(key).and_then(Value::as_str).unwrap_or_default();
        if !seen.insert(value) {
            all.push(format!("{}: duplicate {key} {value:?}", at.child(field).index(index).child(key)));
        }
    }
}

fn amounts(amounts: Option<&Value>, path: &Path, all: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        deprecated::fractional(amounts.unwrap_or(&Value::Null), name, path, all);
    }
}

fn of_container(container: &Value, path: &Path, all: &mut Vec<String>) {
    for field in ["limits", "requests"] {
        amounts(container.pointer(&format!("/resources/{field}")), &path.child("resources").child(field), all);
    }
    let mut seen = HashSet::new();
    for (index, variable) in list(container, "/env").iter().enumerate() {
        let (name, value) = (text(variable, "/name"), text(variable, "/value"));
        // One that is made of the earlier one is meant so.
        let reference = format!("$({name})");
        let extends = some(variable, "/valueFrom").is_none() && value != reference && value.contains(&reference);
        if !seen.insert(name) && !extends && !name.is_empty() {
            let path = path.child("env").index(index);
            all.push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

/// Ports of all containers together: the same one twice.
fn ports<'a>(containers: impl Iterator<Item = (&'a Value, Path)>, all: &mut Vec<String>) {
    /// Of one port, as many places are compared: a hostile pod has thousands.
    const COMPARED: usize = 8;
    /// Where a port is, with its host's address and port.
    type Place<'a> = (Path, &'a str, i64);
    let mut seen: HashMap<(i64, &str), Vec<Place<'_>>> = HashMap::new();
    for (container, path) in containers {
        for (index, port) in list(container, "/ports").iter().enumerate() {
            let path = path.child("ports").index(index);
            let number = int(port, "/containerPort").unwrap_or_default();
            let (protocol, ip) = (text(port, "/protocol"), text(port, "/hostIP"));
            let host = int(port, "/hostPort").unwrap_or_default();
            if !ip.is_empty() && host == 0 {
                let name = text(port, "/name");
                all.push(format!(
                    "{path}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} \
                     Protocol:{protocol} HostIP:{ip}}}"
                ));
            }
            let others = seen.entry((number, protocol)).or_default();
            for (other, other_ip, other_host) in others.iter() {
                let what = if ip == *other_ip && host == *other_host {
                    "duplicate"
                } else if host == 0 || *other_host == 0 {
                    "overlapping"
                } else if host == *other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                all.push(format!("{path}: {what} port definition with {other}"));
            }
            if others.len() < COMPARED {
                others.push((path, ip, host));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn likely_mistakes_are_pointed_out() {
        let spec = json!({"containers": [{"name": "a",
            "env": [{"name": "A"}, {"name": "A"}, {"name": "A", "value": "$(A)b"}],
            "ports": [{"containerPort": 1}, {"containerPort": 1}, {"containerPort": 1, "hostPort": 2}],
            "resources": {"limits": {"memory": "1500m"}}}],
            "imagePullSecrets": [{"name": "s"}, {"name": "s"}],
            "nodeSelector": {"beta.kubernetes.io/os": "linux"}});
        assert_eq!(
            warnings(&json!({"spec": spec}), &Path::default()),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.imagePullSecrets[1].name: duplicate name \"s\"",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]",
                "spec.containers[0].ports[2].hostPort: host ports are not opened yet; a Service of type NodePort is",
            ]
        );
    }

    #[test]
    fn what_is_deprecated_is_said_at_its_place_in_a_template() {
        let annotations = json!({"seccomp.security.alpha.kubernetes.io/pod": "x",
            "container.apparmor.security.beta.kubernetes.io/a": "y", "scheduler.alpha.kubernetes.io/critical-pod": ""});
        let template = json!({"metadata": {"annotations": annotations}, "spec": {
            "containers": [{"name": "a"}], "volumes": [{"name": "g", "gitRepo": {"repository": "r"}}],
            "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}]}});
        let path = Path::new("spec").child("template");
        let all = warnings(&template, &path);
        for wanted in [
            "spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            "spec.template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
            "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
            "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11",
            "spec.template.spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
            "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        ] {
            assert!(all.iter().any(|text| text == wanted), "{wanted} is not in {all:#?}");
        }
    }

    #[test]
    fn what_has_no_effect_is_said_with_its_place() {
        let spec = json!({"containers": [{"name": "a", "livenessProbe": {"exec": {"command": ["x"]}}}]});
        let all = warnings(&json!({"spec": spec}), &Path::new("spec").child("template"));
        assert_eq!(all.len(), 1);
        assert!(all[0].starts_with("spec.template.spec.containers[0].livenessProbe: probes are not run yet"));
    }
}
