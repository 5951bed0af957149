//! Rules of an autoscaler, in the form of `v2`.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::core::podspec::resources::parse;
use crate::kinds::tree::{int, list, some, text};
use crate::meta::{names, push_all};
use crate::quantity::Quantity;

/// Types of metrics, and the field of each.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;

/// The field that a metric of this type has; `""` if there is no such type.
pub(super) fn source(kind: &str) -> &'static str {
    SOURCES.iter().find(|(known, _)| *known == kind).map_or("", |(_, field)| field)
}

/// Judges what is scaled and within which limits.
pub(super) fn scale(autoscaler: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    let max = int(autoscaler, "/spec/maxReplicas").unwrap_or_default();
    let min = int(autoscaler, "/spec/minReplicas");
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.invalid(&spec.child("minReplicas"), &json!(min), "must be greater than or equal to 1");
    }
    if max < 1 {
        errors.invalid(&spec.child("maxReplicas"), &json!(max), "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&spec.child("maxReplicas"), &json!(max), "must be greater than or equal to `minReplicas`");
    }
    let target = autoscaler.pointer("/spec/scaleTargetRef").unwrap_or(&Value::Null);
    let said = |autoscaler: &Value, field: &str| text(autoscaler, &format!("/spec/scaleTargetRef/{field}")).to_owned();
    let kept =
        old.is_some_and(|old| ["apiVersion", "kind"].iter().all(|field| said(old, field) == said(autoscaler, field)));
    let version = match text(target, "/kind") {
        _ if kept => Version::Any,
        // The only one of the core group that has a scale.
        "ReplicationController" => Version::Readable,
        _ => Version::OfGroup,
    };
    reference(target, version, &spec.child("scaleTargetRef"), errors);
}

/// What the `apiVersion` of a reference is judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Any,
    Readable,
    OfGroup,
}

impl Version {
    fn complaint(self, version: &str) -> Option<String> {
        match version.matches('/').count() {
            _ if self == Self::Any => None,
            2.. => Some(format!("unexpected GroupVersion string: {version}")),
            1 if !version.starts_with('/') => None,
            _ => (self == Self::OfGroup).then(|| "apiVersion must specify API group".to_owned()),
        }
    }
}

fn reference(reference: &Value, version: Version, path: &Path, errors: &mut ErrorList) {
    for field in ["kind", "name"] {
        let value = text(reference, &format!("/{field}"));
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            push_all(errors, &path.child(field), value, names::path_segment(value));
        }
    }
    let named = text(reference, "/apiVersion");
    if let Some(why) = version.complaint(named) {
        errors.invalid(&path.child("apiVersion"), &json!(named), &why);
    }
}

/// Judges a status.
pub(super) fn status(autoscaler: &Value, errors: &mut ErrorList) {
    for field in ["currentReplicas", "desiredReplicas"] {
        if let Some(count) = int(autoscaler, &format!("/status/{field}")).filter(|count| *count < 0) {
            errors.invalid(&Path::new("status").child(field), &json!(count), "must be greater than or equal to 0");
        }
    }
}

/// Judges metrics and behavior.
pub(super) fn metrics(autoscaler: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    let unreadable = |metric: &Value| Version::Readable.complaint(text(metric, "/object/describedObject/apiVersion"));
    let was = list(old.unwrap_or(&Value::Null), "/spec/metrics").iter().any(|metric| unreadable(metric).is_some());
    let version = if was { Version::Any } else { Version::Readable };
    for (index, metric) in list(autoscaler, "/spec/metrics").iter().enumerate() {
        validate_metric(metric, version, &spec.child("metrics").index(index), errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = some(autoscaler, &format!("/spec/behavior/{direction}")) {
            validate_rules(rules, &spec.child("behavior").child(direction), errors);
        }
    }
}

fn validate_metric(metric: &Value, version: Version, path: &Path, errors: &mut ErrorList) {
    let kind = text(metric, "/type");
    let field = source(kind);
    if kind.is_empty() {
        return errors.required(&path.child("type"), "must specify a metric source type");
    }
    if field.is_empty() {
        return errors.not_supported(&path.child("type"), kind, &SOURCES.map(|(kind, _)| kind));
    }
    for (_, other) in
        SOURCES.iter().filter(|(_, other)| *other != field && some(metric, &format!("/{other}")).is_some())
    {
        errors.forbidden(&path.child(other), "must populate the given metric source only");
    }
    let path = path.child(field);
    let Some(source) = some(metric, &format!("/{field}")) else {
        return errors.required(&path, "must populate information for the given metric source");
    };
    if field == "object" {
        let described = source.get("describedObject").unwrap_or(&Value::Null);
        reference(described, version, &path.child("describedObject"), errors);
    }
    if field.to_lowercase().ends_with("resource") {
        if text(source, "/name").is_empty() {
            errors.required(&path.child("name"), "must specify a resource name");
        }
        if field == "containerResource" {
            let (container, path) = (text(source, "/container"), path.child("container"));
            if container.is_empty() {
                errors.required(&path, "must specify a container");
            } else {
                push_all(errors, &path, container, names::dns1123_label(container));
            }
        }
    } else {
        let (name, path) = (text(source, "/metric/name"), path.child("metric").child("name"));
        if name.is_empty() {
            errors.required(&path, "must specify a metric name");
        } else {
            push_all(errors, &path, name, names::path_segment(name));
        }
    }
    validate_target(source.get("target").unwrap_or(&Value::Null), field, &path.child("target"), errors);
}

fn validate_target(target: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    match text(target, "/type") {
        "" => errors.required(&path.child("type"), "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => {
            let why = "must be either Utilization, Value, or AverageValue";
            errors.invalid(&path.child("type"), &json!(other), why);
        }
    }
    for amount in ["value", "averageValue"] {
        if let Some(value) = some(target, &format!("/{amount}"))
            && parse(value).is_ok_and(|quantity| quantity <= Quantity::ZERO)
        {
            errors.invalid(&path.child(amount), value, "must be positive");
        }
    }
    let (value, average) = (some(target, "/value").is_some(), some(target, "/averageValue").is_some());
    let share = int(target, "/averageUtilization");
    if let Some(share) = share.filter(|share| *share < 1) {
        errors.invalid(&path.child("averageUtilization"), &json!(share), "must be greater than 0");
    }
    match field {
        "pods" if !average => {
            errors.required(&path.child("averageValue"), "must specify a positive target averageValue");
        }
        "pods" => {}
        "object" | "external" => {
            if value && average && field == "external" {
                let why = "may not set both a target value for metric and a per-pod target";
                errors.forbidden(&path.child("value"), why);
            }
            if !value && !average {
                let why = if field == "external" {
                    "must set either a target value for metric or a per-pod target"
                } else {
                    "must set either a target value or averageValue"
                };
                errors.required(&path.child("averageValue"), why);
            }
        }
        _ if share.is_none() && !average => {
            let why = "must set either a target raw value or a target utilization";
            errors.required(&path.child("averageUtilization"), why);
        }
        _ if share.is_some() && average => {
            errors
                .forbidden(&path.child("averageValue"), "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn validate_rules(rules: &Value, path: &Path, errors: &mut ErrorList) {
    let window = int(rules, "/stabilizationWindowSeconds");
    let window_path = path.child("stabilizationWindowSeconds");
    match window {
        Some(seconds) if seconds < 0 => {
            errors.invalid(&window_path, &json!(seconds), "must be greater than or equal to zero");
        }
        Some(seconds) if seconds > WINDOW_MAX => {
            errors.invalid(&window_path, &json!(seconds), &format!("must be less than or equal to {WINDOW_MAX}"));
        }
        _ => {}
    }
    if let Some(tolerance) = some(rules, "/tolerance")
        && parse(tolerance).is_ok_and(|quantity| quantity < Quantity::ZERO)
    {
        errors.invalid(&path.child("tolerance"), tolerance, "must be greater than or equal to 0");
    }
    let select = text(rules, "/selectPolicy");
    if !select.is_empty() && !["Disabled", "Max", "Min"].contains(&select) {
        errors.not_supported(&path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let path = path.child("policies");
    if list(rules, "/policies").is_empty() {
        errors.required(&path, "must specify at least one Policy");
    }
    for (index, policy) in list(rules, "/policies").iter().enumerate() {
        let (path, kind) = (path.index(index), text(policy, "/type"));
        if !["Percent", "Pods"].contains(&kind) {
            errors.not_supported(&path.child("type"), kind, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let number = int(policy, &format!("/{field}")).unwrap_or_default();
            if number <= 0 {
                errors.invalid(&path.child(field), &json!(number), "must be greater than zero");
            } else if field == "periodSeconds" && number > PERIOD_MAX {
                errors.invalid(
                    &path.child(field),
                    &json!(number),
                    &format!("must be less than or equal to {PERIOD_MAX}"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(spec: &Value) -> Vec<String> {
        complaints_of_change(spec, None)
    }

    fn complaints_of_change(spec: &Value, old: Option<&Value>) -> Vec<String> {
        let mut errors = ErrorList::default();
        let (autoscaler, old) = (json!({ "spec": spec }), old.map(|old| json!({ "spec": old })));
        scale(&autoscaler, old.as_ref(), &mut errors);
        metrics(&autoscaler, old.as_ref(), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_scaled_is_of_a_group() {
        let of = |version: &str, kind: &str| json!({"maxReplicas": 1, "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": "a"}});
        let at = "spec.scaleTargetRef.apiVersion: Invalid value";
        for version in ["", "v1", "/v1", "/"] {
            let said = [format!("{at}: \"{version}\": apiVersion must specify API group")];
            assert_eq!(complaints(&of(version, "Deployment")), said);
            assert_eq!(complaints(&of(version, "ReplicationController")), [""; 0]);
        }
        let (odd, good) = (of("a/b/c", "Deployment"), of("apps/v1", "Deployment"));
        assert_eq!(complaints(&odd), [format!("{at}: \"a/b/c\": unexpected GroupVersion string: a/b/c")]);
        assert_eq!(complaints(&good), [""; 0]);
        assert_eq!(complaints_of_change(&odd, Some(&odd)), [""; 0]);
        assert_eq!(complaints_of_change(&odd, Some(&good)).len(), 1);
    }

    #[test]
    fn what_a_metric_is_about_may_be_of_no_group() {
        let of = |version: &str| {
            let object = json!({"describedObject": {"apiVersion": version, "kind": "Service", "name": "s"}, "metric": {"name": "m"},
                "target": {"type": "Value", "value": "1"}});
            json!({"maxReplicas": 1, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"},
                "metrics": [{"type": "Object", "object": object}]})
        };
        let said = "spec.metrics[0].object.describedObject.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion \
                    string: a/b/c";
        assert_eq!(complaints(&of("v1")), [""; 0]);
        assert_eq!(complaints(&of("a/b/c")), [said]);
        assert_eq!(complaints_of_change(&of("a/b/c"), Some(&of("d/e/f"))), [""; 0]);
        assert_eq!(complaints_of_change(&of("a/b/c"), Some(&of("v1"))), [said]);
    }

    #[test]
    fn limits_are_in_order_and_something_is_scaled() {
        assert_eq!(
            complaints(
                &json!({"minReplicas": 3, "maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment"}})
            ),
            [
                "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`",
                "spec.scaleTargetRef.name: Required value"
            ]
        );
    }

    #[test]
    fn a_metric_has_one_source_with_one_target() {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let of = |metric: Value| complaints(&json!({"maxReplicas": 1, "scaleTargetRef": target, "metrics": [metric]}));
        assert_eq!(
            of(json!({"type": "Resource", "pods": {}})),
            [
                "spec.metrics[0].pods: Forbidden: must populate the given metric source only",
                "spec.metrics[0].resource: Required value: must populate information for the given metric source"
            ]
        );
        assert_eq!(
            of(json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "0"}}})),
            [
                "spec.metrics[0].pods.target.value: Invalid value: \"0\": must be positive",
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue"
            ]
        );
    }
}
