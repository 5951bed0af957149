//! What a Job's status may say, and how it is shown.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::indexes;
use crate::field::{ErrorKind, ErrorList, FieldError, Path};
use crate::kinds::apps::template::non_negative;
use crate::kinds::cells::{self, column};
use crate::kinds::tree::{int, is_true, list, some, text};
use crate::meta::same;
use crate::object;
use crate::resource::Column;
use crate::table::human_duration;

pub(super) fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Status", "string", "Status of the job.", |o, _| json!(state(o))),
        column("Completions", "string", "The number of pods that succeeded, of those that are wanted.", |o, _| {
            json!(completions(o))
        }),
        column("Duration", "string", "Time required to complete the job.", |o, now| json!(duration(o, now))),
        cells::age(),
    ]
}

fn is(job: &Value, condition: &str) -> bool {
    list(job, "/status/conditions").iter().any(|c| text(c, "/type") == condition && text(c, "/status") == "True")
}

fn state(job: &Value) -> &'static str {
    match () {
        () if is(job, "Complete") => "Complete",
        () if is(job, "Failed") => "Failed",
        () if object::is_deleting(job) => "Terminating",
        () if is(job, "Suspended") => "Suspended",
        () if is(job, "FailureTarget") => "FailureTarget",
        () if is(job, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int(job, "/status/succeeded").unwrap_or_default();
    match (int(job, "/spec/completions"), int(job, "/spec/parallelism").unwrap_or_default()) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |pointer| object::parse_time(text(job, pointer));
    let Some(start) = time("/status/startTime") else { return String::new() };
    let end = time("/status/completionTime").unwrap_or(now);
    human_duration(end.as_second() - start.as_second())
}

/// The judgement of one status, growing error by error.
struct Judge<'a> {
    path: Path,
    errors: &'a mut ErrorList,
}

impl Judge<'_> {
    fn conditions(&mut self, wrong: bool, why: &str) {
        if wrong {
            let message = format!("Invalid value: {why}");
            self.errors.push(FieldError { kind: ErrorKind::Invalid, path: self.path.child("conditions"), message });
        }
    }

    fn field(&mut self, wrong: bool, field: &str, value: Option<&Value>, why: &str) {
        if wrong {
            self.errors.invalid(&self.path.child(field), value.unwrap_or(&Value::Null), why);
        }
    }

    fn required(&mut self, wrong: bool, field: &str, why: &str) {
        if wrong {
            self.errors.required(&self.path.child(field), why);
        }
    }
}

/// A status as it was and as it is to be. What is wrong with it already is held against nothing but a change of what it is about:
/// the rest may be put right, and what the spec asks for since may not have arrived in it yet.
struct Change<'a> {
    new: &'a Value,
    old: &'a Value,
}

impl Change<'_> {
    /// Whether one of these conditions, or one of these fields, changes.
    fn of(&self, conditions: &[&str], fields: &[&str]) -> bool {
        conditions.iter().any(|kind| is(self.new, kind) != is(self.old, kind))
            || fields.iter().any(|field| !same(field_of(self.new, field), field_of(self.old, field)))
    }
}

/// A field of the status; a count of none is as good as absent.
fn field_of<'a>(job: &'a Value, field: &str) -> Option<&'a Value> {
    some(job, &format!("/status/{field}")).filter(|value| value.as_i64() != Some(0))
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        non_negative(new, &path, field, errors);
    }
    validate_uncounted(new, &path.child("uncountedTerminatedPods"), errors);
    let (change, mut judge) = (Change { new, old }, Judge { path, errors });
    validate_end(&change, &mut judge);
    validate_indexes(&change, &mut judge);
    validate_change(&change, &mut judge);
}

fn validate_uncounted(job: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = std::collections::HashSet::new();
    for field in ["succeeded", "failed"] {
        for (index, uid) in list(job, &format!("/status/uncountedTerminatedPods/{field}")).iter().enumerate() {
            let path = path.child(field).index(index);
            match uid.as_str().unwrap_or_default() {
                "" => errors.invalid(&path, uid, "must not be empty"),
                text if !seen.insert(text) => errors.duplicate(&path, uid),
                _ => {}
            }
        }
    }
}

/// Conditions, times and counts of a Job that has ended agree.
fn validate_end(change: &Change<'_>, judge: &mut Judge<'_>) {
    const ENDS: [&str; 2] = ["Complete", "Failed"];
    let job = change.new;
    let (complete, failed) = (is(job, "Complete"), is(job, "Failed"));
    let (target, met) = (is(job, "FailureTarget"), is(job, "SuccessCriteriaMet"));
    let ended = complete || failed;
    let ended_with = |field: &str| ended && change.of(&ENDS, &[field]);
    let status = |field: &str| some(job, &format!("/status/{field}"));
    let count = |field: &str| status(field).and_then(Value::as_i64).unwrap_or_default();
    let (start, end) = (status("startTime"), status("completionTime"));
    let both = complete && failed && change.of(&ENDS, &[]);
    judge.conditions(both, "cannot set Complete=True and Failed=true conditions");
    let both = complete && target && change.of(&["Complete", "FailureTarget"], &[]);
    judge.conditions(both, "cannot set Complete=True and FailureTarget=true conditions");
    let completes = change.of(&["Complete"], &["completionTime"]);
    let why = "cannot set completionTime when there is no Complete=True condition";
    judge.field(end.is_some() && !complete && completes, "completionTime", end, why);
    let missing = end.is_none() && complete && completes;
    judge.required(missing, "completionTime", "completionTime is required for Complete jobs");
    let time = |value: Option<&Value>| value.and_then(Value::as_str).and_then(object::parse_time);
    let early = time(start).zip(time(end)).is_some_and(|(start, end)| end < start);
    let early = early && change.of(&[], &["startTime", "completionTime"]);
    judge.field(early, "completionTime", end, "completionTime cannot be set before startTime");
    let sudden = failed && !target && change.of(&["Failed", "FailureTarget"], &[]);
    judge.conditions(sudden, "cannot set Failed=True condition without the FailureTarget=true condition");
    let sudden = complete && !met && change.of(&["Complete", "SuccessCriteriaMet"], &[]);
    judge.conditions(sudden, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    let active = count("active");
    let why = "active>0 is invalid for finished job";
    judge.field(active > 0 && ended_with("active"), "active", status("active"), why);
    // A suspended Job that has nothing to do ends without having begun.
    let idle = is_true(change.new, "/spec/suspend") && int(change.new, "/spec/completions") == Some(0);
    let missing = start.is_none() && !idle && ended_with("startTime");
    judge.required(missing, "startTime", "startTime is required for finished job");
    let uncounted = status("uncountedTerminatedPods");
    let some_left = uncounted.is_some_and(|u| !list(u, "/succeeded").is_empty() || !list(u, "/failed").is_empty());
    let some_left = some_left && ended_with("uncountedTerminatedPods");
    let why = "uncountedTerminatedPods needs to be empty for finished job";
    judge.field(some_left, "uncountedTerminatedPods", uncounted, why);
    let some_left = count("terminating") > 0 && ended_with("terminating");
    judge.field(some_left, "terminating", status("terminating"), "terminating>0 is invalid for finished job");
    let more = count("ready") > active && change.of(&[], &["ready", "active"]);
    judge.field(more, "ready", status("ready"), "cannot set more ready pods than active");
    judge.conditions(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    judge.conditions(met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
}

fn validate_indexes(change: &Change<'_>, judge: &mut Judge<'_>) {
    let job = change.new;
    let (done, failed) = (text(job, "/status/completedIndexes"), some(job, "/status/failedIndexes"));
    let failed_text = failed.and_then(Value::as_str).unwrap_or_default();
    let per_index = some(job, "/spec/backoffLimitPerIndex").is_some();
    let (now_done, now_failed) = (change.of(&[], &["completedIndexes"]), change.of(&[], &["failedIndexes"]));
    let done_value = json!(done);
    if let Some(completions) = int(job, "/spec/completions") {
        if let (true, Err(why)) = (now_done, indexes::count(done, completions)) {
            let why = format!("error parsing completedIndexes: {why}");
            judge.field(true, "completedIndexes", Some(&done_value), &why);
        }
        if let (true, Err(why)) = (per_index && now_failed, indexes::count(failed_text, completions)) {
            judge.field(true, "failedIndexes", failed, &format!("error parsing failedIndexes: {why}"));
        }
        if (now_done || now_failed)
            && let Some(index) = indexes::overlap(done, failed_text, completions)
        {
            let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
            judge.field(true, "failedIndexes", failed, &why);
        }
    }
    let odd = !done.is_empty() && !is_indexed(job) && now_done;
    let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
    judge.field(odd, "completedIndexes", Some(&done_value), why);
    let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
    judge.field(failed.is_some() && !per_index && now_failed, "failedIndexes", failed, why);
}

fn is_indexed(job: &Value) -> bool {
    text(job, "/spec/completionMode") == "Indexed"
}

/// What has been counted stays counted, what has ended stays ended.
fn validate_change(change: &Change<'_>, judge: &mut Judge<'_>) {
    let &Change { new, old } = change;
    for condition in ["Failed", "Complete", "FailureTarget"] {
        let why = format!("cannot disable the terminal {condition}=True condition");
        judge.conditions(is(old, condition) && !is(new, condition), &why);
    }
    let pair = |field: &str| {
        let pointer = format!("/status/{field}");
        (some(new, &pointer).cloned(), some(old, &pointer).cloned())
    };
    // An indexed Job that gets smaller forgets the successes of the indexes that it loses.
    let shrinks = is_indexed(new) && same(new.pointer("/spec/completions"), new.pointer("/spec/parallelism"));
    for field in ["failed", "succeeded"].into_iter().filter(|field| *field == "failed" || !shrinks) {
        let (now, before) = pair(field);
        let count = |value: &Option<Value>| value.as_ref().and_then(Value::as_i64).unwrap_or_default();
        let why = format!("cannot decrease the {field} counter");
        judge.field(count(&now) < count(&before), field, Some(&json!(count(&now))), &why);
    }
    let (now, before) = pair("completionTime");
    let moved = now.is_some() && before.is_some() && !same(now.as_ref(), before.as_ref());
    judge.field(moved, "completionTime", now.as_ref(), "completionTime cannot be mutated");
    let (now, before) = pair("startTime");
    let resumes = is(old, "Suspended") && !is(new, "Suspended");
    let moved = before.is_some() && !same(now.as_ref(), before.as_ref());
    let moved = moved && !is_true(new, "/spec/suspend") && !resumes;
    judge.field(moved, "startTime", now.as_ref(), "field is immutable for unsuspended job once set");
    let (met, was_met) = (is(new, "SuccessCriteriaMet"), is(old, "SuccessCriteriaMet"));
    judge.conditions(was_met && !met, "cannot disable the SuccessCriteriaMet=True condition");
    let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
    judge.conditions(is(old, "Complete") && !was_met && met, why);
}
