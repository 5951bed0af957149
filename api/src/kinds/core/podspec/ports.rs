//! Container ports.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::is_pod;
use crate::field::{ErrorList, Path};
use crate::kinds::core::addresses;
use crate::kinds::tree::{fill, int, is_true, list, list_mut, set, text};
use crate::meta::{names, push_all};

pub(super) fn default(container: &mut Value) {
    for port in list_mut(container, "ports") {
        fill(port, "protocol", "TCP");
    }
}

/// In the host's network a port is the host's port.
pub(super) fn default_host_ports(container: &mut Value) {
    for port in list_mut(container, "ports") {
        if int(port, "/hostPort").unwrap_or_default() == 0
            && let Some(number) = int(port, "/containerPort")
        {
            set(port, "hostPort", number);
        }
    }
}

pub(super) fn validate(container: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "/name");
        if !name.is_empty() {
            let complaints = names::port_name(name);
            if complaints.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
            push_all(errors, &path.child("name"), name, complaints);
        }
        match int(port, "/containerPort").unwrap_or_default() {
            0 => errors.required(&path.child("containerPort"), ""),
            number => validate_number(number, &path.child("containerPort"), errors),
        }
        if let Some(number) = int(port, "/hostPort").filter(|n| *n != 0) {
            validate_number(number, &path.child("hostPort"), errors);
        }
        addresses::validate_protocol(port, &path, errors);
    }
}

fn validate_number(number: i64, path: &Path, errors: &mut ErrorList) {
    if let Some(why) = names::port_number(number) {
        errors.invalid(path, &json!(number), why);
    }
}

/// Ports of the host are used once by what runs together, and in the host's network they are the container's. A template may
/// leave them out. Init containers run one after the other: each is judged by itself.
pub(super) fn validate_host_ports(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut taken = HashSet::new();
    let is_pod = is_pod(path);
    for (index, container) in list(spec, "/containers").iter().enumerate() {
        let path = path.child("containers").index(index).child("ports");
        if is_true(spec, "/hostNetwork") {
            validate_same_ports(container, is_pod, &path, errors);
        }
        validate_taken(container, &mut taken, &path, errors);
    }
}

/// Judges the host's ports of one init container, which may be a sidecar. `path` is its ports'.
pub(super) fn validate_own_host_ports(container: &Value, path: &Path, errors: &mut ErrorList) {
    validate_taken(container, &mut HashSet::new(), path, errors);
}

fn validate_same_ports(container: &Value, is_pod: bool, path: &Path, errors: &mut ErrorList) {
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let host = int(port, "/hostPort").unwrap_or_default();
        let differs = int(port, "/containerPort").unwrap_or_default() != host;
        if differs && (is_pod || host != 0) {
            let why = "must match `containerPort` when `hostNetwork` is true";
            errors.invalid(&path.index(index).child("hostPort"), &json!(host), why);
        }
    }
}

fn validate_taken(container: &Value, taken: &mut HashSet<String>, path: &Path, errors: &mut ErrorList) {
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let Some(host) = int(port, "/hostPort").filter(|host| *host != 0) else { continue };
        let key = format!("{}/{}/{host}", text(port, "/protocol"), text(port, "/hostIP"));
        if taken.contains(&key) {
            errors.duplicate(&path.index(index).child("hostPort"), &json!(key));
        } else {
            taken.insert(key);
        }
    }
}

/// A port by number or by name, as probes and Services point at one.
pub(in crate::kinds) fn validate_number_or_name(port: &Value, path: &Path, errors: &mut ErrorList) {
    match port {
        Value::String(name) => push_all(errors, path, name, names::port_name(name)),
        other => validate_number(other.as_i64().unwrap_or_default(), path, errors),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints;
    use super::*;

    fn with_ports(ports: &Value) -> Vec<String> {
        complaints(&json!({"containers": [{"name": "a", "image": "x", "ports": ports}]}))
    }

    #[test]
    fn a_port_has_a_number_a_protocol_and_its_own_name() {
        assert_eq!(
            with_ports(&json!([{}, {"containerPort": 70000}, {"containerPort": 1, "protocol": "tcp"},
                {"containerPort": 2, "name": "a"}, {"containerPort": 3, "name": "a"}])),
            [
                "spec.containers[0].ports[0].containerPort: Required value",
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[2].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \
                 \"UDP\"",
                "spec.containers[0].ports[4].name: Duplicate value: \"a\""
            ]
        );
    }

    #[test]
    fn a_host_port_is_used_once() {
        assert_eq!(
            with_ports(&json!([{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}])),
            ["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""]
        );
    }
    #[test]
    fn init_containers_share_the_hosts_ports_one_after_the_other() {
        let container = |name: &str, ports: Value| json!({"name": name, "image": "x", "ports": ports});
        let port = |number: i64| json!({"containerPort": number, "hostPort": 80});
        let sidecar = |name: &str, ports: Value| {
            let mut sidecar = container(name, ports);
            sidecar["restartPolicy"] = json!("Always");
            sidecar
        };
        let said = |init: Value| {
            complaints(&json!({"containers": [container("a", json!([port(1)]))], "initContainers": init}))
        };
        assert_eq!(
            said(json!([container("i", json!([port(1)])), sidecar("s", json!([port(2)]))])),
            Vec::<String>::new()
        );
        assert_eq!(
            said(json!([container("i", json!([])), sidecar("s", json!([port(1), port(2)]))])),
            ["spec.initContainers[1].ports[1].hostPort: Duplicate value: \"TCP//80\""]
        );
        let spec = json!({"hostNetwork": true, "containers": [container("a", json!([]))],
            "initContainers": [container("i", json!([{"containerPort": 1, "hostPort": 2}]))]});
        assert_eq!(complaints(&spec), Vec::<String>::new(), "its ports are not compared with the host's");
    }

    #[test]
    fn in_the_hosts_network_a_port_is_the_hosts() {
        let container = json!({"name": "a", "image": "x", "ports": [{"containerPort": 1, "hostPort": 2}]});
        assert_eq!(
            complaints(&json!({"hostNetwork": true, "containers": [container]})),
            [
                "spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true"
            ]
        );
    }
}
