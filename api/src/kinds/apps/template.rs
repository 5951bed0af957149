//! What workloads share: a count, a selector, and a pod template that the selector matches.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::core::podspec;
use crate::kinds::tree::{int, list, map, object, some, text};
use crate::meta;

/// Defaults of `spec.template`.
pub(crate) fn default(workload_spec: &mut Value) {
    if let Some(spec) = object(workload_spec, "template").and_then(|template| object(template, "spec")) {
        podspec::default(spec);
    }
}

/// Judges replicas, selector and template.
pub(crate) fn validate_workload(workload: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    non_negative(workload, &spec, "replicas", errors);
    non_negative(workload, &spec, "minReadySeconds", errors);
    let path = spec.child("selector");
    match some(workload, "/spec/selector") {
        None => errors.required(&path, ""),
        Some(selector) => {
            let before = errors.iter().count();
            validate_selector(selector, &path, errors);
            let good = errors.iter().count() == before;
            if is_empty(selector) {
                errors.invalid(&path, selector, "empty selector is invalid for deployment");
            }
            if !good {
                return errors.invalid(&path, selector, "invalid label selector");
            }
        }
    }
    validate_template(workload, &spec.child("template"), errors);
}

fn is_empty(selector: &Value) -> bool {
    map(selector, "/matchLabels").next().is_none() && list(selector, "/matchExpressions").is_empty()
}

fn validate_template(workload: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(template) = some(workload, "/spec/template") else {
        return errors.required(path, "");
    };
    let labels = template.pointer("/metadata/labels");
    let labels_path = path.child("metadata").child("labels");
    // No selector at all selects nothing.
    if !some(workload, "/spec/selector").is_some_and(|selector| selects(selector, labels)) {
        errors.invalid(&labels_path, labels.unwrap_or(&Value::Null), "`selector` does not match template `labels`");
    }
    meta::labels(labels, &path.child("labels"), errors);
    meta::annotations(template.pointer("/metadata/annotations"), &path.child("annotations"), errors);
    let pod = template.get("spec").unwrap_or(&Value::Null);
    let spec_path = path.child("spec");
    podspec::validate(pod, &spec_path, errors);
    let policy = text(pod, "/restartPolicy");
    if !policy.is_empty() && policy != "Always" {
        errors.not_supported(&spec_path.child("restartPolicy"), policy, &["Always"]);
    }
    if some(pod, "/activeDeadlineSeconds").is_some() {
        errors.forbidden(
            &spec_path.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

/// Whether a `metav1.LabelSelector` matches labels.
fn selects(selector: &Value, labels: Option<&Value>) -> bool {
    let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    map(selector, "/matchLabels").all(|(key, value)| label(key) == value.as_str())
        && list(selector, "/matchExpressions").iter().all(|expression| {
            let value = label(text(expression, "/key"));
            let listed = || list(expression, "/values").iter().any(|v| value.is_some() && v.as_str() == value);
            match text(expression, "/operator") {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

/// Judges a `metav1.LabelSelector`.
pub(crate) fn validate_selector(selector: &Value, path: &Path, errors: &mut ErrorList) {
    meta::labels(selector.get("matchLabels"), &path.child("matchLabels"), errors);
    for (index, expression) in list(selector, "/matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = list(expression, "/values");
        match text(expression, "/operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.forbidden(&path.child("values"), why);
                }
            }
            other => errors.invalid(&path.child("operator"), &json!(other), "not a valid selector operator"),
        }
        let key = text(expression, "/key");
        meta::push_all(errors, &path.child("key"), key, meta::names::qualified_name(key));
    }
}

/// Judges a count below `path` (`spec` or `status`) that may be absent, and reads it.
pub(crate) fn non_negative(object: &Value, path: &Path, field: &str, errors: &mut ErrorList) -> i64 {
    let value = int(object, &format!("/{path}/{field}")).unwrap_or_default();
    if value < 0 {
        errors.invalid(&path.child(field), &json!(value), "must be greater than or equal to 0");
    }
    value
}

/// Judges `3` or `25%`, and reads its number.
pub(crate) fn int_or_percent(parent: &Value, field: &str, path: &Path, errors: &mut ErrorList) -> Option<i64> {
    let path = path.child(field);
    let number = match parent.get(field)? {
        Value::String(text) => {
            let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            let Some(number) = digits.and_then(|d| d.parse().ok()) else {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                           '93%', regex used for validation is '[0-9]+%')";
                errors.invalid(&path, &json!(text), why);
                return None;
            };
            number
        }
        other => other.as_i64()?,
    };
    if number < 0 {
        errors.invalid(&path, &json!(number), "must be greater than or equal to 0");
    }
    Some(number)
}

/// Warnings about the template.
pub(crate) fn warnings(workload: &Value) -> Vec<String> {
    let spec = workload.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    podspec::warnings(spec, &Path::new("spec").child("template").child("spec"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_that_misses_the_template_is_refused() {
        let mut errors = ErrorList::default();
        let workload = json!({"spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}}});
        validate_workload(&workload, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            texts.contains(
                &"spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
                    .to_owned()
            ),
            "{texts:?}"
        );
    }

    #[test]
    fn expressions_select() {
        let labels = json!({"a": "1"});
        for (expression, matches) in [
            (json!({"key": "a", "operator": "In", "values": ["1", "2"]}), true),
            (json!({"key": "a", "operator": "NotIn", "values": ["1"]}), false),
            (json!({"key": "b", "operator": "NotIn", "values": ["1"]}), true),
            (json!({"key": "a", "operator": "Exists"}), true),
            (json!({"key": "a", "operator": "DoesNotExist"}), false),
        ] {
            assert_eq!(selects(&json!({"matchExpressions": [expression]}), Some(&labels)), matches, "{expression}");
        }
    }

    #[test]
    fn a_percentage_is_digits_and_a_sign() {
        let mut errors = ErrorList::default();
        let path = Path::new("p");
        assert_eq!(int_or_percent(&json!({"x": "25%"}), "x", &path, &mut errors), Some(25));
        assert_eq!(int_or_percent(&json!({"x": 3}), "x", &path, &mut errors), Some(3));
        assert!(errors.is_empty());
        assert_eq!(int_or_percent(&json!({"x": "a%"}), "x", &path, &mut errors), None);
        assert_eq!(errors.iter().count(), 1);
    }
}
