//! ResourceClaim: devices that pods use. What is asked for is written once; a scheduler writes what was given.

use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};

use super::{claim, config};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::storage::names::driver;
use crate::kinds::tree::{list, object, some, split_status_alone, text};
use crate::meta;
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ResourceClaim>()
        .idle(Idle::Yet)
        .status()
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
        split_status_alone(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        match part {
            Part::Main => meta::immutable(new.get("spec"), old.get("spec"), &Path::new("spec"), errors),
            _ => validate_status(new, old, errors),
        }
    }
}

fn validate_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    let consumers = list(new, "/status/reservedFor");
    consumers_of(consumers, &path.child("reservedFor"), errors);
    let allocation = some(new, "/status/allocation");
    if !consumers.is_empty() {
        let path = path.child("reservedFor");
        let known = |consumer: &&Value| !list(old, "/status/reservedFor").contains(consumer);
        if allocation.is_none() {
            errors.forbidden(&path, "may not be specified when `allocated` is not set");
        } else if some(new, "/metadata/deletionTimestamp").is_some() && consumers.iter().any(|c| known(&c)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.forbidden(&path, why);
        }
    }
    let path = path.child("allocation");
    match (some(old, "/status/allocation"), allocation) {
        (Some(before), Some(now)) => meta::immutable(Some(now), Some(before), &path, errors),
        (None, Some(now)) => {
            let devices = new.pointer("/spec/devices").unwrap_or(&Value::Null);
            validate_results(now, devices, &path.child("devices").child("results"), errors);
        }
        _ => {}
    }
}

fn consumers_of(consumers: &[Value], path: &Path, errors: &mut ErrorList) {
    if consumers.len() > MAX_CONSUMERS {
        errors.too_many(path, consumers.len(), MAX_CONSUMERS);
    }
    for (index, consumer) in consumers.iter().enumerate() {
        for field in ["resource", "name", "uid"] {
            if text(consumer, &format!("/{field}")).is_empty() {
                errors.required(&path.index(index).child(field), "");
            }
        }
    }
    config::distinct(consumers, "uid", path, errors);
}

fn validate_results(allocation: &Value, devices: &Value, path: &Path, errors: &mut ErrorList) {
    let results = list(allocation, "/devices/results");
    if results.len() > MAX_RESULTS {
        errors.too_many(path, results.len(), MAX_RESULTS);
    }
    for (index, result) in results.iter().enumerate() {
        let path = path.index(index);
        let request = text(result, "/request");
        if !claim::is_request(request, devices) {
            let why = "must be the name of a request in the claim or the name of a request and a subrequest separated \
                       by '/'";
            errors.invalid(&path.child("request"), &json!(request), why);
        }
        driver(text(result, "/driver"), &path.child("driver"), errors);
        if text(result, "/pool").is_empty() {
            errors.required(&path.child("pool"), "");
        }
        config::label(result, "device", &path, errors);
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
