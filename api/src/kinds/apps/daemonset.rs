//! DaemonSet: one pod of a template on every node that fits.

use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::template;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column, count};
use crate::kinds::tree::{fill, object, set, some, split_status, text};
use crate::meta;
use crate::object::{annotation, set_annotation};
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

/// Where `apps/v1` keeps the number that once was `spec.templateGeneration`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const COUNTS: [&str; 7] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

pub fn descriptor() -> Descriptor {
    let mut columns = vec![
        cells::name(),
        column(
            "Desired",
            "integer",
            "The total number of nodes that should be running the daemon pod (including nodes correctly running the \
             daemon pod).",
            |o, _| count(o, "/status/desiredNumberScheduled"),
        ),
        column(
            "Current",
            "integer",
            "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod.",
            |o, _| count(o, "/status/currentNumberScheduled"),
        ),
        column(
            "Ready",
            "integer",
            "numberReady is the number of nodes that should be running the daemon pod and have one or more of the \
             daemon pod running with a Ready Condition.",
            |o, _| count(o, "/status/numberReady"),
        ),
        column("Up-to-date", "integer", "The total number of nodes that are running updated daemon pod", |o, _| {
            count(o, "/status/updatedNumberScheduled")
        }),
        column(
            "Available",
            "integer",
            "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running \
             and available (ready for at least spec.minReadySeconds)",
            |o, _| count(o, "/status/numberAvailable"),
        ),
        column(
            "Node Selector",
            "string",
            "NodeSelector is a selector which must be true for the pod to fit on a node.",
            |o, _| json!(cells::labels(o, "/spec/template/spec/nodeSelector")),
        ),
        cells::age(),
    ];
    columns.extend(cells::workload());
    Descriptor::of::<DaemonSet>()
        .idle(Idle::Yet)
        .short(&["ds"])
        .categories(&["all"])
        .status()
        .columns(columns)
        .strategy(DaemonSetStrategy)
}

#[derive(Debug)]
struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    fn prepare_create(&self, object: &mut Value) {
        let none: serde_json::Map<String, Value> =
            COUNTS.iter().take(4).map(|field| ((*field).to_owned(), json!(0))).collect();
        set(object, "status", none);
        set_annotation(object, TEMPLATE_GENERATION, "1");
    }

    fn default(&self, daemon: &mut Value) {
        let Some(spec) = object(daemon, "spec") else { return };
        if let Some(strategy) = object(spec, "updateStrategy") {
            fill(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = object(strategy, "rollingUpdate")
            {
                fill(rolling, "maxUnavailable", 1);
                fill(rolling, "maxSurge", 0);
            }
        }
        fill(spec, "revisionHistoryLimit", 10);
        template::default(spec);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let spec = Path::new("spec");
        if template::validate_own_selector(object, "empty selector is invalid for daemonset", errors) {
            template::validate_selected(object, errors);
        }
        let path = spec.child("template");
        let pod = object.pointer("/spec/template").unwrap_or(&Value::Null);
        template::validate_template(pod, &path, errors);
        template::validate_endless(pod, "DaemonSet", &path, errors);
        template::non_negative(object, &spec, "minReadySeconds", errors);
        validate_strategy(object, &spec.child("updateStrategy"), errors);
        template::non_negative(object, &spec, "revisionHistoryLimit", errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
        let before: i64 = annotation(old, TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default();
        if before > 0 {
            let changed = i64::from(!is_same_template(new, old));
            set_annotation(new, TEMPLATE_GENERATION, &before.saturating_add(changed).to_string());
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            for field in COUNTS.iter().chain(&["observedGeneration"]) {
                template::non_negative(new, &Path::new("status"), field, errors);
            }
            return template::validate_collisions(new, old, errors);
        }
        errors.judge_change(new, old, |daemon, errors| self.validate(daemon, errors));
        template::validate_same_selector(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template::warnings(object)
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        if is_same_template(new, old) { Vec::new() } else { self.warnings(new) }
    }
}

fn is_same_template(new: &Value, old: &Value) -> bool {
    meta::same(new.pointer("/spec/template"), old.pointer("/spec/template"))
}

fn validate_strategy(object: &Value, path: &Path, errors: &mut ErrorList) {
    let rolling_path = path.child("rollingUpdate");
    match (text(object, "/spec/updateStrategy/type"), some(object, "/spec/updateStrategy/rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required(&rolling_path, ""),
        ("RollingUpdate", Some(rolling)) => {
            let mut number =
                |field| template::int_or_percent(rolling, field, &rolling_path, errors).unwrap_or_default();
            let (unavailable, surge) = (number("maxUnavailable"), number("maxSurge"));
            for field in ["maxUnavailable", "maxSurge"] {
                template::at_most_all(rolling, field, &rolling_path, errors);
            }
            if unavailable != 0 && surge != 0 {
                let value = some(rolling, "/maxSurge").unwrap_or(&Value::Null);
                let why = "may not be set when maxUnavailable is non-zero";
                errors.invalid(&rolling_path.child("maxSurge"), value, why);
            }
            if unavailable == 0 && surge == 0 {
                errors.required(&rolling_path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
            }
        }
        (other, _) => errors.not_supported(path, other, &["RollingUpdate", "OnDelete"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Value {
        let mut daemon = json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        DaemonSetStrategy.prepare_create(&mut daemon);
        DaemonSetStrategy.default(&mut daemon);
        daemon
    }

    fn complaints(daemon: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        DaemonSetStrategy.validate(daemon, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pods_are_replaced_one_at_a_time_by_default() {
        let daemon = agent();
        assert_eq!(
            daemon["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(complaints(&daemon), Vec::<String>::new());
    }

    #[test]
    fn a_template_has_a_generation_of_its_own() {
        let old = agent();
        let mut new = old.clone();
        new["spec"]["minReadySeconds"] = json!(3);
        DaemonSetStrategy.prepare_update(&mut new, &old, Part::Main);
        assert_eq!(annotation(&new, TEMPLATE_GENERATION), Some("1"));
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
        DaemonSetStrategy.prepare_update(&mut new, &old, Part::Main);
        assert_eq!(annotation(&new, TEMPLATE_GENERATION), Some("2"));
    }

    #[test]
    fn a_rolling_update_can_move_in_one_way() {
        for (unavailable, surge, wanted) in [
            (json!(0), json!(0), "maxUnavailable: Required value: cannot be 0 when maxSurge is 0"),
            (json!(1), json!("5%"), "maxSurge: Invalid value: \"5%\": may not be set when maxUnavailable is non-zero"),
            (json!("101%"), json!(0), "maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"),
        ] {
            let mut daemon = agent();
            daemon["spec"]["updateStrategy"]["rollingUpdate"] =
                json!({"maxUnavailable": unavailable, "maxSurge": surge});
            assert_eq!(complaints(&daemon), [format!("spec.updateStrategy.rollingUpdate.{wanted}")]);
        }
    }
}
