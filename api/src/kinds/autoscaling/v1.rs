//! HorizontalPodAutoscaler `v1`: the share of CPU alone; the rest travels in annotations.

use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use serde_json::{Value, json};

use super::{check, convert, v2};
use crate::field::{ErrorList, Path};
use crate::kinds::tree::{fill, int, object, set, split_status};
use crate::resource::{Cell, Column, Descriptor, Idle};
use crate::strategy::{Part, Strategy};

pub fn descriptor() -> Descriptor {
    Descriptor::of::<HorizontalPodAutoscaler>()
        .idle(Idle::Yet)
        .short(&["hpa"])
        .categories(&["all"])
        .status()
        .columns(columns())
        .stored_as(("autoscaling", "v2"), "horizontalpodautoscalers", convert::from_stored, convert::to_stored)
        .no_generation()
        .strategy(AutoscalerStrategy)
}

/// Those of the stored version.
fn columns() -> Vec<Column> {
    let targets = |o: &Value, _| json!(v2::targets(&convert::to_stored(o.clone())));
    let mut columns = v2::columns();
    columns.iter_mut().filter(|column| column.name == "Targets").for_each(|column| column.cell = Cell::Of(targets));
    columns
}

#[derive(Debug)]
struct AutoscalerStrategy;

impl Strategy for AutoscalerStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0}));
    }

    fn default(&self, autoscaler: &mut Value) {
        if let Some(spec) = object(autoscaler, "spec") {
            fill(spec, "minReplicas", 1);
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

fn judge(autoscaler: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    check::scale(autoscaler, old, errors);
    if let Some(share) = int(autoscaler, "/spec/targetCPUUtilizationPercentage").filter(|share| *share < 1) {
        let path = Path::new("spec").child("targetCPUUtilizationPercentage");
        errors.invalid(&path, &json!(share), "must be greater than 0");
    }
    let old = old.map(|old| convert::to_stored(old.clone()));
    check::metrics(&convert::to_stored(autoscaler.clone()), old.as_ref(), errors);
}
