//! Node: a machine that runs pods.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, NONE, column, wide};
use crate::kinds::core::podspec::scheduling;
use crate::kinds::deprecated;
use crate::kinds::networking::cidr;
use crate::kinds::tree::{carry, drop_false, is_true, list, map, remove, set, text};
use crate::meta;
use crate::resource::{Column, Descriptor, PROXY};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<Node>()
        .short(&["no"])
        .status()
        .named("proxy", "NodeProxyOptions", PROXY)
        .columns(columns())
        .selectable(&["spec.unschedulable=false"])
        .no_generation()
        .strategy(NodeStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Status", "string", "The status of the node", |o, _| json!(status(o))),
        column("Roles", "string", "The roles of the node", |o, _| json!(roles(o))),
        cells::age(),
        column("Version", "string", "Kubelet Version reported by the node.", |o, _| info(o, "kubeletVersion", "")),
        wide("Internal-IP", "List of addresses reachable to the node.", |o, _| address(o, "InternalIP")),
        wide("External-IP", "List of addresses reachable to the node.", |o, _| address(o, "ExternalIP")),
        wide("OS-Image", "OS Image reported by the node.", |o, _| info(o, "osImage", UNKNOWN)),
        wide("Kernel-Version", "Kernel Version reported by the node.", |o, _| info(o, "kernelVersion", UNKNOWN)),
        wide("Container-Runtime", "ContainerRuntime Version reported by the node.", |o, _| {
            info(o, "containerRuntimeVersion", UNKNOWN)
        }),
    ]
}

const UNKNOWN: &str = "<unknown>";

fn info(node: &Value, field: &str, empty: &str) -> Value {
    let value = text(node, &format!("/status/nodeInfo/{field}"));
    json!(if value.is_empty() { empty } else { value })
}

fn address(node: &Value, kind: &str) -> Value {
    let found = list(node, "/status/addresses").iter().find(|a| text(a, "/type") == kind);
    json!(found.map_or(NONE, |a| text(a, "/address")))
}

fn status(node: &Value) -> String {
    let ready = list(node, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let mut shown = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if is_true(node, "/spec/unschedulable") {
        shown.push_str(",SchedulingDisabled");
    }
    shown
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = map(node, "/metadata/labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            None if key == "kubernetes.io/role" => value.as_str(),
            role => role,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

#[derive(Debug)]
struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn created_with_status(&self) -> bool {
        true
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        deprecated::of_node(object)
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            drop_false(spec, "unschedulable");
            mirror_range(spec);
        }
        let Some(status) = object.get_mut("status") else { return };
        if let (None, Some(capacity)) = (status.get("allocatable"), status.get("capacity").cloned()) {
            set(status, "allocatable", capacity);
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let spec = Path::new("spec");
        // The path is Kubernetes' own.
        scheduling::validate_taints(list(object, "/spec/taints"), &Path::new("metadata").child("taints"), errors);
        let cidrs = list(object, "/spec/podCIDRs");
        for (index, range) in cidrs.iter().enumerate() {
            cidr::validate_strict(range.as_str().unwrap_or_default(), &spec.child("podCIDRs").index(index), errors);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        match part {
            Part::Main => carry(new, old, "status"),
            Part::Status => carry(new, old, "spec"),
            Part::Named(_) => {}
        }
        if let Some(spec) = new.get_mut("spec") {
            remove(spec, "configSource");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return addresses_are_distinct(new, errors);
        }
        errors.judge_change(new, old, |node, errors| self.validate(node, errors));
        let spec = Path::new("spec");
        for (field, message) in [
            ("podCIDR", "node updates may not change podCIDR except from \"\" to valid"),
            ("podCIDRs", "node updates may not change podCIDR except from \"\" to valid"),
            ("providerID", "node updates may not change providerID except from \"\" to valid"),
        ] {
            let pointer = format!("/spec/{field}");
            let before = old.pointer(&pointer);
            if !meta::same(before, None) && !meta::same(new.pointer(&pointer), before) {
                errors.forbidden(&spec.child(field), message);
            }
        }
    }
}

/// The first of the ranges stands alone as well; the single one is the one that counts.
fn mirror_range(spec: &mut Value) {
    let (one, first) = (text(spec, "/podCIDR").to_owned(), text(spec, "/podCIDRs/0").to_owned());
    if one.is_empty() && !first.is_empty() {
        set(spec, "podCIDR", first);
    } else if one != first {
        set(spec, "podCIDRs", json!([one]));
    }
}

fn addresses_are_distinct(node: &Value, errors: &mut ErrorList) {
    let addresses = list(node, "/status/addresses");
    let mut seen = HashSet::new();
    for (index, address) in addresses.iter().enumerate() {
        if !seen.insert(address) {
            errors.duplicate(&Path::new("status").child("addresses").index(index), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordoned_node_shows_it() {
        let node =
            json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(status(&node), "Ready,SchedulingDisabled");
        assert_eq!(status(&json!({})), "Unknown");
        assert_eq!(status(&json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})), "NotReady");
    }

    #[test]
    fn roles_come_from_labels() {
        let labels =
            json!({"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "x": "y"});
        assert_eq!(roles(&json!({"metadata": {"labels": labels}})), "control-plane,worker");
        assert_eq!(roles(&json!({})), NONE);
    }

    #[test]
    fn a_pod_range_once_given_stays() {
        let old = json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}});
        let new = json!({"spec": {"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24"]}});
        let mut errors = ErrorList::default();
        NodeStrategy.validate_update(&new, &old, Part::Main, &mut errors);
        assert_eq!(errors.iter().count(), 2);
        let mut errors = ErrorList::default();
        NodeStrategy.validate_update(&new, &json!({"spec": {}}), Part::Main, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }
}
