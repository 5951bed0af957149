//! What an update may change of a Job's template: where its pods may run and what they ask for, while the Job is suspended and
//! none of them is left.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{carry, int, is_true, list, list_mut, map, object, remove};
use crate::meta;

/// Fields of the pod that say where it may run.
const DIRECTIVES: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];

pub(super) fn validate(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let null = Value::Null;
    let template = new.pointer("/spec/template").unwrap_or(&null);
    let mut allowed = old.pointer("/spec/template").cloned().unwrap_or_default();
    if is_true(old, "/spec/suspend") && int(old, "/status/active").unwrap_or_default() == 0 {
        carry_directives(&mut allowed, template);
        carry_amounts(&mut allowed, template);
    }
    meta::immutable(Some(template), Some(&allowed), path, errors);
}

/// Makes in `allowed` what may change as it is in `template`.
fn carry_directives(allowed: &mut Value, template: &Value) {
    let null = Value::Null;
    let pod = template.get("spec").unwrap_or(&null);
    if let Some(spec) = object(allowed, "spec") {
        for field in DIRECTIVES {
            carry(spec, pod, field);
        }
        carry_node_affinity(spec, pod);
    }
    if let Some(metadata) = object(allowed, "metadata") {
        let given = template.get("metadata").unwrap_or(&null);
        for field in ["labels", "annotations"] {
            carry(metadata, given, field);
        }
    }
}

/// Takes over what containers request and are limited to. Containers themselves stay.
fn carry_amounts(allowed: &mut Value, template: &Value) {
    let Some(spec) = object(allowed, "spec") else { return };
    for field in ["containers", "initContainers"] {
        let given = list(template, &format!("/spec/{field}"));
        for (container, given) in list_mut(spec, field).zip(given) {
            if let Some(resources) = object(container, "resources") {
                let given = given.get("resources").unwrap_or(&Value::Null);
                for amounts in ["limits", "requests"] {
                    carry(resources, given, amounts);
                }
            }
        }
    }
}

fn carry_node_affinity(spec: &mut Value, pod: &Value) {
    if let Some(affinity) = object(spec, "affinity") {
        carry(affinity, pod.pointer("/affinity").unwrap_or(&Value::Null), "nodeAffinity");
    }
    if map(spec, "/affinity").next().is_none() && pod.get("affinity").is_none_or(Value::is_null) {
        remove(spec, "affinity");
    }
}
