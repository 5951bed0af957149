//! The spec of a ResourceClaim, which a ResourceClaimTemplate has, too: requests, constraints between them, configuration.

use serde_json::{Value, json};

use super::config;
use crate::field::{ErrorList, Path};
use crate::kinds::check::{no_duplicates, strings, subdomain};
use crate::kinds::tree::{fill, int, list, list_mut, object, some, text};
use crate::meta::{names, push_all};

const MAX_REQUESTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

pub(super) fn default(spec: &mut Value) {
    let Some(devices) = object(spec, "devices") else { return };
    for request in list_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| e.is_object()) {
            default_request(exactly);
        }
        list_mut(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    fill(request, "allocationMode", "ExactCount");
    if text(request, "/allocationMode") == "ExactCount" {
        fill(request, "count", 1);
    }
    for toleration in list_mut(request, "tolerations") {
        fill(toleration, "operator", "Equal");
    }
}

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let (devices, path) = (spec.get("devices").unwrap_or(&Value::Null), path.child("devices"));
    let requests = list(devices, "/requests");
    config::each_own(requests, "name", MAX_REQUESTS, &path.child("requests"), errors, validate_request);
    let constraints = list(devices, "/constraints");
    config::each(constraints, MAX_CONSTRAINTS, &path.child("constraints"), errors, |constraint, path, errors| {
        validate_constraint(constraint, devices, path, errors);
    });
    let configs = list(devices, "/config");
    config::each(configs, config::MAX_CONFIGS, &path.child("config"), errors, |entry, path, errors| {
        references(entry, devices, &path.child("requests"), errors);
        config::opaque(entry, path, errors);
    });
}

fn validate_request(request: &Value, path: &Path, errors: &mut ErrorList) {
    config::label(request, "name", path, errors);
    let (exactly, alternatives) = (some(request, "/exactly"), list(request, "/firstAvailable"));
    match (exactly, alternatives.is_empty()) {
        (None, true) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, &Value::Null, why);
        }
        (Some(exactly), true) => validate_devices(exactly, &path.child("exactly"), errors),
        (None, false) => {
            let path = path.child("firstAvailable");
            config::each_own(alternatives, "name", MAX_ALTERNATIVES, &path, errors, |alternative, path, errors| {
                config::label(alternative, "name", path, errors);
                validate_devices(alternative, path, errors);
            });
        }
    }
}

fn validate_devices(request: &Value, path: &Path, errors: &mut ErrorList) {
    subdomain(request, "deviceClassName", path, errors);
    config::selectors(request, path, errors);
    let count = int(request, "/count").unwrap_or_default();
    match text(request, "/allocationMode") {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.invalid(&path.child("count"), &json!(count), why);
        }
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), &json!(count), "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    config::tolerations(request, path, errors);
}

fn validate_constraint(constraint: &Value, devices: &Value, path: &Path, errors: &mut ErrorList) {
    references(constraint, devices, &path.child("requests"), errors);
    let mut fields = ["matchAttribute", "distinctAttribute"].into_iter();
    match fields.find_map(|field| Some((field, some(constraint, &format!("/{field}"))?.as_str()?))) {
        Some((field, name)) => {
            let path = path.child(field);
            config::qualified(name, &path, errors);
            if !name.contains('/') {
                let why = "a fully qualified name must be a domain and a name separated by a slash";
                errors.invalid(&path, &json!(name), why);
            }
        }
        // In Kubernetes' words.
        None => errors.required(
            path,
            "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        ),
    }
}

/// Judges `requests` of a constraint or a configuration.
pub(super) fn references(parent: &Value, devices: &Value, path: &Path, errors: &mut ErrorList) {
    let all = strings(parent, "/requests");
    if all.len() > MAX_REQUESTS {
        return errors.too_many(path, all.len(), MAX_REQUESTS);
    }
    for (index, name) in all.iter().enumerate() {
        reference(name, devices, &path.index(index), errors);
    }
    no_duplicates(&all, path, errors);
}

/// Judges the name of a request, or of one and its alternative.
pub(super) fn reference(name: &str, devices: &Value, path: &Path, errors: &mut ErrorList) {
    if name.matches('/').count() < 2 {
        for part in name.split('/') {
            push_all(errors, path, part, names::dns1123_label(part));
        }
    }
    if !is_request(name, devices) {
        errors.invalid(path, &json!(name), NO_REQUEST);
    }
}

/// Whether a claim has a request, or an alternative of one (`request/alternative`), of this name.
fn is_request(reference: &str, devices: &Value) -> bool {
    let (name, alternative) = reference.split_once('/').map_or((reference, None), |(name, alt)| (name, Some(alt)));
    list(devices, "/requests").iter().filter(|request| text(request, "/name") == name).any(|request| {
        alternative.is_none_or(|alt| list(request, "/firstAvailable").iter().any(|a| text(a, "/name") == alt))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::complaints;

    fn judge(devices: &Value) -> Vec<String> {
        let mut spec = json!({ "devices": devices });
        default(&mut spec);
        complaints(|errors| validate(&spec, &Path::new("spec"), errors))
    }

    #[test]
    fn a_request_is_for_devices_or_for_the_first_of_some() {
        let exactly = json!({"deviceClassName": "gpu"});
        for (request, count) in [
            (json!({"name": "a", "exactly": exactly}), 0),
            (json!({"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "gpu"}]}), 0),
            (json!({"name": "a"}), 1),
            (json!({"name": "a", "exactly": exactly, "firstAvailable": [{"name": "b", "deviceClassName": "gpu"}]}), 1),
            (json!({"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "All", "count": 2}}), 1),
            (json!({"name": "a", "exactly": {"deviceClassName": "gpu", "count": 0}}), 1),
            (json!({"name": "A b", "exactly": {}}), 2),
        ] {
            let all = judge(&json!({ "requests": [request] }));
            assert_eq!(all.len(), count, "{request}: {all:?}");
        }
    }

    #[test]
    fn constraints_and_configuration_are_about_requests_of_the_claim() {
        let request = json!({"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "gpu"}]});
        let with = |constraint: Value| judge(&json!({"requests": [request], "constraints": [constraint]}));
        assert!(with(json!({"requests": ["a", "a/b"], "matchAttribute": "example.com/numa"})).is_empty());
        assert_eq!(
            with(json!({"requests": ["c"], "matchAttribute": "example.com/numa"})),
            [format!("spec.devices.constraints[0].requests[0]: Invalid value: \"c\": {NO_REQUEST}")]
        );
        assert_eq!(with(json!({"requests": ["a"]})).len(), 1);
        let at = "spec.devices.constraints[0]";
        assert_eq!(
            with(json!({"requests": ["a"], "matchAttribute": "numa"})),
            [format!(
                "{at}.matchAttribute: Invalid value: \"numa\": a fully qualified name must be a domain and a name \
                      separated by a slash"
            )]
        );
        assert_eq!(with(json!({"requests": ["a/b/c"], "matchAttribute": "a.b/c"})).len(), 1);
        assert_eq!(
            with(json!({"requests": ["a", "a"], "matchAttribute": "a.b/c"})),
            [format!("{at}.requests[1]: Duplicate value: \"a\"")]
        );
        let twice = json!({"requests": [request, request]});
        assert_eq!(judge(&twice), ["spec.devices.requests[1]: Duplicate value: \"a\""]);
    }

    #[test]
    fn one_device_is_asked_for_unless_more_are() {
        let mut spec = json!({"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "gpu"}}]}});
        default(&mut spec);
        assert_eq!(
            spec["devices"]["requests"][0]["exactly"],
            json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1})
        );
    }
}
