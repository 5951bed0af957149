//! HorizontalPodAutoscaler `v2`: replicas by any number of metrics, and how fast they change.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use super::check;
use crate::field::ErrorList;
use crate::kinds::cells::{self, NONE, column};
use crate::kinds::tree::{fill, int, list, object, set, some, split_status, text};
use crate::resource::{Column, Descriptor, Idle};
use crate::strategy::{Part, Strategy};

/// Metrics that a row shows.
const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub fn descriptor() -> Descriptor {
    Descriptor::of::<HorizontalPodAutoscaler>()
        .idle(Idle::Yet)
        .short(&["hpa"])
        .categories(&["all"])
        .status()
        .columns(columns())
        .no_generation()
        .strategy(AutoscalerStrategy)
}

pub(super) fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Reference", "string", "What is scaled.", |o, _| {
            json!(format!("{}/{}", text(o, "/spec/scaleTargetRef/kind"), text(o, "/spec/scaleTargetRef/name")))
        }),
        column("Targets", "string", "Each metric as it is and as it should be.", |o, _| json!(targets(o))),
        column("MinPods", "string", "The lower limit of replicas.", |o, _| {
            json!(int(o, "/spec/minReplicas").map_or_else(|| "<unset>".to_owned(), |n| n.to_string()))
        }),
        column("MaxPods", "string", "The upper limit of replicas.", |o, _| cells::count(o, "/spec/maxReplicas")),
        column("Replicas", "string", "The replicas that there are.", |o, _| cells::count(o, "/status/currentReplicas")),
        cells::age(),
    ]
}

/// `cpu: 20%/80%`, of each metric.
pub(super) fn targets(autoscaler: &Value) -> String {
    let metrics = list(autoscaler, "/spec/metrics");
    let current = list(autoscaler, "/status/currentMetrics");
    let all: Vec<String> = metrics.iter().enumerate().map(|(index, m)| target(m, current.get(index))).collect();
    if all.is_empty() {
        return NONE.to_owned();
    }
    let shown = all.get(..SHOWN).unwrap_or(&all).join(", ");
    match all.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn target(metric: &Value, current: Option<&Value>) -> String {
    let field = check::source(text(metric, "/type"));
    let null = Value::Null;
    let source = metric.get(field).unwrap_or(&null);
    let value = |field: &str| some(source, &format!("/target/{field}"));
    let (kind, wanted, suffix) = [("averageUtilization", "%"), ("averageValue", " (avg)"), ("value", "")]
        .into_iter()
        .find_map(|(kind, suffix)| Some((kind, value(kind)?, suffix)))
        .unwrap_or(("value", &null, ""));
    // Of the others it is told by what they are.
    let suffix = if matches!(field, "external" | "object") || kind != "averageValue" { suffix } else { "" };
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let is =
        current.and_then(|current| current.get(field)).and_then(|source| some(source, &format!("/current/{kind}")));
    let is = is.map_or_else(
        || UNKNOWN.to_owned(),
        |value| if kind == "averageUtilization" { format!("{}%", plain(value)) } else { plain(value) },
    );
    let shown = format!("{is}/{}{suffix}", if wanted.is_null() { "<auto>".to_owned() } else { plain(wanted) });
    match field {
        "resource" | "containerResource" => format!("{}: {shown}", text(source, "/name")),
        _ => shown,
    }
}

/// What an autoscaler goes by that names no metric.
pub(super) fn default_metric() -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}})
}

#[derive(Debug)]
struct AutoscalerStrategy;

impl Strategy for AutoscalerStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0, "currentMetrics": null}));
    }

    fn default(&self, autoscaler: &mut Value) {
        let Some(spec) = object(autoscaler, "spec") else { return };
        fill(spec, "minReplicas", 1);
        if list(spec, "/metrics").is_empty() {
            set(spec, "metrics", json!([default_metric()]));
        }
        if let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) {
            default_behavior(behavior);
        }
    }

    fn validate(&self, autoscaler: &Value, errors: &mut ErrorList) {
        judge(autoscaler, None, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main { judge(new, Some(old), errors) } else { check::status(new, errors) }
    }
}

/// Up at once, by as many again or by four; down by all, after a while that the controller knows.
fn judge(autoscaler: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    check::scale(autoscaler, old, errors);
    check::metrics(autoscaler, old, errors);
}

fn default_behavior(behavior: &mut Value) {
    let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    let directions = [
        ("scaleUp", json!([policy("Pods", 4), policy("Percent", 100)])),
        ("scaleDown", json!([policy("Percent", 100)])),
    ];
    for (direction, policies) in directions {
        let Some(rules) = object(behavior, direction) else { continue };
        fill(rules, "selectPolicy", "Max");
        if direction == "scaleUp" {
            fill(rules, "stabilizationWindowSeconds", 0);
        }
        if some(rules, "/policies").is_none() {
            set(rules, "policies", policies);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_of_the_cpu_is_the_default_and_behavior_is_completed() {
        let mut autoscaler = json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}});
        AutoscalerStrategy.default(&mut autoscaler);
        assert_eq!(targets(&autoscaler), "cpu: <unknown>/80%");
        let behavior = &autoscaler["spec"]["behavior"];
        assert_eq!(behavior["scaleDown"]["policies"], json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
        assert_eq!(behavior["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
        let mut errors = ErrorList::default();
        AutoscalerStrategy.validate(&autoscaler, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn a_row_shows_two_metrics() {
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}});
        let autoscaler = json!({"spec": {"metrics": [default_metric(), pods, pods]}, "status": {"currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 20}}}]}});
        assert_eq!(targets(&autoscaler), "cpu: 20%/80%, <unknown>/5 + 1 more...");
    }

    #[test]
    fn a_target_is_shown_by_what_it_is_about() {
        let average = json!({"type": "AverageValue", "averageValue": "5"});
        let total = json!({"type": "Value", "value": "7"});
        for (kind, field, target, current, shown) in [
            ("Pods", "pods", &average, json!({"averageValue": "3"}), "3/5"),
            ("Object", "object", &average, json!({"averageValue": "3"}), "3/5 (avg)"),
            ("Object", "object", &total, json!({"value": "3"}), "3/7"),
            ("External", "external", &average, json!({}), "<unknown>/5 (avg)"),
            ("External", "external", &total, json!({"value": "3"}), "3/7"),
            ("Resource", "resource", &average, json!({"averageValue": "3"}), "cpu: 3/5"),
            ("ContainerResource", "containerResource", &average, json!({}), "cpu: <unknown>/5"),
        ] {
            let mut metric = json!({ "type": kind });
            metric[field] = json!({"name": "cpu", "target": target});
            let mut status = json!({ "type": kind });
            status[field] = json!({ "current": current });
            let autoscaler = json!({"spec": {"metrics": [metric]}, "status": {"currentMetrics": [status]}});
            assert_eq!(targets(&autoscaler), shown, "{kind}");
        }
    }
}
