//! Which objects a quota is about: all that it has resources for, unless it names scopes.

use serde_json::Value;
use wherry_api::kinds::core::podspec::resources::qos_class;
use wherry_api::object;

/// Whether a quota with this spec is about an object.
pub fn selects(spec: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let list = |path: &str| object::at(spec, path).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let kind = if group.is_empty() { plural } else { "" };
    let plain = list("scopes").iter().filter_map(Value::as_str).all(|scope| has(scope, "Exists", &[], kind, object));
    plain
        && list("scopeSelector.matchExpressions").iter().all(|expression| {
            let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
            let values = expression.get("values").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            has(text("scopeName"), text("operator"), values, kind, object)
        })
}

fn has(scope: &str, operator: &str, values: &[Value], kind: &str, object: &Value) -> bool {
    match (kind, scope) {
        ("pods", "Terminating") => deadline(object),
        ("pods", "NotTerminating") => !deadline(object),
        ("pods", "BestEffort") => best_effort(object),
        ("pods", "NotBestEffort") => !best_effort(object),
        ("pods", "PriorityClass") => compares(&object::text_at(object, "spec.priorityClassName"), operator, values),
        ("pods", "CrossNamespacePodAffinity") => crosses(object),
        ("persistentvolumeclaims", "VolumeAttributesClass") => {
            compares(&object::text_at(object, "spec.volumeAttributesClassName"), operator, values)
        }
        _ => false,
    }
}

fn deadline(pod: &Value) -> bool {
    object::at(pod, "spec.activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds >= 0)
}

fn best_effort(pod: &Value) -> bool {
    object::at(pod, "spec").is_none_or(|spec| qos_class(spec) == "BestEffort")
}

fn compares(value: &str, operator: &str, values: &[Value]) -> bool {
    let listed = !value.is_empty() && values.iter().any(|v| v.as_str() == Some(value));
    match operator {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        _ => false,
    }
}

/// Whether the pod is placed by pods of other namespaces.
fn crosses(pod: &Value) -> bool {
    let terms = |path: String| object::at(pod, &path).and_then(Value::as_array).cloned().unwrap_or_default();
    ["podAffinity", "podAntiAffinity"].iter().any(|field| {
        let at = |kind: &str| terms(format!("spec.affinity.{field}.{kind}DuringSchedulingIgnoredDuringExecution"));
        let preferred = at("preferred").into_iter().filter_map(|term| term.get("podAffinityTerm").cloned());
        at("required").into_iter().chain(preferred).any(|term| {
            term.get("namespaces").and_then(Value::as_array).is_some_and(|names| !names.is_empty())
                || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_scope_must_hold() {
        let short =
            json!({"spec": {"activeDeadlineSeconds": 5, "containers": [{"name": "a"}], "priorityClassName": "high"}});
        let long = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
        for (spec, of_short, of_long) in [
            (json!({}), true, true),
            (json!({"scopes": ["Terminating"]}), true, false),
            (json!({"scopes": ["NotTerminating", "BestEffort"]}), false, false),
            (json!({"scopes": ["NotTerminating", "NotBestEffort"]}), false, true),
            (by_class("In", &["high", "low"]), true, false),
            (by_class("NotIn", &["high"]), false, true),
            (by_class("DoesNotExist", &[]), false, true),
        ] {
            assert_eq!(
                (selects(&spec, "", "pods", &short), selects(&spec, "", "pods", &long)),
                (of_short, of_long),
                "{spec}"
            );
        }
        assert!(!selects(&json!({"scopes": ["BestEffort"]}), "", "services", &json!({})));
    }

    fn by_class(operator: &str, values: &[&str]) -> Value {
        let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
        json!({"scopeSelector": {"matchExpressions": [expression]}})
    }

    #[test]
    fn affinity_to_pods_elsewhere_is_a_scope() {
        let term = json!({"labelSelector": {}, "namespaces": ["other"]});
        let required = |term: &Value| json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
        let spec = json!({"scopes": ["CrossNamespacePodAffinity"]});
        assert!(selects(&spec, "", "pods", &required(&term)));
        assert!(!selects(&spec, "", "pods", &required(&json!({"labelSelector": {}}))));
    }
}
