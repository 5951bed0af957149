//! Between `v1`, which has a field for the share of CPU alone, and `v2`: what else there is travels in annotations, in the
//! form that `v1` has for it.

use serde_json::{Map, Value, json};

use super::check;
use super::v2::default_metric;
use crate::kinds::tree::{list, object, remove, set, some, text};
use crate::object::{annotation, at, remove_annotation, set_annotation, set_at};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// A field of a source in `v2`, and in `v1`.
type Names = [(&'static str, &'static str)];

const RESOURCE: &Names = &[
    ("name", "name"),
    ("container", "container"),
    ("target.averageUtilization", "targetAverageUtilization"),
    ("target.averageValue", "targetAverageValue"),
    ("current.averageUtilization", "currentAverageUtilization"),
    ("current.averageValue", "currentAverageValue"),
];
const PODS: &Names = &[
    ("metric.name", "metricName"),
    ("metric.selector", "selector"),
    ("target.averageValue", "targetAverageValue"),
    ("current.averageValue", "currentAverageValue"),
];
const OBJECT: &Names = &[
    ("describedObject", "target"),
    ("metric.name", "metricName"),
    ("metric.selector", "selector"),
    ("target.value", "targetValue"),
    ("target.averageValue", "averageValue"),
    ("current.value", "currentValue"),
    ("current.averageValue", "averageValue"),
];
const EXTERNAL: &Names = &[
    ("metric.name", "metricName"),
    ("metric.selector", "metricSelector"),
    ("target.value", "targetValue"),
    ("target.averageValue", "targetAverageValue"),
    ("current.value", "currentValue"),
    ("current.averageValue", "currentAverageValue"),
];

fn names(field: &str) -> &'static Names {
    match field {
        "pods" => PODS,
        "object" => OBJECT,
        "external" => EXTERNAL,
        _ => RESOURCE,
    }
}

/// A metric, or what it is now, as `v1` writes it.
fn metric_to_v1(metric: &Value) -> Value {
    let kind = text(metric, "/type");
    let field = check::source(kind);
    let source = metric.get(field).unwrap_or(&Value::Null);
    let fields: Map<String, Value> = names(field)
        .iter()
        .filter_map(|(v2, v1)| Some(((*v1).to_owned(), at(source, v2).filter(|value| !value.is_null())?.clone())))
        .collect();
    let mut converted = json!({ "type": kind });
    set(&mut converted, field, Value::Object(fields));
    converted
}

/// The same, back; `part` is `target` of a metric and `current` of what it is now.
fn metric_to_v2(metric: &Value, part: &str) -> Value {
    let kind = text(metric, "/type");
    let field = check::source(kind);
    let given = metric.get(field).unwrap_or(&Value::Null);
    let mut source = json!({});
    for (v2, v1) in names(field) {
        let other = v2.starts_with("target.") && part != "target" || v2.starts_with("current.") && part != "current";
        if let Some(value) = some(given, &format!("/{v1}")).filter(|_| !other) {
            set_at(&mut source, v2, value.clone());
        }
    }
    if part == "target" {
        let has = |amount: &str| at(&source, &format!("target.{amount}")).is_some();
        let kind = match () {
            () if has("averageUtilization") => "Utilization",
            () if has("averageValue") => "AverageValue",
            () => "Value",
        };
        set_at(&mut source, "target.type", kind);
    }
    let mut converted = json!({ "type": kind });
    set(&mut converted, field, source);
    converted
}

fn is_cpu_share(metric: &Value, part: &str) -> bool {
    text(metric, "/type") == "Resource"
        && text(metric, "/resource/name") == "cpu"
        && some(metric, &format!("/resource/{part}/averageUtilization")).is_some()
}

/// `v1` of what is stored.
pub(super) fn from_stored(mut autoscaler: Value) -> Value {
    for (section, list_name, part, number, note) in [
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage", METRICS),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage", CURRENT),
    ] {
        let metrics = list(&autoscaler, &format!("/{section}/{list_name}")).to_vec();
        let (shares, others): (Vec<_>, Vec<_>) = metrics.into_iter().partition(|metric| is_cpu_share(metric, part));
        let share =
            shares.first().and_then(|metric| some(metric, &format!("/resource/{part}/averageUtilization"))).cloned();
        // A second share of CPU has no field either.
        let others: Vec<Value> = shares.iter().skip(1).chain(&others).map(metric_to_v1).collect();
        if let Some(section) = autoscaler.get_mut(section) {
            remove(section, list_name);
            if let Some(share) = share {
                set(section, number, share);
            }
        }
        if !others.is_empty() {
            set_annotation(&mut autoscaler, note, &json!(others).to_string());
        }
    }
    for (section, field, note) in [("spec", "behavior", BEHAVIOR), ("status", "conditions", CONDITIONS)] {
        let moved = autoscaler.get_mut(section).and_then(|section| remove(section, field)).filter(|v| !v.is_null());
        if let Some(moved) = moved {
            set_annotation(&mut autoscaler, note, &moved.to_string());
        }
    }
    autoscaler
}

/// What is stored of `v1`. An annotation that is not readable stays one.
pub(super) fn to_stored(mut autoscaler: Value) -> Value {
    for (section, list_name, part, number, note) in [
        ("spec", "metrics", "target", "targetCPUUtilizationPercentage", METRICS),
        ("status", "currentMetrics", "current", "currentCPUUtilizationPercentage", CURRENT),
    ] {
        let mut metrics: Vec<Value> = match noted(&mut autoscaler, note) {
            Some(Value::Array(all)) => all.iter().map(|metric| metric_to_v2(metric, part)).collect(),
            _ => Vec::new(),
        };
        let Some(section_value) = autoscaler.get_mut(section).filter(|value| value.is_object()) else { continue };
        if let Some(share) = remove(section_value, number).filter(|share| !share.is_null()) {
            let mut amount = json!({ "averageUtilization": share });
            if part == "target" {
                set(&mut amount, "type", "Utilization");
            }
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", part: amount}}));
        }
        if metrics.is_empty() && section == "spec" {
            metrics.push(default_metric());
        }
        if !metrics.is_empty() {
            set(section_value, list_name, metrics);
        }
    }
    for (section, field, note) in [("spec", "behavior", BEHAVIOR), ("status", "conditions", CONDITIONS)] {
        if let Some(value) = noted(&mut autoscaler, note)
            && let Some(section) = object(&mut autoscaler, section)
        {
            set(section, field, value);
        }
    }
    autoscaler
}

/// Takes what an annotation holds.
fn noted(autoscaler: &mut Value, note: &str) -> Option<Value> {
    let value = serde_json::from_str(annotation(autoscaler, note)?).ok()?;
    remove_annotation(autoscaler, note);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_has_no_field_for_comes_back() {
        let selector = json!({"matchLabels": {"a": "b"}});
        let metrics = json!([
            {"type": "Pods", "pods": {"metric": {"name": "m", "selector": selector}, "target": {"type": "AverageValue", "averageValue": "5"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"}, "target": {"type": "Value", "value": "7"}}},
            {"type": "External", "external": {"metric": {"name": "q", "selector": selector}, "target": {"type": "AverageValue", "averageValue": "3"}}},
            {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "Utilization", "averageUtilization": 60}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
        ]);
        let stored = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 4, "metrics": metrics,
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 1}}},
            "status": {"conditions": [{"type": "AbleToScale", "status": "True"}], "currentMetrics": [
                {"type": "Resource", "resource": {"name": "memory", "current": {"averageValue": "9"}}},
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "1"}}}]}});
        let shown = from_stored(stored.clone());
        assert_eq!(shown["spec"], json!({"maxReplicas": 4, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(shown["status"], json!({"currentCPUUtilizationPercentage": 12}));
        assert!(annotation(&shown, METRICS).is_some_and(|text| text.contains("\"metricName\":\"m\"")));
        let again = to_stored(shown);
        assert_eq!((&again["spec"], &again["metadata"]), (&stored["spec"], &stored["metadata"]));
        assert_eq!(again["status"]["conditions"], stored["status"]["conditions"]);
    }

    #[test]
    fn an_autoscaler_without_a_metric_goes_by_the_cpu() {
        let stored = to_stored(json!({"spec": {"maxReplicas": 1}}));
        assert_eq!(stored["spec"]["metrics"], json!([default_metric()]));
    }
}
