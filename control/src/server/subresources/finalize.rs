//! Finalize: writes a Namespace's `spec.finalizers` and nothing else. Emptying them ends a deletion.

use serde_json::Value;
use wherry_api::object;

pub(crate) fn write_back(old: &Value, changed: &Value) -> Value {
    let mut new = super::with_preconditions(old, changed);
    object::set_at(&mut new, "spec.finalizers", object::at(changed, "spec.finalizers").cloned().unwrap_or(Value::Null));
    new
}
