//! ReplicaSet: as many pods of one template as it says.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::template;
use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{carry_labels, fill, int, object, set, split_status};
use crate::meta;
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    let mut columns = vec![
        cells::name(),
        column("Desired", "integer", "Replicas is the number of desired pods.", |o, _| number(o, "/spec/replicas")),
        column(
            "Current",
            "integer",
            "Replicas is the most recently observed number of non-terminating pods.",
            |o, _| number(o, "/status/replicas"),
        ),
        column("Ready", "integer", "The number of non-terminating pods with a Ready condition.", |o, _| {
            number(o, "/status/readyReplicas")
        }),
        cells::age(),
    ];
    columns.extend(cells::workload());
    Descriptor::of::<ReplicaSet>()
        .short(&["rs"])
        .categories(&["all"])
        .status()
        .scale(".spec.replicas", ".status.replicas", Some(".spec.selector"))
        .columns(columns)
        .selectable(&["status.replicas"])
        .strategy(ReplicaSetStrategy)
}

fn number(replicaset: &Value, pointer: &str) -> Value {
    json!(int(replicaset, pointer).unwrap_or_default())
}

#[derive(Debug)]
struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0}));
    }

    fn default(&self, replicaset: &mut Value) {
        if let Some(spec) = object(replicaset, "spec") {
            fill(spec, "replicas", 1);
            template::default(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        template::validate_workload(object, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
        if part == Part::Status {
            carry_labels(new, old);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return validate_status(new, errors);
        }
        template::validate_workload(new, errors);
        let path = Path::new("spec").child("selector");
        meta::immutable(new.pointer("/spec/selector"), old.pointer("/spec/selector"), &path, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        template::warnings(object)
    }
}

fn validate_status(object: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    let total = template::non_negative(object, &path, "replicas", errors);
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        let value = template::non_negative(object, &path, field, errors);
        if value > total {
            errors.invalid(&path.child(field), &json!(value), "cannot be greater than status.replicas");
        }
    }
    template::non_negative(object, &path, "observedGeneration", errors);
    let (available, ready) = (number(object, "/status/availableReplicas"), number(object, "/status/readyReplicas"));
    if available.as_i64() > ready.as_i64() {
        errors.invalid(&path.child("availableReplicas"), &available, "cannot be greater than readyReplicas");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_update_touches_neither_spec_nor_labels() {
        let old = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"replicas": 0}});
        let mut new = json!({"metadata": {}, "spec": {"replicas": 7}, "status": {"replicas": 1}});
        ReplicaSetStrategy.prepare_update(&mut new, &old, Part::Status);
        assert_eq!(
            new,
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}, "status": {"replicas": 1}})
        );
    }

    #[test]
    fn a_status_adds_up() {
        let mut errors = ErrorList::default();
        validate_status(&json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 1}}), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
    }
}
