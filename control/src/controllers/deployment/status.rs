//! The status that a Deployment shows, with Kubernetes' conditions, reasons and messages.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::sizes;

pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
/// Kubernetes' way to say that there is no deadline.
const NO_DEADLINE: i32 = i32::MAX;

/// What a pass did that the Progressing condition tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    Created(String),
    CreateFailed { name: String, error: String },
}

/// What the status is made from.
#[derive(Debug)]
pub struct View<'a> {
    pub deployment: &'a Deployment,
    pub all: &'a [Arc<ReplicaSet>],
    pub new: Option<&'a Arc<ReplicaSet>>,
    /// The pass rolled out, rather than being paused or resizing.
    pub rolling: bool,
    pub note: Option<Note>,
    pub now: Timestamp,
}

pub fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or_default()
}

fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).filter(|seconds| *seconds != NO_DEADLINE)
}

/// Whether everything runs the present template and is available.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = sizes::replicas(deployment);
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    all.iter().all(|count| count.unwrap_or_default() == wanted)
        && status.observed_generation.unwrap_or_default() >= deployment.metadata.generation.unwrap_or_default()
}

/// The status, and when to look again because a deadline may have passed.
pub fn status(view: &View<'_>) -> (DeploymentStatus, Option<Duration>) {
    let old = view.deployment.status.clone().unwrap_or_default();
    let mut status = counts(view, &old);
    let mut conditions = Conditions { list: old.conditions.clone().unwrap_or_default(), now: view.now };
    pausing(view, &mut conditions);
    noted(view, &mut conditions);
    availability(view, &status, &mut conditions);
    if view.rolling {
        progress(view, &old, &status, &mut conditions);
        failures(view, &mut conditions);
    }
    let again = if view.rolling { recheck(view, &status, &conditions) } else { None };
    status.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    (status, again)
}

fn counts(view: &View<'_>, old: &DeploymentStatus) -> DeploymentStatus {
    let sum = |field: &dyn Fn(&ReplicaSet) -> i32| view.all.iter().map(|set| field(set)).sum::<i32>();
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |s| s.replicas);
    let available = sum(&sizes::available);
    let nonzero = |count: i32| Some(count).filter(|count| *count != 0);
    DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: nonzero(sum(&actual)),
        updated_replicas: nonzero(view.new.map_or(0, |set| actual(set))),
        ready_replicas: nonzero(sum(&|set| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default())),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((sizes::total(view.all) - available).max(0)),
        terminating_replicas: Some(sum(&|set| {
            set.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or_default()
        })),
        collision_count: old.collision_count,
        conditions: None,
    }
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|c| c.type_ == kind)
    }

    fn reason(&self, kind: &str) -> Option<&str> {
        self.get(kind)?.reason.as_deref()
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|c| c.type_ != kind);
    }

    /// Sets a condition; the same status and reason again changes nothing.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let present = self.get(kind);
        if present.is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason)) {
            return;
        }
        self.replace(kind, status, reason, message);
    }

    /// Sets a condition, and its time of update even if it says the same again.
    fn replace(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = Some(Time(self.now));
        let same = self.get(kind).filter(|c| c.status == status);
        let transition = same.and_then(|c| c.last_transition_time.clone()).or_else(|| now.clone());
        self.remove(kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: now,
            last_transition_time: transition,
        });
    }
}

fn pausing(view: &View<'_>, conditions: &mut Conditions) {
    if deadline(view.deployment).is_none() || conditions.reason(PROGRESSING) == Some(TIMED_OUT) {
        return;
    }
    let known = conditions.reason(PROGRESSING) == Some(PAUSED);
    match (is_paused(view.deployment), known) {
        (true, false) => conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned()),
        (false, true) => {
            conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
        }
        _ => {}
    }
}

fn noted(view: &View<'_>, conditions: &mut Conditions) {
    if deadline(view.deployment).is_none() {
        return;
    }
    match (&view.note, view.new) {
        (Some(Note::Created(name)), _) => {
            conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""));
        }
        (Some(Note::CreateFailed { name, error }), _) => {
            let message = format!("Failed to create new replica set \"{name}\": {error}");
            conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", message);
        }
        (None, Some(new)) if view.rolling && conditions.get(PROGRESSING).is_none() => {
            let message = format!("Found new replica set \"{}\"", new.name_any());
            conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", message);
        }
        _ => {}
    }
}

fn availability(view: &View<'_>, status: &DeploymentStatus, conditions: &mut Conditions) {
    let minimum = sizes::replicas(view.deployment) - sizes::max_unavailable(view.deployment);
    if status.available_replicas.unwrap_or_default() >= minimum {
        let message = "Deployment has minimum availability.".to_owned();
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message);
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
    }
}

fn progress(view: &View<'_>, old: &DeploymentStatus, status: &DeploymentStatus, conditions: &mut Conditions) {
    if deadline(view.deployment).is_none() {
        return conditions.remove(PROGRESSING);
    }
    let done = status.replicas == status.updated_replicas && conditions.reason(PROGRESSING) == Some(NEW_AVAILABLE);
    if done || matches!(view.note, Some(Note::CreateFailed { .. })) {
        return;
    }
    let subject = view.new.map_or_else(
        || format!("Deployment \"{}\"", view.deployment.name_any()),
        |new| format!("ReplicaSet \"{}\"", new.name_any()),
    );
    if is_complete(view.deployment, status) {
        conditions.set(PROGRESSING, "True", NEW_AVAILABLE, format!("{subject} has successfully progressed."));
    } else if has_progressed(old, status) {
        conditions.replace(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."));
    } else if has_timed_out(view, conditions) {
        conditions.set(PROGRESSING, "False", TIMED_OUT, format!("{subject} has timed out progressing."));
    }
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let old_ones = |s: &DeploymentStatus| s.replicas.unwrap_or_default() - s.updated_replicas.unwrap_or_default();
    new.updated_replicas.unwrap_or_default() > old.updated_replicas.unwrap_or_default()
        || old_ones(new) < old_ones(old)
        || new.ready_replicas.unwrap_or_default() > old.ready_replicas.unwrap_or_default()
        || new.available_replicas.unwrap_or_default() > old.available_replicas.unwrap_or_default()
}

/// When the deadline passes, if one is running.
fn due(view: &View<'_>, conditions: &Conditions) -> Option<Timestamp> {
    let seconds = deadline(view.deployment)?;
    let condition = conditions.get(PROGRESSING)?;
    if matches!(condition.reason.as_deref(), Some(NEW_AVAILABLE | TIMED_OUT | PAUSED)) {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0;
    since.checked_add(jiff::SignedDuration::from_secs(seconds.into())).ok()
}

fn has_timed_out(view: &View<'_>, conditions: &Conditions) -> bool {
    conditions.reason(PROGRESSING) == Some(TIMED_OUT) || due(view, conditions).is_some_and(|due| due < view.now)
}

fn recheck(view: &View<'_>, status: &DeploymentStatus, conditions: &Conditions) -> Option<Duration> {
    if is_complete(view.deployment, status) {
        return None;
    }
    let left = due(view, conditions)?.duration_since(view.now);
    Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
}

/// The condition of a ReplicaSet that cannot make its pods; the present one's first.
fn failures(view: &View<'_>, conditions: &mut Conditions) {
    let found = view.new.into_iter().chain(view.all).find_map(|set| {
        let list = set.status.as_ref()?.conditions.as_ref()?;
        list.iter().find(|c| c.type_ == FAILURE)
    });
    match found {
        Some(c) => {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            conditions.set(FAILURE, &c.status, &text(&c.reason), text(&c.message));
        }
        None => conditions.remove(FAILURE),
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: serde_json::Value, paused: bool) -> Deployment {
        serde_json::from_value(json!({"metadata": {"name": "d", "generation": 2},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 600, "paused": paused, "selector": {}, "template": {}},
            "status": status}))
        .expect("a deployment")
    }

    fn set(available: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "d-1"}, "spec": {"replicas": 2, "selector": {}},
            "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available}}))
            .expect("a set"),
        )
    }

    fn shown(deployment: &Deployment, set: &Arc<ReplicaSet>, note: Option<Note>, now: &str) -> DeploymentStatus {
        let all = [set.clone()];
        let rolling = !is_paused(deployment);
        let now = now.parse().expect("a time");
        status(&View { deployment, all: &all, new: Some(set), rolling, note, now }).0
    }

    fn reason<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<(&'a str, &'a str)> {
        let found = status.conditions.as_ref()?.iter().find(|c| c.type_ == kind)?;
        Some((&found.status, found.reason.as_deref()?))
    }

    #[test]
    fn a_rollout_goes_from_created_to_available() {
        let mut d = deployment(json!({}), false);
        let first = shown(&d, &set(0), Some(Note::Created("d-1".into())), "2030-01-01T00:00:00Z");
        assert_eq!(reason(&first, AVAILABLE), Some(("False", "MinimumReplicasUnavailable")));
        assert_eq!((first.unavailable_replicas, first.updated_replicas), (Some(2), Some(2)));
        d.status = Some(first);
        let second = shown(&d, &set(1), None, "2030-01-01T00:00:05Z");
        assert_eq!(reason(&second, PROGRESSING), Some(("True", "ReplicaSetUpdated")));
        d.status = Some(second);
        let third = shown(&d, &set(2), None, "2030-01-01T00:00:09Z");
        assert_eq!(reason(&third, PROGRESSING), Some(("True", NEW_AVAILABLE)));
        assert_eq!(reason(&third, AVAILABLE), Some(("True", "MinimumReplicasAvailable")));
        d.status = Some(third.clone());
        assert_eq!(shown(&d, &set(2), None, "2030-01-01T09:00:00Z"), third, "nothing new is nothing written");
    }

    #[test]
    fn a_rollout_without_progress_times_out() {
        let mut d = deployment(json!({}), false);
        d.status = Some(shown(&d, &set(0), Some(Note::Created("d-1".into())), "2030-01-01T00:00:00Z"));
        d.status = Some(shown(&d, &set(0), None, "2030-01-01T00:00:01Z"));
        let late = shown(&d, &set(0), None, "2030-01-01T00:10:05Z");
        assert_eq!(reason(&late, PROGRESSING), Some(("False", TIMED_OUT)));
    }

    #[test]
    fn pausing_and_resuming_is_told() {
        let mut d = deployment(json!({}), true);
        d.status = Some(shown(&d, &set(0), None, "2030-01-01T00:00:00Z"));
        assert_eq!(d.status.as_ref().and_then(|s| reason(s, PROGRESSING)), Some(("Unknown", PAUSED)));
        d.spec.as_mut().expect("a spec").paused = Some(false);
        d.status.as_mut().expect("a status").updated_replicas = Some(2);
        let resumed = shown(&d, &set(0), None, "2030-01-01T00:00:01Z");
        assert_eq!(reason(&resumed, PROGRESSING), Some(("Unknown", "DeploymentResumed")));
    }
}
