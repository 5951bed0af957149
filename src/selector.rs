//! Which pods an object selects, written as a query has it.

use serde_json::{Map, Value};
use wherry_api::object;

/// `spec.selector` as a query has it: a `LabelSelector`, or a map of labels, as Services and ReplicationControllers have.
pub fn of(workload: &Value) -> Option<String> {
    text(object::at(workload, "spec.selector")?)
}

/// A selector in that form; `None` if it is of another form, or empty.
pub fn text(selector: &Value) -> Option<String> {
    let selector = selector.as_object()?;
    let is_map = selector.values().all(Value::is_string);
    let none = Map::new();
    let labels =
        if is_map { selector } else { selector.get("matchLabels").and_then(Value::as_object).unwrap_or(&none) };
    let mut terms: Vec<String> =
        labels.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    let expressions = selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten();
    for expression in expressions {
        let key = object::text_at(expression, "key");
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        let values: Vec<&str> = values.filter_map(Value::as_str).collect();
        terms.push(match object::text_at(expression, "operator").as_str() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key,
            _ => format!("!{key}"),
        });
    }
    // An empty selector of a Service selects nothing, one of a workload does not exist.
    (!terms.is_empty()).then(|| terms.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_is_written_as_a_query_has_it() {
        let selected = |selector: Value| of(&json!({"spec": {"selector": selector}}));
        assert_eq!(selected(json!({"app": "web"})).as_deref(), Some("app=web"));
        let long = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
            {"key": "x", "operator": "NotIn", "values": ["y"]}, {"key": "new", "operator": "Exists"}]});
        assert_eq!(selected(long).as_deref(), Some("app=web,tier in (a,b),!old,x notin (y),new"));
        assert_eq!(selected(json!({})), None);
        assert_eq!(of(&json!({"spec": {}})), None);
    }
}
