//! The spec of a ResourceClaim, which a ResourceClaimTemplate has, too: requests, constraints between them, configuration.

use serde_json::{Value, json};

use super::config;
use crate::field::{ErrorList, Path};
use crate::kinds::check::{no_duplicates, strings, subdomain};
use crate::kinds::tree::{fill, int, list, list_mut, object, some, text};
use crate::meta::names;

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
    bounded(requests, MAX_REQUESTS, &path.child("requests"), errors);
    config::distinct(requests, "name", &path.child("requests"), errors);
    for (index, request) in requests.iter().enumerate() {
        validate_request(request, &path.child("requests").index(index), errors);
    }
    let constraints = list(devices, "/constraints");
    bounded(constraints, MAX_CONSTRAINTS, &path.child("constraints"), errors);
    for (index, constraint) in constraints.iter().enumerate() {
        validate_constraint(constraint, devices, &path.child("constraints").index(index), errors);
    }
    let configs = list(devices, "/config");
    bounded(configs, config::MAX_CONFIGS, &path.child("config"), errors);
    for (index, entry) in configs.iter().enumerate() {
        let path = path.child("config").index(index);
        references(entry, devices, &path.child("requests"), errors);
        config::opaque(entry, &path, errors);
    }
}

fn bounded(items: &[Value], max: usize, path: &Path, errors: &mut ErrorList) {
    if items.len() > max {
        errors.too_many(path, items.len(), max);
    }
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
            bounded(alternatives, MAX_ALTERNATIVES, &path, errors);
            config::distinct(alternatives, "name", &path, errors);
            for (index, alternative) in alternatives.iter().enumerate() {
                config::label(alternative, "name", &path.index(index), errors);
                validate_devices(alternative, &path.index(index), errors);
            }
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
    let fields = ["matchAttribute", "distinctAttribute"];
    match fields.map(|field| some(constraint, &format!("/{field}"))) {
        [Some(_), Some(_)] | [None, None] => {
            let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required";
            errors.required(path, why);
        }
        [Some(name), None] => attribute(name, &path.child("matchAttribute"), errors),
        [None, Some(name)] => attribute(name, &path.child("distinctAttribute"), errors),
    }
}

/// `example.com/identifier`.
fn attribute(name: &Value, path: &Path, errors: &mut ErrorList) {
    let text = name.as_str().unwrap_or_default();
    let Some((domain, id)) = text.split_once('/') else {
        return errors.invalid(path, name, "must include a domain");
    };
    crate::meta::push_all(errors, path, domain, names::dns1123_subdomain(domain));
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !id.starts_with(letter) || !id.chars().all(|c| letter(c) || c.is_ascii_digit()) {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                   alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for \
                   validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.invalid(path, &json!(id), why);
    }
}

/// Judges `requests` of a constraint or a configuration.
fn references(parent: &Value, devices: &Value, path: &Path, errors: &mut ErrorList) {
    let references = strings(parent, "/requests");
    no_duplicates(&references, path, errors);
    for (index, reference) in references.iter().enumerate() {
        if !is_request(reference, devices) {
            errors.invalid(&path.index(index), &json!(reference), NO_REQUEST);
        }
    }
}

/// Whether a claim has a request, or an alternative of one (`request/alternative`), of this name.
pub(super) fn is_request(reference: &str, devices: &Value) -> bool {
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
        assert_eq!(with(json!({"requests": ["a"], "matchAttribute": "numa"})).len(), 1);
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
