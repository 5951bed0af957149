//! What a Job does about failures and successes of single pods: `podFailurePolicy`, `successPolicy`,
//! `podReplacementPolicy`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::indexes;
use crate::field::{ErrorKind, ErrorList, FieldError, Path};
use crate::kinds::tree::{int, list, some, text};
use crate::meta::{names, push_all};

const RULES: usize = 20;
const CONDITIONS: usize = 20;
const EXIT_CODES: usize = 255;
const INDEXES_MAX: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let failure = some(spec, "/podFailurePolicy");
    if let Some(policy) = failure {
        validate_failure(spec, policy, &path.child("podFailurePolicy").child("rules"), errors);
    }
    if let Some(policy) = some(spec, "/successPolicy") {
        let path = path.child("successPolicy");
        if text(spec, "/completionMode") == "Indexed" {
            validate_success(spec, policy, &path.child("rules"), errors);
        } else {
            errors.invalid(&path, policy, "requires indexed completion mode");
        }
    }
    let supported: &[&str] = if failure.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if let Some(policy) = some(spec, "/podReplacementPolicy").and_then(Value::as_str)
        && !supported.contains(&policy)
    {
        errors.not_supported(&path.child("podReplacementPolicy"), policy, supported);
    }
}

/// An error about something whose value is not told.
fn plain(errors: &mut ErrorList, path: &Path, why: &str) {
    errors.push(FieldError { kind: ErrorKind::Invalid, path: path.clone(), message: format!("Invalid value: {why}") });
}

/// `["A" "B"]`, as Go prints a list of texts.
fn values(all: &[&str]) -> String {
    let quoted: Vec<String> = all.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn one_of(value: &str, all: &[&str], path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, &values(all));
    } else if !all.contains(&value) {
        errors.not_supported(path, value, all);
    }
}

fn validate_failure(spec: &Value, policy: &Value, path: &Path, errors: &mut ErrorList) {
    let rules = list(policy, "/rules");
    if rules.len() > RULES {
        errors.too_many(path, rules.len(), RULES);
    }
    let containers: HashSet<&str> = ["/template/spec/containers", "/template/spec/initContainers"]
        .iter()
        .flat_map(|pointer| list(spec, pointer))
        .map(|container| text(container, "/name"))
        .collect();
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let action = text(rule, "/action");
        if action == "FailIndex" && some(spec, "/backoffLimitPerIndex").is_none() {
            errors.invalid(&path.child("action"), &json!(action), "requires the backoffLimitPerIndex to be set");
        }
        one_of(action, &ACTIONS, &path.child("action"), errors);
        let (codes, conditions) = (some(rule, "/onExitCodes"), list(rule, "/onPodConditions"));
        if let Some(codes) = codes {
            validate_exit_codes(codes, &containers, &path.child("onExitCodes"), errors);
        }
        validate_conditions(conditions, &path.child("onPodConditions"), errors);
        match (codes.is_some(), conditions.is_empty()) {
            (true, false) => plain(errors, &path, "specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, true) => plain(errors, &path, "specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

fn validate_conditions(conditions: &[Value], path: &Path, errors: &mut ErrorList) {
    if conditions.len() > CONDITIONS {
        errors.too_many(path, conditions.len(), CONDITIONS);
    }
    for (index, pattern) in conditions.iter().enumerate() {
        let (path, kind) = (path.index(index), text(pattern, "/type"));
        push_all(errors, &path.child("type"), kind, names::qualified_name(kind));
        one_of(text(pattern, "/status"), &STATUSES, &path.child("status"), errors);
    }
}

fn validate_exit_codes(rule: &Value, containers: &HashSet<&str>, path: &Path, errors: &mut ErrorList) {
    let operator = text(rule, "/operator");
    one_of(operator, &OPERATORS, &path.child("operator"), errors);
    if let Some(name) = some(rule, "/containerName").and_then(Value::as_str)
        && !containers.contains(name)
    {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), &json!(name), why);
    }
    let path = path.child("values");
    let codes: Vec<i64> = list(rule, "/values").iter().filter_map(Value::as_i64).collect();
    if codes.is_empty() {
        errors.invalid(&path, &json!(codes), "at least one value is required");
    } else if codes.len() > EXIT_CODES {
        errors.too_many(&path, codes.len(), EXIT_CODES);
    }
    let mut seen = HashSet::new();
    for (index, code) in codes.iter().enumerate() {
        if operator == "In" && *code == 0 {
            errors.invalid(&path.index(index), &json!(code), "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&path.index(index), &json!(code));
        }
    }
    if !codes.is_sorted() {
        errors.invalid(&path, &json!(codes), "must be ordered");
    }
}

fn validate_success(spec: &Value, policy: &Value, path: &Path, errors: &mut ErrorList) {
    let rules = list(policy, "/rules");
    if rules.is_empty() {
        errors.required(path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES {
        errors.too_many(path, rules.len(), RULES);
    }
    let completions = int(spec, "/completions").unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        validate_success_rule(rule, completions, &path.index(index), errors);
    }
}

fn validate_success_rule(rule: &Value, completions: i64, path: &Path, errors: &mut ErrorList) {
    let indexes = some(rule, "/succeededIndexes").and_then(Value::as_str);
    let wanted = int(rule, "/succeededCount");
    if indexes.is_none() && wanted.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let path = path.child("succeededIndexes");
        if indexes.len() > INDEXES_MAX {
            errors.too_long(&path, INDEXES_MAX);
        }
        match indexes::count(indexes, completions) {
            Ok(count) => total = count,
            Err(why) => errors.invalid(&path, &json!(indexes), &format!("error parsing succeededIndexes: {why}")),
        }
    }
    let Some(wanted) = wanted else { return };
    let path = path.child("succeededCount");
    if wanted < 0 {
        errors.invalid(&path, &json!(wanted), "must be greater than or equal to 0");
    }
    if wanted > completions {
        let why = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&path, &json!(wanted), &why);
    }
    if indexes.is_some() && wanted > total {
        let why = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&path, &json!(wanted), &why);
    }
}
