//! What workloads share: a count, a selector, and a pod template that the selector matches.

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::cells::{self, column};
use crate::kinds::core::pod::annotations;
use crate::kinds::core::podspec;
use crate::kinds::tree::{int, list, map, object, some, text};
use crate::meta;
use crate::object::generation;
use crate::resource::Column;
use crate::selector::LabelSelector;

/// Defaults of `spec.template`.
pub(crate) fn default(workload_spec: &mut Value) {
    if let Some(spec) = object(workload_spec, "template").and_then(|template| object(template, "spec")) {
        podspec::default(spec);
    }
}

/// Judges replicas, selector and template of what keeps replicas by a label selector.
pub(crate) fn validate_workload(workload: &Value, errors: &mut ErrorList) {
    let spec = Path::new("spec");
    non_negative(workload, &spec, "replicas", errors);
    non_negative(workload, &spec, "minReadySeconds", errors);
    if !validate_own_selector(workload, "empty selector is invalid for deployment", errors) {
        let selector = some(workload, "/spec/selector").unwrap_or(&Value::Null);
        return errors.invalid(&spec.child("selector"), selector, "invalid label selector");
    }
    let path = spec.child("template");
    let Some(template) = some(workload, "/spec/template") else {
        return errors.required(&path, "");
    };
    validate_selected(workload, errors);
    validate_template(template, &path, errors);
    validate_endless(template, "ReplicaSet", &path, errors);
}

/// [`validate_workload`] for an update, which keeps the selector.
pub(crate) fn validate_workload_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    errors.judge_change(new, old, validate_workload);
    validate_same_selector(new, old, errors);
}

/// A workload finds its pods by its selector for as long as it lives.
pub(crate) fn validate_same_selector(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec").child("selector");
    meta::immutable(new.pointer("/spec/selector"), old.pointer("/spec/selector"), &path, errors);
}

/// Judges `spec.selector`, which must be there and select something; `empty` is said if it does not. Returns whether it is
/// well formed.
pub(crate) fn validate_own_selector(workload: &Value, empty: &str, errors: &mut ErrorList) -> bool {
    let path = Path::new("spec").child("selector");
    let Some(selector) = some(workload, "/spec/selector") else {
        errors.required(&path, "");
        return true;
    };
    let before = errors.made();
    validate_selector(selector, &path, errors);
    let good = errors.made() == before;
    if is_empty(selector) {
        errors.invalid(&path, selector, empty);
    }
    good
}

fn is_empty(selector: &Value) -> bool {
    map(selector, "/matchLabels").next().is_none() && list(selector, "/matchExpressions").is_empty()
}

/// `spec.selector` must match the labels of `spec.template`; no selector at all selects nothing.
pub(crate) fn validate_selected(workload: &Value, errors: &mut ErrorList) {
    let labels = workload.pointer("/spec/template/metadata/labels");
    if misses(workload.pointer("/spec/selector").unwrap_or(&Value::Null), labels) {
        mismatch(labels, errors);
    }
}

/// Says that the selector does not match the labels of `spec.template`.
pub(crate) fn mismatch(labels: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    errors.invalid(&path, labels.unwrap_or(&Value::Null), "`selector` does not match template `labels`");
}

/// Judges a pod template: labels, annotations and the pod.
pub(crate) fn validate_template(template: &Value, path: &Path, errors: &mut ErrorList) {
    validate_template_meta(template, path, errors);
    let path = path.child("spec");
    podspec::validate(template.get("spec").unwrap_or(&Value::Null), &path, errors);
    annotations::validate_same_seccomp(template, &path, errors);
    if !list(template, "/spec/ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Judges a pod template's labels and annotations.
pub(crate) fn validate_template_meta(template: &Value, path: &Path, errors: &mut ErrorList) {
    meta::labels(template.pointer("/metadata/labels"), &path.child("labels"), errors);
    meta::annotations(template.pointer("/metadata/annotations"), &path.child("annotations"), errors);
    annotations::validate_at(template, &path.child("annotations"), errors);
}

/// The pods of what replaces them (`kind`) never end by themselves.
pub(crate) fn validate_endless(template: &Value, kind: &str, path: &Path, errors: &mut ErrorList) {
    let path = path.child("spec");
    let policy = text(template, "/spec/restartPolicy");
    if !policy.is_empty() && policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if some(template, "/spec/activeDeadlineSeconds").is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &why);
    }
}

/// Whether a `metav1.LabelSelector` does not match labels. Of one that is ill formed nothing more is said than that.
pub(crate) fn misses(selector: &Value, labels: Option<&Value>) -> bool {
    let label = |key: &str| labels?.get(key)?.as_str();
    LabelSelector::from_object(selector).is_ok_and(|selector| !selector.matches(label))
}

/// Judges a `metav1.LabelSelector`.
pub(crate) fn validate_selector(selector: &Value, path: &Path, errors: &mut ErrorList) {
    meta::labels(selector.get("matchLabels"), &path.child("matchLabels"), errors);
    for (index, expression) in list(selector, "/matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = list(expression, "/values");
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            meta::push_all(errors, &path.child("values").index(index), value, meta::names::label_value(value));
        }
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

/// Judges the counts of a status: none is negative, none of `parts` is more than `total`.
pub(crate) fn validate_counts(object: &Value, total: &str, parts: &[&str], errors: &mut ErrorList) {
    let path = Path::new("status");
    let whole = non_negative(object, &path, total, errors);
    for part in parts {
        let value = non_negative(object, &path, part, errors);
        if value > whole {
            errors.invalid(&path.child(part), &json!(value), &format!("cannot be greater than status.{total}"));
        }
    }
    non_negative(object, &path, "observedGeneration", errors);
}

/// Judges the status of what keeps replicas of one template.
pub(crate) fn validate_replica_status(object: &Value, errors: &mut ErrorList) {
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    validate_counts(object, "replicas", &parts, errors);
    non_negative(object, &Path::new("status"), "terminatingReplicas", errors);
    validate_available(object, "cannot be greater than readyReplicas", errors);
}

/// The columns of what keeps replicas of one template, up to its age.
pub(crate) fn replica_columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Desired", "integer", "Replicas is the number of desired pods.", |o, _| {
            cells::count(o, "/spec/replicas")
        }),
        column(
            "Current",
            "integer",
            "Replicas is the most recently observed number of non-terminating pods.",
            |o, _| cells::count(o, "/status/replicas"),
        ),
        column("Ready", "integer", "The number of non-terminating pods with a Ready condition.", |o, _| {
            cells::count(o, "/status/readyReplicas")
        }),
        cells::age(),
    ]
}

/// What is available is ready; `why` is said otherwise.
pub(crate) fn validate_available(object: &Value, why: &str, errors: &mut ErrorList) {
    let count = |field: &str| int(object, &format!("/status/{field}")).unwrap_or_default();
    let available = count("availableReplicas");
    if available > count("readyReplicas") {
        errors.invalid(&Path::new("status").child("availableReplicas"), &json!(available), why);
    }
}

/// Collisions of a hash are only ever added to.
pub(crate) fn validate_collisions(new: &Value, old: &Value, errors: &mut ErrorList) {
    let collisions = |o: &Value| int(o, "/status/collisionCount");
    if let (Some(before), now) = (collisions(old), collisions(new))
        && now.is_none_or(|now| now < before)
    {
        let path = Path::new("status").child("collisionCount");
        errors.invalid(&path, &json!(now.unwrap_or_default()), "cannot be decremented");
    }
}

/// Reports a percentage of more than everything.
pub(crate) fn at_most_all(parent: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    let value = parent.get(field).unwrap_or(&Value::Null);
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|digits| digits.parse::<i64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        errors.invalid(&path.child(field), value, "must not be greater than 100%");
    }
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

/// The warning about a name that the names of pods begin with.
pub(crate) fn name_warning(workload: &Value) -> Option<String> {
    warn_of_name(workload, "Pod names and hostnames")
}

/// What becomes a host's name had better be one label.
pub(crate) fn warn_of_name(object: &Value, used: &str) -> Option<String> {
    let complaints = meta::names::dns1123_label(text(object, "/metadata/name"));
    (!complaints.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            complaints.join(" ")
        )
    })
}

/// Whether an update changes what its writer should be warned of; who labels a workload, say, does not.
pub(crate) fn is_new(new: &Value, old: &Value) -> bool {
    generation(new) != generation(old)
}

/// Warnings about the template.
pub(crate) fn warnings(workload: &Value) -> Vec<String> {
    let template = workload.pointer("/spec/template").unwrap_or(&Value::Null);
    podspec::warnings(template, &Path::new("spec").child("template"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_warned_of_names_with_dots() {
        let named = |kind: &str| {
            let kind = crate::kinds::all().into_iter().find(|known| known.kind == kind).unwrap();
            kind.strategy.new_warnings(&json!({"metadata": {"name": "a.b"}})).into_iter().next()
        };
        let said = |used: &str| {
            let why = "which can result in surprising behavior; a DNS label is recommended: [must not contain dots]";
            Some(format!("metadata.name: this is used in {used}, {why}"))
        };
        for kind in ["Deployment", "ReplicaSet", "ReplicationController", "Job", "CronJob"] {
            assert_eq!(named(kind), said("Pod names and hostnames"), "{kind}");
        }
        assert_eq!(named("Pod"), said("the Pod's hostname"));
        assert_eq!(named("DaemonSet"), None);
        assert_eq!(name_warning(&json!({"metadata": {"name": "a"}})), None);
    }

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
    fn what_a_selector_misses_is_judged_unless_it_is_ill_formed() {
        let labels = json!({"a": "1"});
        for (operator, misses_it) in [("In", false), ("NotIn", true), ("Is", false)] {
            let selector = json!({"matchExpressions": [{"key": "a", "operator": operator, "values": ["1"]}]});
            assert_eq!(misses(&selector, Some(&labels)), misses_it, "{operator}");
        }
        assert!(misses(&Value::Null, Some(&labels)));
        assert!(!misses(&json!({}), None));
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
