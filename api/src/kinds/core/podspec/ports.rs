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

/// Ports of the host are used once, and in the host's network they are the container's. A template may leave them out.
pub(super) fn validate_host_ports(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut taken = HashSet::new();
    let (is_pod, path) = (is_pod(path), path.child("containers"));
    for (container_index, container) in list(spec, "/containers").iter().enumerate() {
        for (index, port) in list(container, "/ports").iter().enumerate() {
            let path = path.index(container_index).child("ports").index(index);
            let host = int(port, "/hostPort").unwrap_or_default();
            let differs = int(port, "/containerPort").unwrap_or_default() != host;
            if is_true(spec, "/hostNetwork") && differs && (is_pod || host != 0) {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.child("hostPort"), &json!(host), why);
            }
            let key = format!("{}/{}/{host}", text(port, "/protocol"), text(port, "/hostIP"));
            if host != 0 && !taken.insert(key.clone()) {
                errors.duplicate(&path.child("hostPort"), &json!(key));
            }
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
}
