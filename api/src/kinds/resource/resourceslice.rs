//! ResourceSlice: devices of a driver, and where they are.

use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::{Value, json};

use super::{config, device};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::core::podspec::scheduling::validate_node_selector;
use crate::kinds::storage::names::driver;
use crate::kinds::tree::{int, is_true, list, some, text};
use crate::meta::{self, names, push_all};
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const MAX_DEVICES: usize = 128;
/// Devices with taints or counters are larger.
const MAX_LARGE_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
/// Where the devices can be reached from: exactly one of these.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ResourceSlice>()
        .idle(Idle::Yet)
        .columns(vec![
            cells::name(),
            column("Node", "string", "The node that the devices are on.", |o, _| {
                let node = text(o, "/spec/nodeName");
                json!(if node.is_empty() { "<none>" } else { node })
            }),
            column("Driver", "string", "The driver of the devices.", |o, _| json!(text(o, "/spec/driver"))),
            column("Pool", "string", "The pool that the devices belong to.", |o, _| json!(text(o, "/spec/pool/name"))),
            cells::age(),
        ])
        .selectable(&["spec.driver", "spec.nodeName"])
        .strategy(ResourceSliceStrategy)
}

#[derive(Debug)]
struct ResourceSliceStrategy;

impl Strategy for ResourceSliceStrategy {
    fn prepare_create(&self, slice: &mut Value) {
        device::drop_alpha(slice, &Value::Null);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, _part: Part) {
        device::drop_alpha(new, old);
    }

    fn validate(&self, slice: &Value, errors: &mut ErrorList) {
        judge(slice, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, _part: Part, errors: &mut ErrorList) {
        judge(new, Some(old), errors);
        let path = Path::new("spec");
        for (pointer, path) in [
            ("/spec/pool/name", path.child("pool").child("name")),
            ("/spec/driver", path.child("driver")),
            ("/spec/nodeName", path.child("nodeName")),
        ] {
            meta::immutable(new.pointer(pointer), old.pointer(pointer), &path, errors);
        }
    }
}

fn judge(slice: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let (spec, path) = (slice.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    driver(text(spec, "/driver"), &path.child("driver"), errors);
    pool(spec, &path.child("pool"), errors);
    place(spec, &path, errors);
    let (devices, counters) = (list(spec, "/devices"), list(spec, "/sharedCounters"));
    if !devices.is_empty() && !counters.is_empty() {
        errors.invalid(&path, &json!(""), "only one of `sharedCounters` or `devices` is allowed");
    }
    let large = |d: &Value| !list(d, "/taints").is_empty() || !list(d, "/consumesCounters").is_empty();
    let max = if devices.iter().any(large) { MAX_LARGE_DEVICES } else { MAX_DEVICES };
    let before = old.map(|old| list(old, "/spec/devices")).unwrap_or_default();
    let chosen = is_true(spec, "/perDeviceNodeSelection");
    config::each_own(devices, "name", max, &path.child("devices"), errors, |device, path, errors| {
        let before = before.iter().find(|before| text(before, "/name") == text(device, "/name"));
        device::validate(device, before, chosen, path, errors);
    });
    let path = path.child("sharedCounters");
    config::each_own(counters, "name", MAX_COUNTER_SETS, &path, errors, device::counter_set);
}

fn pool(spec: &Value, path: &Path, errors: &mut ErrorList) {
    config::pool(text(spec, "/pool/name"), &path.child("name"), errors);
    if let Some(count) = int(spec, "/pool/resourceSliceCount").filter(|c| *c <= 0) {
        errors.invalid(&path.child("resourceSliceCount"), &json!(count), "must be greater than zero");
    }
    if let Some(generation) = int(spec, "/pool/generation").filter(|g| *g < 0) {
        let why = "must be greater than or equal to zero";
        errors.invalid(&path.child("generation"), &json!(generation), why);
    }
}

fn place(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["allNodes", "perDeviceNodeSelection"] {
        if some(spec, &format!("/{field}")) == Some(&Value::Bool(false)) {
            errors.invalid(&path.child(field), &json!(false), "must be either unset or set to true");
        }
    }
    if some(spec, "/nodeName").and_then(Value::as_str) == Some("") {
        errors.invalid(&path.child("nodeName"), &json!(""), "must be either unset or set to a non-empty string");
    }
    let node = text(spec, "/nodeName");
    if !node.is_empty() {
        push_all(errors, &path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    if let Some(selector) = some(spec, "/nodeSelector") {
        validate_node_selector(selector, &path.child("nodeSelector"), errors);
    }
    if some(spec, "/nodeSelector").is_some() && list(spec, "/nodeSelector/nodeSelectorTerms").len() != 1 {
        let terms = spec.pointer("/nodeSelector/nodeSelectorTerms").unwrap_or(&Value::Null);
        let path = path.child("nodeSelector").child("nodeSelectorTerms");
        errors.invalid(&path, terms, "must have exactly one node selector term");
    }
    let given = |field: &&str| {
        some(spec, &format!("/{field}")).is_some_and(|v| v != &Value::Bool(false) && v.as_str() != Some(""))
    };
    let set: Vec<String> = PLACES.iter().filter(|f| given(f)).map(|f| format!("`{f}`")).collect();
    let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => errors.required(path, why),
        1 => {}
        _ => {
            let why = format!("{why}, but multiple fields are set");
            errors.invalid(path, &json!(format!("{{{}}}", set.join(", "))), &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(change: &Value) -> Vec<String> {
        let spec = json!({"driver": "d.example", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
            "nodeName": "n"});
        let slice = json!({"spec": crate::patch::merge::apply(&spec, change)});
        complaints(|errors| ResourceSliceStrategy.validate(&slice, errors))
    }

    #[test]
    fn devices_are_in_one_place() {
        assert!(judge(&json!({})).is_empty());
        assert!(judge(&json!({"nodeName": null, "allNodes": true})).is_empty());
        assert_eq!(judge(&json!({"nodeName": null})).len(), 1);
        assert_eq!(
            judge(&json!({"allNodes": true})),
            [
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
              `perDeviceNodeSelection` is required, but multiple fields are set"
            ]
        );
        assert_eq!(judge(&json!({"nodeName": null, "nodeSelector": {"nodeSelectorTerms": []}})).len(), 2);
    }

    #[test]
    fn devices_have_names_of_their_own_and_one_value_for_each_attribute() {
        let with = |devices: Value| judge(&json!({ "devices": devices })).len();
        assert_eq!(with(json!([{"name": "a", "attributes": {"x": {"int": 1}}}])), 0);
        assert_eq!(with(json!([{"name": "a"}, {"name": "a"}])), 1);
        assert_eq!(with(json!([{"name": "a", "attributes": {"x": {"int": 1, "bool": true}}}])), 1);
        assert_eq!(with(json!([{"name": "a", "taints": [{"key": "k", "effect": "Sometimes"}]}])), 1);
    }
}
