//! The pod spec, wherever it stands (a Pod, a workload's template): its defaults and its rules, a file per topic.

pub mod scheduling;

use serde_json::Value;

use crate::field::{ErrorList, Path};

/// Fills Kubernetes' defaults into a pod spec.
pub fn default(_spec: &mut Value) {}

/// Judges a pod spec; `metadata` is the pod's or the template's.
pub fn validate(_spec: &Value, _metadata: &Value, _path: &Path, _errors: &mut ErrorList) {}

/// What a user should know about a pod spec.
pub fn warnings(_spec: &Value, _path: &Path) -> Vec<String> {
    Vec::new()
}
