//! How pods are spread, and whom they are counted with: topology spread constraints, and the label keys that narrow a selector.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::scheduling::topology_key;
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template::validate_selector;
use crate::kinds::tree::{int, list, list_mut, map, set, some, text};
use crate::meta::{names, push_all};

const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const POLICIES: &[&str] = &["Honor", "Ignore"];
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";
/// Where a pod says something of other pods, and by which path below.
const TERMS: [(&str, &str); 2] = [
    ("requiredDuringSchedulingIgnoredDuringExecution", ""),
    ("preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm"),
];
const IN_BOTH: &str = "exists in both matchLabelKeys and labelSelector";

/// Writes what label keys select by into the selectors beside them: of a new pod's labels, each key's own value.
pub(crate) fn merge_label_keys(spec: &mut Value, labels: &Value) {
    for constraint in list_mut(spec, "topologySpreadConstraints") {
        merge_into(constraint, labels);
    }
    for affinity in ["podAffinity", "podAntiAffinity"] {
        for (field, below) in TERMS {
            let terms = spec.pointer_mut(&format!("/affinity/{affinity}/{field}")).and_then(Value::as_array_mut);
            for term in terms.into_iter().flatten().filter_map(|term| term.pointer_mut(below)) {
                merge_into(term, labels);
            }
        }
    }
}

fn merge_into(term: &mut Value, labels: &Value) {
    let expressions = |(field, operator): (&str, &str)| {
        let keys = list(term, &format!("/{field}")).iter().filter_map(Value::as_str);
        let valued = keys.filter_map(|key| Some((key, labels.get(key)?)));
        valued.map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]})).collect::<Vec<_>>()
    };
    let merged: Vec<Value> =
        [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")].into_iter().flat_map(expressions).collect();
    let Some(selector) = term.get_mut("labelSelector").filter(|selector| selector.is_object()) else { return };
    if !merged.is_empty() {
        let all = [list(selector, "/matchExpressions"), &merged].concat();
        set(selector, "matchExpressions", all);
    }
}

pub(super) fn validate(constraints: &[Value], path: &Path, errors: &mut ErrorList) {
    // The last of several alike is the good one.
    let mut seen = HashSet::new();
    let kind = |constraint: &Value| {
        (text(constraint, "/topologyKey").to_owned(), text(constraint, "/whenUnsatisfiable").to_owned())
    };
    let last: Vec<bool> = constraints.iter().rev().map(|constraint| seen.insert(kind(constraint))).collect();
    for ((index, constraint), last) in constraints.iter().enumerate().zip(last.into_iter().rev()) {
        let path = path.index(index);
        validate_constraint(constraint, &path, errors);
        if !last {
            let (key, action) = kind(constraint);
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&path, &json!(format!("{{{key}, {action}}}")));
        }
    }
}

fn validate_constraint(constraint: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["maxSkew", "minDomains"] {
        let value = int(constraint, &format!("/{field}"));
        if field == "maxSkew" && value.is_none_or(|v| v <= 0) || value.is_some_and(|v| v <= 0) {
            errors.invalid(&path.child(field), &json!(value.unwrap_or_default()), "must be greater than zero");
        }
    }
    if text(constraint, "/topologyKey").is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    } else {
        topology_key(constraint, path, errors);
    }
    let action = text(constraint, "/whenUnsatisfiable");
    if !ACTIONS.contains(&action) {
        errors.not_supported(&path.child("whenUnsatisfiable"), action, ACTIONS);
    }
    if let Some(domains) = int(constraint, "/minDomains").filter(|_| action != "DoNotSchedule") {
        let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(&path.child("minDomains"), &json!(domains), &why);
    }
    for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        if let Some(policy) = some(constraint, &format!("/{field}")).and_then(Value::as_str)
            && !POLICIES.contains(&policy)
        {
            errors.not_supported(&path.child(field), policy, POLICIES);
        }
    }
    let keys = list(constraint, "/matchLabelKeys");
    let (selector, keys_path) = (some(constraint, "/labelSelector"), path.child("matchLabelKeys"));
    if selector.is_none() && !keys.is_empty() {
        errors.forbidden(&keys_path, NO_SELECTOR);
    }
    let selected = selected_twice(selector);
    for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        let path = keys_path.index(index);
        push_all(errors, &path, key, names::qualified_name(key));
        if selected.contains(key) {
            errors.invalid(&path, &json!(key), IN_BOTH);
        }
    }
    if let Some(selector) = selector {
        validate_selector(selector, &path.child("labelSelector"), errors);
    }
}

fn selected_keys(selector: &Value) -> impl Iterator<Item = &str> {
    let expressions = list(selector, "/matchExpressions").iter().map(|expression| text(expression, "/key"));
    map(selector, "/matchLabels").map(|(key, _)| key.as_str()).chain(expressions)
}

/// The keys that a selector selects by more than once: what is merged into it selects by each label key once.
fn selected_twice(selector: Option<&Value>) -> HashSet<&str> {
    let mut once = HashSet::new();
    selector.into_iter().flat_map(selected_keys).filter(|key| !once.insert(*key)).collect()
}

/// The keys by which a term about other pods narrows its selector: good names, and each in one way.
pub(super) fn validate_keys(term: &Value, path: &Path, errors: &mut ErrorList) {
    let selector = some(term, "/labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, path) = (list(term, &format!("/{field}")), path.child(field));
        if selector.is_none() && !keys.is_empty() {
            errors.forbidden(&path, NO_SELECTOR);
            continue;
        }
        for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
            push_all(errors, &path.index(index), key, names::qualified_name(key));
        }
    }
    let twice = selected_twice(selector);
    let others: HashSet<&str> = list(term, "/mismatchLabelKeys").iter().filter_map(Value::as_str).collect();
    for (index, key) in list(term, "/matchLabelKeys").iter().filter_map(Value::as_str).enumerate() {
        if twice.contains(key) {
            errors.invalid(&path.index(index), &json!(key), IN_BOTH);
        }
        if others.contains(key) {
            let path = path.child("matchLabelKeys").index(index);
            errors.invalid(&path, &json!(key), "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_refused;
    use super::*;

    #[test]
    fn a_constraint_is_one_of_its_kind_and_makes_sense() {
        let base = json!({"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"});
        let with = |more: Value| {
            let mut constraint = base.clone();
            more.as_object().into_iter().flatten().for_each(|(key, value)| constraint[key] = value.clone());
            json!([constraint])
        };
        for (constraints, why) in [
            (json!([base, base]), "{topologyKey, whenUnsatisfiable}: Duplicate value: \"{a, DoNotSchedule}\""),
            (
                with(json!({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2})),
                "minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not \
                 ScheduleAnyway",
            ),
            (
                with(json!({"nodeAffinityPolicy": "X"})),
                "nodeAffinityPolicy: Unsupported value: \"X\": supported values: \"Honor\", \"Ignore\"",
            ),
            (
                with(json!({"nodeTaintsPolicy": "X"})),
                "nodeTaintsPolicy: Unsupported value: \"X\": supported values: \"Honor\", \"Ignore\"",
            ),
            (
                with(json!({"matchLabelKeys": ["a"]})),
                "matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ),
            (
                with(json!({"matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"a": "b"},
                    "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}})),
                "matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector",
            ),
        ] {
            let spec = json!({ "topologySpreadConstraints": constraints });
            assert_refused(spec, &json!({}), &format!("spec.topologySpreadConstraints[0].{why}"));
        }
    }

    #[test]
    fn a_new_pod_selects_by_the_values_of_its_label_keys() {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"x": "y"}}, "matchLabelKeys": ["a", "none"],
            "mismatchLabelKeys": ["b"]});
        let bare = json!({"topologyKey": "zone", "matchLabelKeys": ["a"]});
        let mut spec = json!({
            "topologySpreadConstraints": [{"labelSelector": {}, "matchLabelKeys": ["a"]}],
            "affinity": {
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term, bare]},
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term}]},
            },
        });
        merge_label_keys(&mut spec, &json!({"a": "1", "b": "2"}));
        let same = json!({"key": "a", "operator": "In", "values": ["1"]});
        let other = json!({"key": "b", "operator": "NotIn", "values": ["2"]});
        let selector = json!({"matchLabels": {"x": "y"}, "matchExpressions": [same, other]});
        let affinity = &spec["affinity"];
        let required = &affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let preferred = &affinity["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!((&required[0]["labelSelector"], &required[1]), (&selector, &bare));
        assert_eq!(preferred[0]["podAffinityTerm"]["labelSelector"], selector);
        assert_eq!(spec["topologySpreadConstraints"][0]["labelSelector"], json!({"matchExpressions": [same]}));
    }

    #[test]
    fn a_key_narrows_a_selector_in_one_way() {
        let place = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
        for (term, why) in [
            (
                json!({"labelSelector": {}, "topologyKey": "a", "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"]}),
                "matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys",
            ),
            (
                json!({"topologyKey": "a", "matchLabelKeys": ["a"]}),
                "matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ),
            (
                json!({"topologyKey": "a", "mismatchLabelKeys": ["a"]}),
                "mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ),
        ] {
            let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
            assert_refused(json!({ "affinity": affinity }), &json!({}), &format!("{place}.{why}"));
        }
    }
}
