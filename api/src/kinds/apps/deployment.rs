//! Deployment: rolls ReplicaSets from one template to the next.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::template;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{fill, int, object, set, some, split_status, text};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    let mut columns = vec![
        cells::name(),
        column("Ready", "string", "Number of the pod with ready state", |o, _| json!(ready(o))),
        column(
            "Up-to-date",
            "string",
            "Total number of non-terminating pods that have the desired template.",
            |o, _| json!(int(o, "/status/updatedReplicas").unwrap_or_default()),
        ),
        column("Available", "string", "Total number of available non-terminating pods.", |o, _| {
            json!(int(o, "/status/availableReplicas").unwrap_or_default())
        }),
        cells::age(),
    ];
    columns.extend(cells::workload());
    Descriptor::of::<Deployment>()
        .short(&["deploy"])
        .categories(&["all"])
        .status()
        .status_keeps(&["labels"])
        .scale(".spec.replicas", ".status.replicas", Some(".spec.selector"))
        .columns(columns)
        .strategy(DeploymentStrategy)
}

fn ready(deployment: &Value) -> String {
    let count = |pointer| int(deployment, pointer).unwrap_or_default();
    format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas"))
}

#[derive(Debug)]
struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn default(&self, deployment: &mut Value) {
        let Some(spec) = object(deployment, "spec") else { return };
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = object(spec, "strategy") {
            fill(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = object(strategy, "rollingUpdate")
            {
                fill(rolling, "maxUnavailable", "25%");
                fill(rolling, "maxSurge", "25%");
            }
        }
        template::default(spec);
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        template::validate_workload(object, errors);
        validate_rollout(object, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return validate_status(new, old, errors);
        }
        template::validate_workload_update(new, old, errors);
        validate_rollout(new, errors);
    }

    fn new_warnings(&self, object: &Value) -> Vec<String> {
        template::name_warning(object).into_iter().collect()
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template::warnings(object)
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        if template::is_new(new, old) { self.warnings(new) } else { Vec::new() }
    }
}

fn validate_rollout(object: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    template::non_negative(object, &spec, "revisionHistoryLimit", errors);
    let minimum = int(object, "/spec/minReadySeconds").unwrap_or_default();
    if let Some(deadline) = int(object, "/spec/progressDeadlineSeconds") {
        let path = spec.child("progressDeadlineSeconds");
        template::non_negative(object, &spec, "progressDeadlineSeconds", errors);
        if deadline <= minimum {
            errors.invalid(&path, &json!(deadline), "must be greater than minReadySeconds");
        }
    }
    validate_strategy(object, &spec.child("strategy"), errors);
}

fn validate_strategy(object: &Value, path: &Path, errors: &mut ErrorList) {
    let rolling = some(object, "/spec/strategy/rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match (text(object, "/spec/strategy/type"), rolling) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.required(&rolling_path, "this should be defaulted and never be nil");
        }
        ("RollingUpdate", Some(rolling)) => {
            let unavailable = template::int_or_percent(rolling, "maxUnavailable", &rolling_path, errors);
            let surge = template::int_or_percent(rolling, "maxSurge", &rolling_path, errors);
            if (unavailable, surge) == (Some(0), Some(0)) {
                let value = some(rolling, "/maxUnavailable").cloned().unwrap_or_default();
                let path = rolling_path.child("maxUnavailable");
                errors.invalid(&path, &value, "may not be 0 when `maxSurge` is 0");
            }
            template::at_most_all(rolling, "maxUnavailable", &rolling_path, errors);
        }
        (other, _) => errors.not_supported(path, other, &["Recreate", "RollingUpdate"]),
    }
}

fn validate_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    template::validate_counts(new, "replicas", &parts, errors);
    for field in ["unavailableReplicas", "terminatingReplicas"] {
        template::non_negative(new, &Path::new("status"), field, errors);
    }
    template::validate_available(new, "cannot be greater than readyReplicas", errors);
    template::validate_collisions(new, old, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout_complaints(spec: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        validate_rollout(&json!({ "spec": spec }), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_bare_deployment_gets_kubernetes_defaults() {
        let mut deployment = json!({"spec": {}});
        DeploymentStrategy.default(&mut deployment);
        let once = deployment.clone();
        DeploymentStrategy.default(&mut deployment);
        assert_eq!(deployment, once);
        let spec = &deployment["spec"];
        assert_eq!(
            (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(1), &json!(10), &json!(600))
        );
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
    }

    #[test]
    fn a_rollout_can_always_move() {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}});
        assert_eq!(
            rollout_complaints(&json!({ "strategy": strategy })),
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]
        );
        let recreate = json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}});
        assert_eq!(
            rollout_complaints(&json!({ "strategy": recreate })),
            ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
        );
        assert_eq!(
            rollout_complaints(&json!({"strategy": {"type": "Blue"}})),
            ["spec.strategy: Unsupported value: \"Blue\": supported values: \"Recreate\", \"RollingUpdate\""]
        );
    }

    #[test]
    fn no_count_is_negative() {
        let new = json!({"status": {"terminatingReplicas": -1}});
        let mut errors = ErrorList::default();
        DeploymentStrategy.validate_update(&new, &json!({}), Part::Status, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0"]
        );
    }

    #[test]
    fn the_selector_never_changes() {
        let old = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"]["a"] = json!("c");
        let mut errors = ErrorList::default();
        DeploymentStrategy.validate_update(&new, &old, Part::Main, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            texts.contains(
                &"spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable".to_owned()
            ),
            "{texts:?}"
        );
    }
}
