//! What an owner of replicas needs, decided from what is there: pods to make, pods to delete, the status to show. No I/O.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::owner::Owner;
use super::rank;
use crate::controllers::claim::reference;
use crate::controllers::pods;

/// At most this many pods are made or deleted in one pass; the next pass follows at once.
pub const BURST: usize = 500;

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
}

/// `own`: the claimed pods. `related`: the pods of all ReplicaSets with the same owner.
pub fn plan(set: &impl Owner, own: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan {
    let active: Vec<Arc<Pod>> = own.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let wanted = usize::try_from(set.replicas()).unwrap_or_default();
    if active.len() < wanted {
        return Plan { create: (wanted - active.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Plan::default();
    }
    Plan { create: 0, delete: rank::victims(active, related, surplus, now) }
}

/// The pod that the set's template describes.
pub fn pod(set: &impl Owner) -> Option<Pod> {
    let template = set.template()?;
    let meta = template.metadata.clone().unwrap_or_default();
    Some(Pod {
        metadata: ObjectMeta {
            namespace: set.namespace(),
            generate_name: Some(format!("{}-", set.name_any())),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    })
}

/// What went wrong in this pass, as the `ReplicaFailure` condition says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

/// The status that the set should show.
pub fn status(set: &impl Owner, own: &[Arc<Pod>], failure: Option<&Failure>, now: Timestamp) -> ReplicaSetStatus {
    let template = set.template().and_then(|t| t.metadata.as_ref());
    let wanted = template.and_then(|m| m.labels.clone()).unwrap_or_default();
    let labelled = |pod: &Pod| wanted.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
    let active: Vec<&Pod> = own.iter().map(|pod| &**pod).filter(|pod| pods::is_active(pod)).collect();
    let count = |keep: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| keep(pod)).count();
    let min_ready = set.min_ready_seconds();
    let terminating = own.iter().filter(|pod| pods::is_deleting(pod) && !pods::is_ended(pod)).count();
    ReplicaSetStatus {
        replicas: int(active.len()),
        fully_labeled_replicas: some(count(&labelled)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|pod| pods::is_available(pod, min_ready, now))),
        terminating_replicas: told(set, int(terminating)),
        observed_generation: set.meta().generation,
        conditions: conditions(set, failure, now),
    }
}

fn told<O: Owner>(_: &O, terminating: i32) -> Option<i32> {
    O::COUNTS_TERMINATING.then_some(terminating)
}

/// How long until a ready pod becomes available, the soonest.
pub fn until_available(set: &impl Owner, own: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let min_ready = set.min_ready_seconds();
    own.iter().filter(|pod| pods::is_active(pod)).filter_map(|pod| pods::until_available(pod, min_ready, now)).min()
}

fn conditions(set: &impl Owner, failure: Option<&Failure>, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    const KIND: &str = "ReplicaFailure";
    let present = set.shown().conditions.unwrap_or_default();
    let known = present.iter().any(|c| c.type_ == KIND);
    let mut conditions = present;
    match failure {
        None => conditions.retain(|c| c.type_ != KIND),
        Some(_) if known => {}
        Some(failure) => conditions.push(ReplicaSetCondition {
            type_: KIND.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
    }
    Some(conditions).filter(|c| !c.is_empty())
}

fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Zero is not written, as in Kubernetes.
fn some(count: usize) -> Option<i32> {
    Some(int(count)).filter(|count| *count != 0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::ReplicationController;
    use serde_json::json;

    use super::*;

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 4},
            "spec": {"replicas": replicas, "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a", "tier": "b"}}, "spec": {"containers": []}}},
        }))
        .expect("a set")
    }

    fn pod_with(name: &str, phase: &str, ready_since: Option<&str>, deleting: bool) -> Arc<Pod> {
        let conditions: Vec<_> = ready_since
            .map(|since| json!({"type": "Ready", "status": "True", "lastTransitionTime": since}))
            .into_iter()
            .collect();
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "labels": {"app": "a"}},
            "status": {"phase": phase, "conditions": conditions},
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2029-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn only_active_pods_count_towards_the_wanted_number() {
        let own = [
            pod_with("a", "Running", None, false),
            pod_with("b", "Failed", None, false),
            pod_with("c", "Running", None, true),
        ];
        assert_eq!(plan(&set(3, 0), &own, &[], now()).create, 2);
        assert_eq!(plan(&set(1, 0), &own, &[], now()).delete.len(), 0);
        assert_eq!(plan(&set(0, 0), &own, &[], now()).delete.len(), 1);
    }

    #[test]
    fn one_pass_makes_at_most_a_burst() {
        assert_eq!(plan(&set(1000, 0), &[], &[], now()).create, BURST);
    }

    #[test]
    fn a_made_pod_carries_the_template_and_its_owner() {
        let pod = pod(&set(1, 0)).expect("a pod");
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("r-"));
        assert_eq!(pod.labels().len(), 2);
        let owner = &pod.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.api_version.as_str(), owner.controller),
            ("ReplicaSet", "apps/v1", Some(true))
        );
    }

    #[test]
    fn a_pod_is_available_only_after_min_ready_seconds() {
        let own = [
            pod_with("a", "Running", Some("2029-12-31T23:59:30Z"), false),
            pod_with("b", "Running", Some("2029-12-31T23:59:58Z"), false),
        ];
        let set = set(2, 10);
        let status = status(&set, &own, None, now());
        assert_eq!((status.ready_replicas, status.available_replicas), (Some(2), Some(1)));
        assert_eq!((status.replicas, status.fully_labeled_replicas, status.observed_generation), (2, None, Some(4)));
        assert_eq!(until_available(&set, &own, now()), Some(Duration::from_secs(8)));
    }

    #[test]
    fn a_failure_becomes_a_condition_and_goes_with_it() {
        let failure = Failure { reason: "FailedCreate", message: "quota".to_owned() };
        let mut set = set(1, 0);
        set.status = Some(status(&set, &[], Some(&failure), now()));
        let shown = set.status.as_ref().and_then(|s| s.conditions.clone()).expect("a condition");
        assert_eq!((shown[0].type_.as_str(), shown[0].reason.as_deref()), ("ReplicaFailure", Some("FailedCreate")));
        assert_eq!(status(&set, &[], None, now()).conditions, None);
    }

    #[test]
    fn a_replication_controller_is_planned_alike() {
        let controller: ReplicationController = serde_json::from_value(json!({
            "metadata": {"name": "rc", "namespace": "n", "uid": "u"},
            "spec": {"replicas": 2, "selector": {"app": "a"}, "template": {"metadata": {"labels": {"app": "a"}}}},
            "status": {"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}]},
        }))
        .expect("a controller");
        assert_eq!(plan(&controller, &[], &[], now()).create, 2);
        assert_eq!(pod(&controller).expect("a pod").owner_references()[0].kind, "ReplicationController");
        let status = status(&controller, &[pod_with("a", "Running", None, true)], None, now());
        assert_eq!((status.conditions, status.terminating_replicas), (None, None));
        assert!(controller.selector().expect("a selector").is_some());
    }
}
