//! ReplicaSet: as many pods of one template as it says.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::{Value, json};

use super::template;
use crate::field::ErrorList;
use crate::kinds::cells;
use crate::kinds::tree::{fill, object, set, split_status};
use crate::resource::Descriptor;
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    let mut columns = template::replica_columns();
    columns.extend(cells::workload());
    Descriptor::of::<ReplicaSet>()
        .short(&["rs"])
        .categories(&["all"])
        .status()
        .scale(".spec.replicas", ".status.replicas", Some(".spec.selector"))
        .columns(columns)
        .selectable(&["status.replicas=0"])
        .strategy(ReplicaSetStrategy)
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
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return template::validate_replica_status(new, errors);
        }
        template::validate_workload_update(new, old, errors);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_adds_up() {
        let mut errors = ErrorList::default();
        let new = json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 1}});
        ReplicaSetStrategy.validate_update(&new, &json!({}), Part::Status, &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
    }
}
