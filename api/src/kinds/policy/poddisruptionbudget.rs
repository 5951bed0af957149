//! PodDisruptionBudget: how many pods of a set may be missing because somebody evicts them.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::apps::template;
use crate::kinds::cells::{self, column};
use crate::kinds::check;
use crate::kinds::tree::{int, set, some, split_status, text};
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const EVICTION_POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];

pub fn descriptor() -> Descriptor {
    Descriptor::of::<PodDisruptionBudget>()
        .idle(Idle::Yet)
        .short(&["pdb"])
        .status()
        .columns(vec![
            cells::name(),
            column("Min Available", "string", "The minimum number of pods that must be available.", |o, _| {
                json!(bound(o, "/spec/minAvailable"))
            }),
            column("Max Unavailable", "string", "The maximum number of pods that may be unavailable.", |o, _| {
                json!(bound(o, "/spec/maxUnavailable"))
            }),
            column(
                "Allowed Disruptions",
                "integer",
                "Calculated number of pods that may be disrupted at this time.",
                |o, _| json!(int(o, "/status/disruptionsAllowed").unwrap_or_default()),
            ),
            cells::age(),
        ])
        .conditional()
        .strategy(PodDisruptionBudgetStrategy)
}

fn bound(budget: &Value, pointer: &str) -> String {
    match some(budget, pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "N/A".to_owned(),
    }
}

#[derive(Debug)]
struct PodDisruptionBudgetStrategy;

impl Strategy for PodDisruptionBudgetStrategy {
    fn prepare_create(&self, object: &mut Value) {
        let none = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        set(object, "status", none);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        let path = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let fields = ["minAvailable", "maxUnavailable"];
        if fields.iter().all(|field| some(spec, &format!("/{field}")).is_some()) {
            errors.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
        }
        for field in fields {
            template::int_or_percent(spec, field, &path, errors);
            template::at_most_all(spec, field, &path, errors);
        }
        if let Some(selector) = some(spec, "/selector") {
            template::validate_selector(selector, &path.child("selector"), errors);
        }
        let policy = text(spec, "/unhealthyPodEvictionPolicy");
        if some(spec, "/unhealthyPodEvictionPolicy").is_some() && !EVICTION_POLICIES.contains(&policy) {
            errors.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &EVICTION_POLICIES);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, _old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            return self.validate(new, errors);
        }
        check::conditions(new.get("status").unwrap_or(&Value::Null), &Path::new("status"), errors);
        for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            template::non_negative(new, &Path::new("status"), field, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(spec: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        PodDisruptionBudgetStrategy.validate(&json!({ "spec": spec }), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_budget_has_one_bound_of_at_most_everything() {
        assert_eq!(complaints(&json!({"minAvailable": 1, "selector": {}})), Vec::<String>::new());
        assert_eq!(
            complaints(&json!({"maxUnavailable": "120%", "unhealthyPodEvictionPolicy": "Never"})),
            [
                "spec.maxUnavailable: Invalid value: \"120%\": must not be greater than 100%",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \
                 \"IfHealthyBudget\""
            ]
        );
        assert_eq!(
            complaints(&json!({"maxUnavailable": 1, "minAvailable": 1})),
            [
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be \
                 both set"
            ]
        );
    }
    #[test]
    fn a_status_has_conditions_in_their_usual_form() {
        let budget = json!({"status": {"conditions": [{"type": "DisruptionAllowed", "status": "Yes", "reason": "R",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let mut errors = ErrorList::default();
        PodDisruptionBudgetStrategy.validate_update(&budget, &json!({}), Part::Status, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["status.conditions[0].status: Unsupported value: \"Yes\": supported values: \"False\", \"True\", \
              \"Unknown\""]
        );
    }
}
