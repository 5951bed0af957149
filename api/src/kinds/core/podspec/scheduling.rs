//! Where a pod may run: taints and tolerations, affinity, node selectors.

use serde_json::Value;

use crate::field::{ErrorList, Path};
use crate::kinds::tree::text;
use crate::meta::{names, push_all};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Judges a node's taints.
pub fn validate_taints(taints: &[Value], path: &Path, errors: &mut ErrorList) {
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
        push_all(errors, &path.child("key"), key, names::qualified_name(key));
        if !value.is_empty() {
            push_all(errors, &path.child("value"), value, names::label_value(value));
        }
        validate_effect(effect, false, &path.child("effect"), errors);
        if taints.iter().take(index).any(|t| text(t, "/key") == key && text(t, "/effect") == effect) {
            errors.duplicate(&path, taint);
        }
    }
}

fn validate_effect(effect: &str, may_be_empty: bool, path: &Path, errors: &mut ErrorList) {
    if effect.is_empty() {
        if !may_be_empty {
            errors.required(path, "");
        }
    } else if !EFFECTS.contains(&effect) {
        errors.not_supported(path, effect, EFFECTS);
    }
}
