//! What an update may change of a Job's template: where its pods may run, while the Job is suspended and has not started.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::tree::{carry, is_true, map, object, remove, some};
use crate::meta;

/// Fields of the pod that say where it may run.
const DIRECTIVES: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];

pub(super) fn validate(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let null = Value::Null;
    let template = new.pointer("/spec/template").unwrap_or(&null);
    let mut allowed = old.pointer("/spec/template").cloned().unwrap_or_default();
    if is_true(old, "/spec/suspend") && some(old, "/status/startTime").is_none() {
        carry_directives(&mut allowed, template);
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

fn carry_node_affinity(spec: &mut Value, pod: &Value) {
    if let Some(affinity) = object(spec, "affinity") {
        carry(affinity, pod.pointer("/affinity").unwrap_or(&Value::Null), "nodeAffinity");
    }
    if map(spec, "/affinity").next().is_none() && pod.get("affinity").is_none_or(Value::is_null) {
        remove(spec, "affinity");
    }
}
