//! Job: pods of a template until enough of them have succeeded.
//!
//! Unless its author says otherwise, a Job finds its pods by its own uid: selector and labels are generated here.

mod indexes;
mod policies;
mod status;
mod template_update;

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::kinds::apps::template;
use crate::kinds::cells;
use crate::kinds::check::domain_prefixed;
use crate::kinds::tree::{fill, int, is_true, list_mut, map, object, set, some, split_status, text};
use crate::meta::{immutable, names, same};
use crate::object::{name, uid};
use crate::resource::{Descriptor, Idle};
use crate::strategy::{Part, Strategy};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
const LEGACY_UID_LABEL: &str = "controller-uid";
const LEGACY_NAME_LABEL: &str = "job-name";
const MANY: i64 = 100_000;
const MANY_AT_ONCE: i64 = 10_000;
const MANAGED_BY_MAX: usize = 63;
/// What an update may not change.
const IMMUTABLE: [&str; 6] =
    ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];

pub fn descriptor() -> Descriptor {
    let mut columns = status::columns();
    columns.extend(cells::workload());
    Descriptor::of::<Job>()
        .idle(Idle::Yet)
        .categories(&["all"])
        .status()
        .columns(columns)
        .selectable_at("status.successful", "status.succeeded", "0")
        .strategy(JobStrategy)
}

#[derive(Debug)]
struct JobStrategy;

impl Strategy for JobStrategy {
    fn prepare_create(&self, job: &mut Value) {
        set(job, "status", json!({}));
        if !is_true(job, "/spec/manualSelector") {
            generate_selector(job);
        }
    }

    fn default(&self, job: &mut Value) {
        let labels = some(job, "/spec/template/metadata/labels").filter(|l| l.is_object()).cloned();
        if let Some(labels) = labels.filter(|_| map(job, "/metadata/labels").next().is_none())
            && let Some(metadata) = object(job, "metadata")
        {
            set(metadata, "labels", labels);
        }
        if let Some(spec) = object(job, "spec") {
            default_spec(spec);
            template::default(spec);
        }
    }

    fn validate(&self, job: &Value, errors: &mut ErrorList) {
        validate_whole(job, errors);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Status {
            return status::validate(new, old, errors);
        }
        errors.judge_change(new, old, validate_whole);
        let path = Path::new("spec");
        validate_completions(new, old, &path, errors);
        for field in IMMUTABLE {
            let pointer = format!("/spec/{field}");
            immutable(new.pointer(&pointer), old.pointer(&pointer), &path.child(field), errors);
        }
        template_update::validate(new, old, &path.child("template"), errors);
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn new_warnings(&self, object: &Value) -> Vec<String> {
        template::name_warning(object).into_iter().collect()
    }

    fn warnings(&self, job: &Value) -> Vec<String> {
        let mut all = template::warnings(job);
        all.extend(size_warning(job.get("spec").unwrap_or(&Value::Null)));
        all
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        if template::is_new(new, old) { self.warnings(new) } else { Vec::new() }
    }
}

/// The warning about a spec, also a CronJob's, whose Jobs have more indexes than can be kept count of.
pub(super) fn size_warning(spec: &Value) -> Option<String> {
    let count = |field| int(spec, &format!("/{field}")).unwrap_or_default();
    let large = text(spec, "/completionMode") == "Indexed"
        && count("completions") > MANY
        && count("parallelism") > MANY_AT_ONCE;
    let why = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
               Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
    large.then(|| why.to_owned())
}

/// Labels the template with the Job's name and uid and selects by the uid. What the author has put there stays, for the
/// rules to refuse.
fn generate_selector(job: &mut Value) {
    let (name, uid) = (name(job).to_owned(), uid(job).to_owned());
    let Some(spec) = object(job, "spec") else { return };
    if let Some(labels) = object(spec, "template")
        .and_then(|template| object(template, "metadata"))
        .and_then(|metadata| object(metadata, "labels"))
    {
        for key in [UID_LABEL, LEGACY_UID_LABEL] {
            fill(labels, key, uid.as_str());
        }
        for key in [NAME_LABEL, LEGACY_NAME_LABEL] {
            fill(labels, key, name.as_str());
        }
    }
    if let Some(labels) = object(spec, "selector").and_then(|selector| object(selector, "matchLabels")) {
        fill(labels, UID_LABEL, uid);
    }
}

fn default_spec(spec: &mut Value) {
    if some(spec, "/completions").is_none() && some(spec, "/parallelism").is_none() {
        set(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let limit = if some(spec, "/backoffLimitPerIndex").is_some() { i32::MAX } else { 6 };
    fill(spec, "backoffLimit", limit);
    fill(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    let replacement = if some(spec, "/podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    default_failure_policy(spec);
}

/// What is true of a pod that fails, unless its rule says otherwise; also in a CronJob's template, whose other defaults come
/// with each of its Jobs.
pub(super) fn default_failure_policy(spec: &mut Value) {
    for rule in spec.get_mut("podFailurePolicy").into_iter().flat_map(|policy| list_mut(policy, "rules")) {
        list_mut(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
    }
}

fn validate_generated_selector(job: &Value, errors: &mut ErrorList) {
    let Some(selector) = some(job, "/spec/selector").filter(|_| !is_true(job, "/spec/manualSelector")) else { return };
    let (name, uid) = (name(job), uid(job));
    if uid.is_empty() {
        errors.required(&Path::new("metadata").child("uid"), "");
    }
    let labels = job.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null);
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    let expected = [(LEGACY_UID_LABEL, uid), (LEGACY_NAME_LABEL, name), (UID_LABEL, uid), (NAME_LABEL, name)];
    for (key, value) in expected {
        match labels.get(key) {
            None => errors.required(&path.key(key), &format!("must be '{value}'")),
            Some(other) if other.as_str() != Some(value) => {
                errors.invalid(&path.key(key), labels, &format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let generated: serde_json::Map<String, Value> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    if template::misses(selector, Some(&Value::Object(generated))) {
        errors.invalid(&Path::new("spec").child("selector"), selector, "`selector` not auto-generated");
    }
}

/// Judges a Job: its spec with its selector, and the name of the last of its indexed pods.
fn validate_whole(job: &Value, errors: &mut ErrorList) {
    validate_generated_selector(job, errors);
    let path = Path::new("spec");
    validate_spec(job.get("spec").unwrap_or(&Value::Null), &path, errors);
    let path = path.child("selector");
    match some(job, "/spec/selector") {
        None => errors.required(&path, ""),
        Some(selector) => template::validate_selector(selector, &path, errors),
    }
    template::validate_selected(job, errors);
    let completions = int(job, "/spec/completions").unwrap_or_default();
    if text(job, "/spec/completionMode") == "Indexed" && completions > 0 {
        let hostname = format!("{}-{}", name(job), completions - 1);
        if !names::dns1123_label(&hostname).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.invalid(&Path::new("metadata").child("name"), &json!(name(job)), &why);
        }
    }
}

/// Judges a Job's spec without its selector, as in a CronJob's template.
pub(super) fn validate_spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        if let Some(value) = int(spec, &format!("/{field}")).filter(|value| *value < 0) {
            errors.invalid(&path.child(field), &json!(value), "must be greater than or equal to 0");
        }
    }
    if some(spec, "/maxFailedIndexes").is_some() && some(spec, "/backoffLimitPerIndex").is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    validate_managed_by(spec, &path.child("managedBy"), errors);
    validate_completion_mode(spec, path, errors);
    policies::validate(spec, path, errors);
    template::validate_template(spec.get("template").unwrap_or(&Value::Null), &path.child("template"), errors);
    validate_restart_policy(spec, &path.child("template").child("spec").child("restartPolicy"), errors);
}

fn validate_restart_policy(spec: &Value, path: &Path, errors: &mut ErrorList) {
    match text(spec, "/template/spec/restartPolicy") {
        "" | "Always" => errors.required(path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if some(spec, "/podFailurePolicy").is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(path, &json!("OnFailure"), why);
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(path, other, &["OnFailure", "Never"]),
    }
}

fn validate_managed_by(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(manager) = some(spec, "/managedBy").and_then(Value::as_str) else { return };
    domain_prefixed(manager, path, errors);
    if manager.len() > MANAGED_BY_MAX {
        errors.too_long(path, MANAGED_BY_MAX);
    }
}

fn validate_completion_mode(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let count = |field: &str| int(spec, &format!("/{field}"));
    let (completions, parallelism) = (count("completions"), count("parallelism"));
    let (per_index, failed) = (count("backoffLimitPerIndex"), count("maxFailedIndexes"));
    match text(spec, "/completionMode") {
        "" | "NonIndexed" => {
            for (field, value) in [("backoffLimitPerIndex", per_index), ("maxFailedIndexes", failed)] {
                if let Some(value) = value {
                    errors.invalid(&path.child(field), &json!(value), "requires indexed completion mode");
                }
            }
            return;
        }
        "Indexed" => {}
        other => return errors.not_supported(&path.child("completionMode"), other, &["NonIndexed", "Indexed"]),
    }
    if completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    let mut at_most = |field: &str, value: Option<i64>, max: i64, why: &str| {
        if let Some(value) = value.filter(|value| *value > max) {
            errors.invalid(&path.child(field), &json!(value), &format!("must be less than or equal to {why}"));
        }
    };
    at_most("parallelism", parallelism, MANY, "100000 when completion mode is Indexed");
    at_most("maxFailedIndexes", failed, completions.unwrap_or(i64::MAX), "completions");
    at_most("maxFailedIndexes", failed, MANY, "100000");
    if completions.is_some_and(|completions| completions > MANY) && per_index.is_some() {
        let why = "10000 when completions are above 100000 and used with backoff limit per index";
        at_most("parallelism", parallelism, MANY_AT_ONCE, why);
        at_most("maxFailedIndexes", failed, MANY_AT_ONCE, why);
        if failed.is_none() {
            errors.required(&path.child("maxFailedIndexes"), "must be specified when completions is above 100000");
        }
    }
}

/// An indexed Job may grow and shrink, if as many pods run at once as it wants completions.
fn validate_completions(new: &Value, old: &Value, spec: &Path, errors: &mut ErrorList) {
    let path = spec.child("completions");
    let (now, before) = (new.pointer("/spec/completions"), old.pointer("/spec/completions"));
    if text(new, "/spec/completionMode") != "Indexed" {
        return immutable(now, before, &path, errors);
    }
    if let Some(now) = now.filter(|now| !now.is_null() && !same(Some(now), before))
        && Some(now) != new.pointer("/spec/parallelism")
    {
        errors.invalid(&path, now, "can only be modified in tandem with spec.parallelism");
    }
}

#[cfg(test)]
mod tests;
