//! What became of a ResourceClaim: which devices it got, who uses it, and what drivers tell of the devices.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{claim, config};
use crate::cel::net::Cidr;
use crate::field::{ErrorList, Path};
use crate::kinds::check::{conditions, no_duplicates, required_one_of, strings};
use crate::kinds::core::podspec::scheduling::validate_node_selector;
use crate::kinds::storage::names::driver;
use crate::kinds::tree::{list, some, text};
use crate::meta;

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;
/// Configuration of the class and of the claim.
const MAX_CONFIGS: usize = 2 * config::MAX_CONFIGS;
const MAX_CONDITIONS: usize = 8;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE: usize = 128;
const MAX_ADDRESSES: usize = 16;

pub(super) fn validate_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    let consumers = list(new, "/status/reservedFor");
    config::each_own(consumers, "uid", MAX_CONSUMERS, &path.child("reservedFor"), errors, |consumer, path, errors| {
        for field in ["resource", "name", "uid"] {
            if text(consumer, &format!("/{field}")).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
    });
    validate_devices(new, &path.child("devices"), errors);
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
            validate_allocation(now, new.pointer("/spec/devices").unwrap_or(&Value::Null), &path, errors);
        }
        _ => {}
    }
}

/// `devices`: what the claim asks for.
fn validate_allocation(allocation: &Value, devices: &Value, path: &Path, errors: &mut ErrorList) {
    let given = path.child("devices");
    let results = list(allocation, "/devices/results");
    config::each(results, MAX_RESULTS, &given.child("results"), errors, |result, path, errors| {
        claim::reference(text(result, "/request"), devices, &path.child("request"), errors);
        identity(result, path, errors);
        config::binding(result, path, errors);
        share(result, path, errors);
    });
    let configs = list(allocation, "/devices/config");
    config::each(configs, MAX_CONFIGS, &given.child("config"), errors, |entry, path, errors| {
        required_one_of(entry, "source", path, &["FromClaim", "FromClass"], errors);
        claim::references(entry, devices, &path.child("requests"), errors);
        config::opaque(entry, path, errors);
    });
    if let Some(selector) = some(allocation, "/nodeSelector") {
        validate_node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

/// Judges driver, pool and name of a device.
fn identity(device: &Value, path: &Path, errors: &mut ErrorList) {
    driver(text(device, "/driver"), &path.child("driver"), errors);
    config::pool(text(device, "/pool"), &path.child("pool"), errors);
    config::label(device, "device", path, errors);
}

/// Judges the uid of a share of a device that several claims have.
fn share(device: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(uid) = some(device, "/shareID").and_then(Value::as_str) else { return };
    let dash = |index| matches!(index, 8 | 13 | 18 | 23);
    let whole = uid.len() == 36
        && uid.bytes().enumerate().all(|(index, b)| if dash(index) { b == b'-' } else { b.is_ascii_hexdigit() });
    let path = path.child("shareID");
    if !whole {
        errors.invalid(&path, &json!(uid), &format!("error validating uid: invalid UUID length: {}", uid.len()));
    } else if uid != uid.to_lowercase() {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal \
                   characters";
        errors.invalid(&path, &json!(uid), why);
    }
}

/// `driver/pool/device`, and the share.
fn name(device: &Value) -> String {
    let parts = ["driver", "pool", "device", "shareID"].map(|part| text(device, &format!("/{part}")));
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

/// Judges what drivers tell of devices, which the claim must have.
fn validate_devices(claim: &Value, path: &Path, errors: &mut ErrorList) {
    let had: HashSet<String> = list(claim, "/status/allocation/devices/results").iter().map(name).collect();
    let told = list(claim, "/status/devices");
    for (index, device) in told.iter().enumerate() {
        let path = path.index(index);
        identity(device, &path, errors);
        share(device, &path, errors);
        if !had.contains(&name(device)) {
            errors.invalid(&path, &json!(name(device)), "must be an allocated device in the claim");
        }
        let count = list(device, "/conditions").len();
        if count > MAX_CONDITIONS {
            errors.too_many(&path.child("conditions"), count, MAX_CONDITIONS);
        }
        conditions(device, &path, errors);
        if let Some(data) = some(device, "/data") {
            config::raw(data, &path.child("data"), errors);
        }
        if let Some(network) = some(device, "/networkData") {
            validate_network(network, &path.child("networkData"), errors);
        }
    }
    let mut seen = HashSet::new();
    for (index, device) in told.iter().map(name).enumerate() {
        if !seen.insert(device.clone()) {
            errors.duplicate(&path.index(index), &json!(device));
        }
    }
}

fn validate_network(network: &Value, path: &Path, errors: &mut ErrorList) {
    for (field, max) in [("interfaceName", MAX_INTERFACE), ("hardwareAddress", MAX_HARDWARE)] {
        if text(network, &format!("/{field}")).len() > max {
            errors.too_long(&path.child(field), max);
        }
    }
    let path = path.child("ips");
    let judged = config::each(list(network, "/ips"), MAX_ADDRESSES, &path, errors, |address, path, errors| {
        let given = address.as_str().unwrap_or_default();
        match Cidr::parse(given).map(|cidr| format!("{}/{}", cidr.address, cidr.bits)) {
            None => {
                let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                errors.invalid(path, address, why);
            }
            Some(canonical) if canonical != given => {
                errors.invalid(path, address, &format!("must be in canonical form ({canonical:?})"));
            }
            Some(_) => {}
        }
    });
    if judged {
        no_duplicates(&strings(network, "/ips"), &path, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(status: &Value) -> Vec<String> {
        let claim = |status: &Value| json!({"spec": {"devices": {"requests": [{"name": "a"}]}}, "status": status});
        complaints(|errors| validate_status(&claim(status), &claim(&json!({})), errors))
    }

    fn device(change: &Value) -> Value {
        let device = json!({"driver": "d.example", "pool": "p", "device": "gpu-0"});
        crate::patch::merge::apply(&device, change)
    }

    #[test]
    fn what_is_given_is_what_was_asked_for() {
        let given = |result: Value, more: Value| {
            let mut devices = json!({"results": [device(&result)]});
            more.as_object().into_iter().flatten().for_each(|(key, value)| devices[key] = value.clone());
            judge(&json!({"allocation": {"devices": devices}}))
        };
        let at = "status.allocation.devices";
        let opaque = json!({"driver": "d.example", "parameters": {}});
        assert_eq!(
            given(json!({"request": "a"}), json!({"config": [{"source": "FromClass", "opaque": opaque}]})),
            [""; 0]
        );
        for (result, more, said) in [
            (json!({"request": "a", "pool": ""}), json!({}), "results[0].pool: Required value"),
            (
                json!({"request": "a", "bindingConditions": ["x"]}),
                json!({}),
                "results[0].bindingFailureConditions: Invalid value: []: bindingFailureConditions are required to use bindingConditions",
            ),
            (
                json!({"request": "a"}),
                json!({"config": [{"source": "FromHere", "opaque": opaque}]}),
                "config[0].source: Unsupported value: \"FromHere\": supported values: \"FromClaim\", \"FromClass\"",
            ),
            (json!({"request": "a"}), json!({"config": [{"source": "FromClaim"}]}), "config[0].opaque: Required value"),
            (
                json!({"request": "a", "shareID": "6B7CC1A4-2F0E-4B1A-9E0C-0123456789AB"}),
                json!({}),
                "results[0].shareID: Invalid value: \"6B7CC1A4-2F0E-4B1A-9E0C-0123456789AB\": uid must be in RFC 4122 normalized \
                 form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters",
            ),
        ] {
            assert_eq!(given(result.clone(), more), [format!("{at}.{said}")], "{result}");
        }
    }

    #[test]
    fn drivers_tell_of_devices_that_the_claim_has() {
        let result = device(&json!({"request": "a"}));
        let told =
            |devices: Value| judge(&json!({"allocation": {"devices": {"results": [result]}}, "devices": devices}));
        let one = |change: Value| told(json!([device(&change)]));
        assert_eq!(one(json!({"networkData": {"ips": ["10.1.2.3/24", "fd00::1/64"]}, "data": {"a": 1}})), [""; 0]);
        for (change, said) in [
            (
                json!({"device": "gpu-1"}),
                ": Invalid value: \"d.example/p/gpu-1\": must be an allocated device in the claim",
            ),
            (json!({"data": 1}), ".data: Invalid value: \"<value omitted>\": must be a valid JSON object"),
            (
                json!({"networkData": {"ips": ["10.1.2.3"]}}),
                ".networkData.ips[0]: Invalid value: \"10.1.2.3\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or \
                 2001:db8::1/64)",
            ),
            (
                json!({"networkData": {"ips": ["FD00::1/64"]}}),
                ".networkData.ips[0]: Invalid value: \"FD00::1/64\": must be in canonical form (\"fd00::1/64\")",
            ),
            (
                json!({"networkData": {"interfaceName": "x".repeat(257)}}),
                ".networkData.interfaceName: Too long: may not be more than 256 bytes",
            ),
            (
                json!({"conditions": [{"type": "Ready", "status": "True", "reason": "R"}]}),
                ".conditions[0].lastTransitionTime: Required value: must be set",
            ),
        ] {
            assert_eq!(one(change.clone()), [format!("status.devices[0]{said}")], "{change}");
        }
        assert_eq!(
            told(json!([device(&json!({})), device(&json!({}))])),
            ["status.devices[1]: Duplicate value: \"d.example/p/gpu-0\""]
        );
    }
}
