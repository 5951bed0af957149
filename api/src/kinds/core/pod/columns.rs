//! What `kubectl get pods` shows: READY, STATUS and RESTARTS are one judgement of a pod's container statuses.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::cells::{self, NONE, column, wide};
use crate::kinds::tree::{int, is_true, list, some, text};
use crate::object::parse_time;
use crate::resource::Column;
use crate::table;

pub(super) fn columns() -> Vec<Column> {
    vec![
        cells::name(),
        column("Ready", "string", "The aggregate readiness state of this pod for accepting traffic.", |o, _| {
            let summary = Summary::of(o);
            json!(format!("{}/{}", summary.ready, summary.total))
        }),
        column("Status", "string", "The aggregate status of the containers in this pod.", |o, _| {
            json!(Summary::of(o).reason)
        }),
        column(
            "Restarts",
            "string",
            "The number of times the containers in this pod have been restarted and when the last container in this \
             pod has restarted.",
            |o, now| json!(Summary::of(o).restarts.shown(now)),
        ),
        cells::age(),
        wide("IP", "IP address allocated to the pod.", |o, _| or_none(text(o, "/status/podIPs/0/ip"))),
        wide("Node", "The name of the node that this pod is assigned to.", |o, _| or_none(text(o, "/spec/nodeName"))),
        wide("Nominated Node", "The node that this pod is to run on when preempted pods have left it.", |o, _| {
            or_none(text(o, "/status/nominatedNodeName"))
        }),
        wide("Readiness Gates", "Conditions that are evaluated for pod readiness.", |o, _| json!(gates(o))),
    ]
}

fn or_none(value: &str) -> Value {
    json!(if value.is_empty() { NONE } else { value })
}

fn gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| condition(pod, text(gate, "/conditionType")) == "True").count();
    format!("{open}/{}", gates.len())
}

/// The status of a condition, or `""`.
fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    list(pod, "/status/conditions").iter().find(|c| text(c, "/type") == kind).map_or("", |c| text(c, "/status"))
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int(status, "/restartCount").unwrap_or_default();
        let finished = parse_time(text(status, "/lastState/terminated/finishedAt"));
        self.last = self.last.max(finished);
    }

    fn shown(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, table::since(Some(last), now))
            }
            _ => self.count.to_string(),
        }
    }
}

/// A pod in a line.
#[derive(Clone, Debug, PartialEq)]
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars = list(pod, "/spec/initContainers").iter().filter(|c| restartable(c)).count();
        let mut summary = Self {
            ready: 0,
            total: list(pod, "/spec/containers").len() + sidecars,
            reason: base_reason(pod),
            restarts: Restarts::default(),
        };
        let mut sidecar_restarts = Restarts::default();
        let initializing = summary.init_containers(pod, &mut sidecar_restarts);
        if !initializing || condition(pod, "Initialized") == "True" {
            summary.restarts = sidecar_restarts;
            summary.containers(pod);
        }
        if some(pod, "/metadata/deletionTimestamp").is_some() {
            if text(pod, "/status/reason") == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    /// Walks init containers up to the first that is not done; whether there is one.
    fn init_containers(&mut self, pod: &Value, sidecar_restarts: &mut Restarts) -> bool {
        let specs = list(pod, "/spec/initContainers");
        for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
            self.restarts.add(status);
            let spec = specs.iter().find(|c| text(c, "/name") == text(status, "/name"));
            let sidecar = spec.is_some_and(restartable);
            if sidecar {
                sidecar_restarts.add(status);
            }
            let terminated = some(status, "/state/terminated");
            if terminated.is_some_and(|t| int(t, "/exitCode").unwrap_or_default() == 0) {
                continue;
            }
            if sidecar && is_true(status, "/started") {
                self.ready += usize::from(is_true(status, "/ready"));
                continue;
            }
            let waiting = text(status, "/state/waiting/reason");
            self.reason = match terminated {
                Some(terminated) => format!("Init:{}", terminated_reason(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    fn containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(terminated) = some(status, "/state/terminated") {
                self.reason = terminated_reason(terminated);
            } else if is_true(status, "/ready") && some(status, "/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(pod, "Ready") == "True";
            (if ready { "Running" } else { "NotReady" }).clone_into(&mut self.reason);
        }
    }
}

fn base_reason(pod: &Value) -> String {
    let gated = |c: &&Value| text(c, "/type") == "PodScheduled" && text(c, "/reason") == "SchedulingGated";
    if list(pod, "/status/conditions").iter().any(|c| gated(&c)) {
        return "SchedulingGated".to_owned();
    }
    let reason = text(pod, "/status/reason");
    if reason.is_empty() { text(pod, "/status/phase") } else { reason }.to_owned()
}

fn restartable(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn terminated_reason(terminated: &Value) -> String {
    let reason = text(terminated, "/reason");
    let signal = int(terminated, "/signal").unwrap_or_default();
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", int(terminated, "/exitCode").unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pod: &Value) -> (String, String, String) {
        let summary = Summary::of(pod);
        let now = "2026-01-01T01:00:00Z".parse().unwrap_or_default();
        (format!("{}/{}", summary.ready, summary.total), summary.reason.clone(), summary.restarts.shown(now))
    }

    fn is(pod: &Value, ready: &str, status: &str, restarts: &str) {
        assert_eq!(shown(pod), (ready.to_owned(), status.to_owned(), restarts.to_owned()));
    }

    fn pod(status: &Value) -> Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": status})
    }

    fn running(ready: bool) -> Value {
        json!({"ready": ready, "restartCount": 0, "state": {"running": {}}})
    }

    #[test]
    fn a_new_pod_is_pending() {
        is(&pod(&json!({"phase": "Pending"})), "0/2", "Pending", "0");
    }

    #[test]
    fn ready_counts_running_containers_that_are_ready() {
        let status = json!({"phase": "Running", "containerStatuses": [running(true), running(false)]});
        is(&pod(&status), "1/2", "Running", "0");
    }

    #[test]
    fn a_waiting_reason_is_the_status_and_restarts_say_when() {
        let waiting = json!({"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}});
        let status = json!({"phase": "Running", "containerStatuses": [running(true), waiting]});
        is(&pod(&status), "1/2", "CrashLoopBackOff", "3 (5m ago)");
    }

    #[test]
    fn the_end_of_a_container_shows_as_reason_signal_or_code() {
        for (terminated, shown) in [
            (json!({"reason": "Completed", "exitCode": 0}), "Completed"),
            (json!({"reason": "OOMKilled", "exitCode": 137}), "OOMKilled"),
            (json!({"exitCode": 3}), "ExitCode:3"),
            (json!({"signal": 9, "exitCode": 137}), "Signal:9"),
        ] {
            let status = json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": terminated}}]});
            is(&pod(&status), "0/2", shown, "0");
        }
    }

    #[test]
    fn one_completed_container_beside_a_running_one_leaves_the_pod_running_or_not_ready() {
        let done = json!({"state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
        let mut status = json!({"phase": "Running", "containerStatuses": [done, running(true)]});
        is(&pod(&status), "1/2", "NotReady", "0");
        status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        is(&pod(&status), "1/2", "Running", "0");
    }

    #[test]
    fn init_containers_show_their_progress() {
        let mut pod = pod(&json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]}));
        pod["spec"]["initContainers"] = json!([{"name": "i"}, {"name": "j"}]);
        is(&pod, "0/2", "Init:1/2", "0");
        pod["status"]["initContainerStatuses"][1]["state"] = json!({"terminated": {"exitCode": 2}});
        is(&pod, "0/2", "Init:ExitCode:2", "0");
    }

    #[test]
    fn a_pod_being_deleted_is_terminating_unless_it_has_ended() {
        let mut pod = pod(&json!({"phase": "Running"}));
        pod["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        is(&pod, "0/2", "Terminating", "0");
        pod["status"]["phase"] = json!("Succeeded");
        is(&pod, "0/2", "Succeeded", "0");
    }
}
