//! What the state machine needs to know of a Pod, read from its spec.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::state::{RestartPolicy, Setup, Update};

/// Times in specs may be any number of seconds; none of a century or more ends here.
const CENTURY: u64 = 100 * 365 * 24 * 60 * 60;

/// Seconds to end that Kubernetes gives a pod that names none.
const DEFAULT_GRACE: i64 = 30;

/// The containers of a pod, in order.
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
}

/// The pod's identity: namespace, name, uid.
pub fn identity(pod: &Pod) -> (&str, &str, &str) {
    (
        pod.metadata.namespace.as_deref().unwrap_or("default"),
        pod.metadata.name.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default(),
    )
}

/// Reads the spec once.
pub fn setup(pod: &Pod, blocked: Option<String>) -> Setup {
    let (namespace, name, uid) = identity(pod);
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    Setup {
        full_name: format!("{name}_{namespace}({uid})"),
        policy: match spec.restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        },
        grace: seconds(spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE)),
        deadline: spec.active_deadline_seconds.map(seconds),
        containers: spec.containers.iter().map(|c| (c.name.clone(), c.image.clone().unwrap_or_default())).collect(),
        blocked,
    }
}

/// Reads what may change.
pub fn update(pod: &Pod) -> Update {
    let meta = &pod.metadata;
    Update {
        images: containers(pod).iter().map(|c| c.image.clone().unwrap_or_default()).collect(),
        deletion: meta
            .deletion_timestamp
            .as_ref()
            .map(|_| seconds(meta.deletion_grace_period_seconds.unwrap_or(DEFAULT_GRACE))),
        gates: missing_gates(pod),
        generation: meta.generation,
    }
}

fn missing_gates(pod: &Pod) -> Vec<String> {
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let conditions = || pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    gates
        .into_iter()
        .flatten()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions().find(|c| c.type_ == *kind) {
                Some(found) if found.status == "True" => None,
                Some(found) => {
                    Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", found.status))
                }
                None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            }
        })
        .collect()
}

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0).min(CENTURY))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_grace_without_end_can_still_be_added_to_a_time() {
        let spec = PodSpec { termination_grace_period_seconds: Some(i64::MAX), ..PodSpec::default() };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        assert!(Instant::now().checked_add(setup(&pod, None).grace).is_some());
        assert_eq!(seconds(-1), Duration::ZERO);
    }
}
