//! ResourceQuota: how much all objects of a namespace may use together.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

use super::podspec::resources::{self, parse};
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{list, map, set, some, split_status, text};
use crate::meta::{IMMUTABLE, names, push_all};
use crate::quantity::Quantity;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

/// Resources that a quota may name without a domain.
const STANDARD: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Those of them that are counted.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// Those that pods use, which is what most scopes are about.
const OF_PODS: [&str; 7] = ["pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes whose selectors compare values.
const WITH_VALUES: [&str; 2] = ["PriorityClass", "VolumeAttributesClass"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<ResourceQuota>()
        .short(&["quota"])
        .status()
        .columns(vec![
            cells::name(),
            column(
                "Request",
                "string",
                "Request represents a minimum amount of cpu/memory that a container may consume.",
                |o, _| json!(usage(o, false)),
            ),
            column(
                "Limit",
                "string",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on \
                 the node.",
                |o, _| json!(usage(o, true)),
            ),
            cells::age(),
        ])
        .no_generation()
        .strategy(ResourceQuotaStrategy)
}

/// `cpu: 1/2, pods: 0/3` of the limits or of all else.
fn usage(quota: &Value, limits: bool) -> String {
    let used = |name: &String| quota.pointer("/status/used").and_then(|used| used.get(name)).and_then(Value::as_str);
    let parts: Vec<String> = map(quota, "/status/hard")
        .filter(|(name, _)| name.starts_with("limits") == limits)
        .map(|(name, hard)| format!("{name}: {}/{}", used(name).unwrap_or("0"), hard.as_str().unwrap_or_default()))
        .collect();
    parts.join(", ")
}

#[derive(Debug)]
struct ResourceQuotaStrategy;

impl Strategy for ResourceQuotaStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec");
        validate_amounts(object, "spec", "hard", errors);
        let scopes: Vec<&str> = list(object, "/spec/scopes").iter().filter_map(Value::as_str).collect();
        let shown = object.pointer("/spec/scopes").unwrap_or(&Value::Null);
        let at = path.child("scopes");
        for scope in &scopes {
            validate_scope(scope, object, (&at, &at), shown, errors);
        }
        validate_conflicts(&scopes, &at, shown, errors);
        if some(object, "/spec/scopeSelector").is_some() {
            validate_selector(object, &path.child("scopeSelector").child("matchExpressions"), errors);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            for field in ["hard", "used"] {
                validate_amounts(new, "status", field, errors);
            }
            return;
        }
        self.validate(new, errors);
        let scopes = |quota: &Value| -> BTreeSet<String> {
            list(quota, "/spec/scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        if scopes(new) != scopes(old) {
            let shown = new.pointer("/spec/scopes").unwrap_or(&Value::Null);
            errors.invalid(&Path::new("spec").child("scopes"), shown, IMMUTABLE);
        }
    }
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

fn validate_amounts(object: &Value, part: &str, field: &str, errors: &mut ErrorList) {
    let path = Path::new(part).child(field);
    for (name, amount) in map(object, &format!("/{part}/{field}")) {
        let path = path.key(name);
        validate_name(name, &path, errors);
        match parse(amount) {
            Err(why) => errors.invalid(&path, amount, why),
            Ok(quantity) if quantity < Quantity::ZERO => {
                errors.invalid(&path, &json!(quantity.to_string()), "must be greater than or equal to 0");
            }
            Ok(quantity) if is_counted(name) && quantity.milli() % 1000 != 0 => {
                errors.invalid(&path, &json!(quantity.to_string()), "must be an integer");
            }
            Ok(_) => {}
        }
    }
}

/// Resources of which there are only whole ones.
fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || name.starts_with("count/") || resources::is_extended(name)
}

fn validate_name(name: &str, path: &Path, errors: &mut ErrorList) {
    push_all(errors, path, name, names::qualified_name(name));
    if !name.contains('/') && !is_standard(name) {
        errors.invalid(path, &json!(name), "must be a standard resource for quota");
    }
}

/// A scope exists, and every limited resource has it. `paths`: of the scope's name and of the whole.
fn validate_scope(scope: &str, object: &Value, paths: (&Path, &Path), shown: &Value, errors: &mut ErrorList) {
    if !SCOPES.contains(&scope) {
        let value = if paths.0 == paths.1 { shown.clone() } else { json!(scope) };
        errors.invalid(paths.0, &value, "unsupported scope");
    }
    for (name, _) in map(object, "/spec/hard").filter(|(name, _)| is_standard(name)) {
        if !has_scope(name, scope) {
            errors.invalid(paths.1, shown, "unsupported scope applied to resource");
        }
    }
}

fn has_scope(resource: &str, scope: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            OF_PODS.contains(&resource)
        }
        // Said already.
        _ => true,
    }
}

fn validate_conflicts(scopes: &[&str], path: &Path, shown: &Value, errors: &mut ErrorList) {
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&one) && scopes.contains(&other) {
            errors.invalid(path, shown, "conflicting scopes");
        }
    }
}

fn validate_selector(object: &Value, path: &Path, errors: &mut ErrorList) {
    let whole = object.pointer("/spec/scopeSelector").unwrap_or(&Value::Null);
    let mut scopes = Vec::new();
    for expression in list(whole, "/matchExpressions") {
        let (scope, operator) = (text(expression, "/scopeName"), text(expression, "/operator"));
        let values = list(expression, "/values");
        validate_scope(scope, object, (&path.child("scopeName"), path), whole, errors);
        if SCOPES.contains(&scope) && !WITH_VALUES.contains(&scope) && operator != "Exists" {
            let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                       ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                       or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), &json!(operator), why);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), why);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), &json!(values), why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), &json!(other), "not a valid selector operator"),
        }
        scopes.push(scope);
    }
    let shown = object.pointer("/spec/scopes").unwrap_or(&Value::Null);
    validate_conflicts(&scopes, path, shown, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(spec: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        ResourceQuotaStrategy.validate(&json!({ "spec": spec }), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn resources_are_known_and_counts_are_whole() {
        let hard = json!({"pods": "3", "requests.cpu": "1500m", "count/widgets.example.com": "2", "requests.nvidia.com/gpu": "1",
            "requests.hugepages-2Mi": "4Mi"});
        assert_eq!(complaints(&json!({ "hard": hard })), Vec::<String>::new());
        assert_eq!(
            complaints(&json!({"hard": {"gold": "1", "pods": "1500m", "secrets": "-1"}})),
            [
                "spec.hard[gold]: Invalid value: \"gold\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[secrets]: Invalid value: \"-1\": must be greater than or equal to 0"
            ]
        );
    }

    #[test]
    fn a_scope_fits_what_is_limited() {
        assert_eq!(
            complaints(&json!({"hard": {"pods": "1", "services": "1"}, "scopes": ["Terminating"]})),
            ["spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource"]
        );
        assert_eq!(
            complaints(&json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]})),
            ["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"]
        );
        let by_class =
            json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
        assert_eq!(complaints(&json!({"hard": {"pods": "1"}, "scopeSelector": by_class})), Vec::<String>::new());
    }

    #[test]
    fn a_row_tells_requests_from_limits() {
        let quota =
            json!({"status": {"hard": {"limits.cpu": "2", "pods": "3"}, "used": {"pods": "1", "limits.cpu": "500m"}}});
        assert_eq!((usage(&quota, false), usage(&quota, true)), ("pods: 1/3".into(), "limits.cpu: 500m/2".into()));
    }
}
