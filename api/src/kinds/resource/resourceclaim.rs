//! ResourceClaim: devices that pods use. What is asked for is written once; a scheduler writes what was given.

use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};

use super::{allocation, claim};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{list, object, some, split_status};
use crate::meta;
use crate::resource::{Descriptor, Idle, WRITABLE_METADATA};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ResourceClaim>()
        .idle(Idle::Yet)
        .status()
        .status_keeps(WRITABLE_METADATA)
        .columns(vec![
            cells::name(),
            column(
                "State",
                "string",
                "A summary of the current state (allocated, pending, reserved, etc.).",
                |o, _| json!(state(o)),
            ),
            cells::age(),
        ])
        .no_generation()
        .strategy(ResourceClaimStrategy)
}

fn state(claim: &Value) -> String {
    let mut states = Vec::new();
    if some(claim, "/metadata/deletionTimestamp").is_some() {
        states.push("deleted");
    }
    match some(claim, "/status/allocation") {
        None if states.is_empty() => states.push("pending"),
        None => {}
        Some(_) => {
            states.push("allocated");
            if !list(claim, "/status/reservedFor").is_empty() {
                states.push("reserved");
            }
        }
    }
    states.join(",")
}

#[derive(Debug)]
struct ResourceClaimStrategy;

impl Strategy for ResourceClaimStrategy {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = self::object(object, "spec") {
            claim::default(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        claim::validate(object.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        match part {
            Part::Main => meta::immutable(new.get("spec"), old.get("spec"), &Path::new("spec"), errors),
            _ => allocation::validate_status(new, old, errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn claim(status: &Value) -> Value {
        json!({"spec": {"devices": {"requests": [{"name": "a"}]}}, "status": status})
    }

    #[test]
    fn a_claim_is_used_once_it_is_allocated_and_keeps_its_devices() {
        let result = json!({"request": "a", "driver": "d.example", "pool": "p", "device": "gpu-0"});
        let allocation = json!({"devices": {"results": [result]}});
        let user = json!({"resource": "pods", "name": "p", "uid": "1"});
        let judge = |new: &Value, old: &Value| {
            complaints(|e| ResourceClaimStrategy.validate_update(&claim(new), &claim(old), Part::Status, e))
        };
        let used = json!({"allocation": allocation, "reservedFor": [user]});
        assert!(judge(&used, &json!({})).is_empty());
        assert_eq!(
            judge(&json!({"reservedFor": [user]}), &json!({})),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
        let mut other = used.clone();
        other["allocation"]["devices"]["results"][0]["device"] = json!("gpu-1");
        assert_eq!(judge(&other, &used).len(), 1);
        assert!(judge(&json!({}), &used).is_empty(), "it is given back");
    }

    #[test]
    fn a_row_says_who_has_it() {
        assert_eq!(state(&claim(&json!({}))), "pending");
        assert_eq!(state(&claim(&json!({"allocation": {}}))), "allocated");
        assert_eq!(state(&claim(&json!({"allocation": {}, "reservedFor": [{}]}))), "allocated,reserved");
    }
}
