//! CronJob: a Job whenever a schedule says so.

use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::{Value, json};

use super::job;
use crate::cron::Schedule;
use crate::field::{ErrorList, Path};
use crate::kinds::apps::template;
use crate::kinds::cells::{self, NONE, column, wide};
use crate::kinds::core::podspec;
use crate::kinds::tree::{fill, is_true, list, object, set, some, split_status, text};
use crate::meta::same;
use crate::object::name;
use crate::resource::{Column, Descriptor, Idle};
use crate::strategy::{Part, Strategy};

/// A Job's name is this and eleven characters more.
const NAME_MAX: usize = 52;
const POD: &str = "/spec/jobTemplate/spec/template/spec/containers";

pub fn descriptor() -> Descriptor {
    Descriptor::of::<CronJob>()
        .idle(Idle::Yet)
        .short(&["cj"])
        .categories(&["all"])
        .status()
        .columns(columns())
        .strategy(CronJobStrategy)
}

fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Schedule", "string", "The schedule in Cron format.", |o, _| json!(text(o, "/spec/schedule"))),
        column("Timezone", "string", "The time zone name for the given schedule.", |o, _| {
            json!(some(o, "/spec/timeZone").and_then(Value::as_str).unwrap_or(NONE))
        }),
        column("Suspend", "boolean", "Whether later runs are left out.", |o, _| {
            json!(match some(o, "/spec/suspend") {
                None => "<unset>",
                Some(_) if is_true(o, "/spec/suspend") => "True",
                Some(_) => "False",
            })
        }),
        column("Active", "integer", "The number of jobs that run.", |o, _| json!(list(o, "/status/active").len())),
        column("Last Schedule", "string", "When a job was last started.", |o, now| {
            let last = some(o, "/status/lastScheduleTime");
            json!(last.map_or_else(|| NONE.to_owned(), |_| cells::since(o, "/status/lastScheduleTime", now)))
        }),
        cells::age(),
        wide("Containers", "Names of each container in the template.", |o, _| json!(cells::joined(o, POD, "name"))),
        wide("Images", "Images referenced by each container in the template.", |o, _| {
            json!(cells::joined(o, POD, "image"))
        }),
        wide("Selector", "A label query over pods.", |o, _| {
            json!(cells::selector(o, "/spec/jobTemplate/spec/selector"))
        }),
    ]
}

#[derive(Debug)]
struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn default(&self, cron_job: &mut Value) {
        let Some(spec) = object(cron_job, "spec") else { return };
        fill(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        if let Some(spec) = object(spec, "jobTemplate").and_then(|template| object(template, "spec")) {
            job::default_failure_policy(spec);
            template::default(spec);
        }
    }

    fn validate(&self, object: &Value, errors: &mut ErrorList) {
        validate_spec(object, None, errors);
        if name(object).len() > NAME_MAX {
            let path = Path::new("metadata").child("name");
            errors.invalid(&path, &json!(name(object)), "must be no more than 52 characters");
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, part: Part) {
        split_status(new, old, part);
    }

    fn validate_update(&self, new: &Value, old: &Value, part: Part, errors: &mut ErrorList) {
        if part == Part::Main {
            errors.judge_change(new, old, |object, errors| validate_spec(object, Some(old), errors));
        }
    }

    fn new_warnings(&self, object: &Value) -> Vec<String> {
        template::name_warning(object).into_iter().collect()
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut all = job_warnings(object);
        all.extend(zone_warning(object));
        all
    }

    fn update_warnings(&self, new: &Value, old: &Value) -> Vec<String> {
        let mut all = if template::is_new(new, old) { job_warnings(new) } else { Vec::new() };
        all.extend(zone_warning(new));
        all
    }
}

/// Warnings about what its Jobs are made of.
fn job_warnings(object: &Value) -> Vec<String> {
    let path = Path::new("spec").child("jobTemplate").child("spec").child("template");
    let template = object.pointer("/spec/jobTemplate/spec/template").unwrap_or(&Value::Null);
    let mut all = podspec::warnings(template, &path);
    all.extend(job::size_warning(object.pointer("/spec/jobTemplate/spec").unwrap_or(&Value::Null)));
    all
}

/// The warning about a time zone in the schedule, which Kubernetes repeats as long as it is there.
fn zone_warning(object: &Value) -> Option<String> {
    let why = "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
               https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
    text(object, "/spec/schedule").contains("TZ").then(|| why.to_owned())
}

fn validate_spec(object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let null = Value::Null;
    validate_schedule(object, old, &path.child("schedule"), errors);
    template::non_negative(object, &path, "startingDeadlineSeconds", errors);
    let zone = some(object, "/spec/timeZone");
    if old.is_none_or(|old| !same(some(old, "/spec/timeZone"), zone))
        && let Some(zone) = zone.and_then(Value::as_str)
    {
        validate_time_zone(zone, &path.child("timeZone"), errors);
    }
    let policies = ["Allow", "Forbid", "Replace"];
    match text(object, "/spec/concurrencyPolicy") {
        "" => errors.required(&path.child("concurrencyPolicy"), ""),
        policy if policies.contains(&policy) => {}
        other => errors.not_supported(&path.child("concurrencyPolicy"), other, &policies),
    }
    let job_path = path.child("jobTemplate").child("spec");
    let spec = object.pointer("/spec/jobTemplate/spec").unwrap_or(&null);
    job::validate_spec(spec, &job_path, errors);
    if let Some(selector) = some(spec, "/selector") {
        errors.invalid(&job_path.child("selector"), selector, "`selector` will be auto-generated");
    }
    if is_true(spec, "/manualSelector") {
        errors.not_supported(&job_path.child("manualSelector"), "true", &["nil", "false"]);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        template::non_negative(object, &path, field, errors);
    }
}

fn validate_schedule(object: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let schedule = text(object, "/spec/schedule");
    if schedule.is_empty() {
        return errors.required(path, "");
    }
    if let Err(why) = schedule.parse::<Schedule>() {
        errors.invalid(path, &json!(schedule), &why.to_string());
    }
    if schedule.contains("TZ") {
        let had = old.is_some_and(|old| text(old, "/spec/schedule").contains("TZ"));
        if !had {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(path, &json!(schedule), why);
        } else if some(object, "/spec/timeZone").is_some() {
            errors.invalid(path, &json!(schedule), "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        }
    }
}

fn validate_time_zone(zone: &str, path: &Path, errors: &mut ErrorList) {
    if zone.is_empty() {
        return errors.invalid(path, &json!(zone), "timeZone must be nil or non-empty string");
    }
    if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, &json!(zone), why);
    } else if TimeZone::get(zone).is_err() {
        errors.invalid(path, &json!(zone), &format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(name: &str, spec: &Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": name}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
        for (key, value) in spec.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        CronJobStrategy.default(&mut object);
        let mut errors = ErrorList::default();
        CronJobStrategy.validate(&object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_schedule_has_five_fields_or_a_name() {
        for good in ["*/5 * * * *", "@daily", "@every 1h30m", "0 9-17 * jan-mar mon,fri"] {
            assert_eq!(complaints("c", &json!({ "schedule": good })), Vec::<String>::new(), "{good}");
        }
        assert_eq!(
            complaints("c", &json!({"schedule": "* * *"})),
            ["spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]"]
        );
    }

    #[test]
    fn a_time_zone_is_a_field_of_its_own_and_exists() {
        assert_eq!(complaints("c", &json!({"timeZone": "Europe/Berlin"})), Vec::<String>::new());
        assert_eq!(
            complaints("c", &json!({"timeZone": "Europe/Atlantis"})),
            ["spec.timeZone: Invalid value: \"Europe/Atlantis\": unknown time zone Europe/Atlantis"]
        );
        assert_eq!(
            complaints("c", &json!({"schedule": "TZ=UTC @daily"})),
            [
                "spec.schedule: Invalid value: \"TZ=UTC @daily\": cannot use TZ or CRON_TZ in schedule, use timeZone field \
              instead"
            ]
        );
    }

    #[test]
    fn a_name_leaves_room_for_its_jobs() {
        let long = "x".repeat(53);
        assert_eq!(
            complaints(&long, &json!({})),
            [format!("metadata.name: Invalid value: \"{long}\": must be no more than 52 characters")]
        );
    }

    #[test]
    fn the_jobs_failure_policy_is_completed() {
        let rules = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]);
        let spec = json!({"podFailurePolicy": {"rules": rules}, "template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}});
        assert_eq!(complaints("c", &json!({"jobTemplate": {"spec": spec}})), Vec::<String>::new());
    }

    #[test]
    fn jobs_that_are_too_large_to_follow_are_warned_of() {
        let warnings = |parallelism: u32| {
            let spec = json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": parallelism});
            CronJobStrategy.warnings(&json!({"spec": {"jobTemplate": {"spec": spec}}})).len()
        };
        assert_eq!((warnings(10_000), warnings(10_001)), (0, 1));
    }
}
