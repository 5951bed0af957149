//! A pod's state as its `status`, worded as the kubelet words it.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::container::{ContainerState, Ended, Step};
use super::state::{Now, Place, PodState};

/// The conditions that a node owns, in the order in which they are shown.
const CONDITIONS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// When each condition last changed, and what it was then: all that outlives one status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transitions([Option<(bool, Timestamp)>; CONDITIONS.len()]);

impl Transitions {
    /// As an earlier process left them.
    pub fn recover(status: &PodStatus) -> Self {
        let mut all = Self::default();
        for condition in status.conditions.iter().flatten() {
            let slot = CONDITIONS.iter().position(|name| *name == condition.type_).and_then(|i| all.0.get_mut(i));
            if let (Some(slot), Some(at)) = (slot, &condition.last_transition_time) {
                *slot = Some((condition.status == "True", at.0));
            }
        }
        all
    }

    fn since(&mut self, index: usize, status: bool, now: Timestamp) -> Timestamp {
        let Some(slot) = self.0.get_mut(index) else { return now };
        match slot {
            Some((was, at)) if *was == status => *at,
            _ => {
                *slot = Some((status, now));
                now
            }
        }
    }
}

/// What the pod's status shows of its node.
#[derive(Clone, Debug)]
pub struct Host {
    pub address: String,
}

/// The status of `pod` now.
pub fn status(pod: &PodState, transitions: &mut Transitions, host: &Host, qos: Option<&str>, now: Now) -> PodStatus {
    let phase = phase(pod);
    let address = address(pod);
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: pod.failure.as_ref().map(|(reason, _)| reason.clone()),
        message: pod.failure.as_ref().map(|(_, message)| message.clone()),
        conditions: Some(conditions(pod, phase, transitions, now.wall)),
        container_statuses: Some(pod.containers.iter().map(|c| container(c, &pod.setup.full_name)).collect()),
        host_ip: Some(host.address.clone()),
        host_ips: Some(vec![HostIP { ip: host.address.clone() }]),
        pod_ip: address.map(|ip| ip.to_string()),
        pod_ips: address.map(|ip| vec![PodIP { ip: ip.to_string() }]),
        start_time: Some(Time(pod.start_time)),
        qos_class: qos.map(str::to_owned),
        observed_generation: pod.generation,
        ..PodStatus::default()
    }
}

fn address(pod: &PodState) -> Option<Ipv4Addr> {
    match pod.place {
        Place::Attached(ip) | Place::Released(Some(ip)) => Some(ip),
        _ => None,
    }
}

/// `status.phase`.
pub(super) fn phase(pod: &PodState) -> &'static str {
    let exits = || pod.containers.iter().map(|c| c.last.as_ref().map(|e| e.exit.code));
    if pod.failure.is_some() && pod.over() {
        return "Failed";
    }
    if pod.over() {
        // Only containers that ran to their end with 0, all of them, are a success; never started is not.
        return if exits().all(|code| code == Some(0)) { "Succeeded" } else { "Failed" };
    }
    let untried = |c: &ContainerState| !c.running() && c.last.is_none();
    if pod.containers.iter().any(untried) { "Pending" } else { "Running" }
}

fn conditions(pod: &PodState, phase: &str, transitions: &mut Transitions, now: Timestamp) -> Vec<PodCondition> {
    let unready: Vec<&str> = pod.containers.iter().filter(|c| !c.running()).map(|c| c.name.as_str()).collect();
    let containers = match phase {
        "Succeeded" => Verdict::no("PodCompleted", String::new()),
        "Failed" => Verdict::no("PodFailed", String::new()),
        _ if unready.is_empty() => Verdict::yes(),
        _ => Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let ready = if containers.status && !pod.gates.is_empty() {
        Verdict::no("ReadinessGatesNotReady", pod.gates.join(", "))
    } else {
        containers.clone()
    };
    let initialized = Verdict { reason: (phase == "Succeeded").then_some("PodCompleted"), ..Verdict::yes() };
    let network = Verdict { status: matches!(pod.place, Place::Attached(_)), reason: None, message: String::new() };
    [network, initialized, ready, containers, Verdict::yes()]
        .into_iter()
        .zip(CONDITIONS)
        .enumerate()
        .map(|(index, (verdict, type_))| PodCondition {
            type_: type_.to_owned(),
            status: if verdict.status { "True" } else { "False" }.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: Some(verdict.message).filter(|m| !m.is_empty()),
            last_transition_time: Some(Time(transitions.since(index, verdict.status, now))),
            observed_generation: pod.generation,
            last_probe_time: None,
        })
        .collect()
}

#[derive(Clone)]
struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { status: true, reason: None, message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { status: false, reason: Some(reason), message }
    }
}

fn container(c: &ContainerState, full_name: &str) -> ContainerStatus {
    let newest = c.last.as_deref();
    let (state, last) = match &c.step {
        Step::Running { since, .. } => (running(*since), newest),
        Step::Ended => match newest {
            Some(ended) => (terminated(ended), c.before_last.as_deref()),
            None => (waiting("ContainerCreating", None), None),
        },
        Step::BackOff { delay, .. } => {
            let text = format!(
                "back-off {} restarting failed container={} pod={full_name}",
                go_duration(delay.as_secs()),
                c.name
            );
            (waiting("CrashLoopBackOff", Some(text)), newest)
        }
        _ => match c.trouble.as_deref() {
            Some((reason, message)) => (waiting(reason, Some(message.clone())), newest),
            None => (waiting("ContainerCreating", None), newest),
        },
    };
    let id = match &c.step {
        Step::Running { id, .. } => Some(id.clone()),
        _ => newest.map(|ended| ended.id.clone()),
    };
    ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone(),
        image_id: c.image_id.clone(),
        container_id: id.filter(|id| !id.is_empty()),
        restart_count: i32::try_from(c.restarts).unwrap_or(i32::MAX),
        ready: c.running(),
        started: Some(c.running()),
        state: Some(state),
        last_state: Some(last.map(terminated).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn waiting(reason: &str, message: Option<String>) -> ApiState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ApiState { waiting: Some(waiting), ..ApiState::default() }
}

fn running(since: Timestamp) -> ApiState {
    ApiState { running: Some(ContainerStateRunning { started_at: Some(Time(since)) }), ..ApiState::default() }
}

fn terminated(ended: &Ended) -> ApiState {
    let terminated = ContainerStateTerminated {
        exit_code: ended.exit.code,
        reason: Some(ended.exit.reason.clone()),
        message: Some(ended.exit.message.clone()).filter(|m| !m.is_empty()),
        started_at: ended.started_at.map(Time),
        finished_at: Some(Time(ended.exit.finished_at)),
        container_id: Some(ended.id.clone()).filter(|id| !id.is_empty()),
        signal: None,
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

/// Whole seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
