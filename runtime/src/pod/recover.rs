//! What a pod was when the process before this one ended, or the worker before this one failed: read from its status and, since
//! a process that is killed has no time to tell of the last instances that it started, from the logs that they left.
//!
//! Containers that ran are restarted, as after a reboot under the kubelet: another instance, the one before it as `lastState`
//! (`Unknown`, since nobody saw its end) and its log kept. With `restartPolicy: Never` they are not run twice and end as
//! `ContainerStatusUnknown`, unless the last process saw their end and told it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState as ApiState, ContainerStateTerminated, ContainerStatus, PodStatus};

use super::container::{ContainerState, Ended, Step};
use super::state::{Now, PodState, RestartPolicy};
use crate::backend::Exit;

/// Exit code of a container whose end nobody saw.
const LOST: i32 = 137;
/// The same, of a container that is started again: what containerd makes of one that it finds dead.
const UNKNOWN: i32 = 255;

/// Why nobody saw how a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The process before this one ended.
    Restart,
    /// The worker of its pod failed, a fault of this program, and it was ended.
    Worker,
}

impl Lost {
    fn told(self) -> &'static str {
        match self {
            Self::Restart => "The node was restarted while the container ran",
            Self::Worker => "The node failed in its work on this pod while the container ran, and ended the container",
        }
    }
}

impl PodState {
    /// Takes over what `status` says of an earlier life on this node, which ended so, and what `logged` says of a container:
    /// the number of its newest instance that has a log.
    pub fn recover(&mut self, status: &PodStatus, logged: impl Fn(&str) -> Option<u32>, lost: Lost, now: Now) {
        let policy = self.setup.policy;
        for c in &mut self.containers {
            if let Some(was) = status.container_statuses.iter().flatten().find(|was| was.name == c.name) {
                recover_container(c, was, policy, lost, now.wall);
            }
            if let Some(newest) = logged(&c.name).filter(|newest| *newest >= c.next_attempt()) {
                // Nobody was told of it.
                c.before_last = c.last.take();
                c.restarts = newest;
                c.lose(None, String::new(), policy, lost, now.wall);
            }
        }
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended {
            self.sealed = true;
            for c in &mut self.containers {
                c.step = Step::Ended;
            }
        }
        if status.phase.as_deref() == Some("Failed")
            && let Some(reason) = &status.reason
        {
            self.failure = Some((reason.clone(), status.message.clone().unwrap_or_default()));
        }
    }
}

fn recover_container(c: &mut ContainerState, was: &ContainerStatus, policy: RestartPolicy, lost: Lost, now: Timestamp) {
    let none = ApiState::default();
    let state = was.state.as_ref().unwrap_or(&none);
    let before = was.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| Box::new(ended(t)));
    c.restarts = u32::try_from(was.restart_count).unwrap_or(0);
    c.image_id.clone_from(&was.image_id);
    if let Some(terminated) = &state.terminated {
        c.existed = true;
        c.last = Some(Box::new(ended(terminated)));
        c.before_last = before;
        c.step = if policy.restarts(terminated.exit_code) { Step::Waiting } else { Step::Ended };
    } else if let Some(running) = &state.running {
        c.before_last = before;
        let started_at = running.started_at.as_ref().map(|t| t.0);
        c.lose(started_at, was.container_id.clone().unwrap_or_default(), policy, lost, now);
    } else {
        c.existed = before.is_some();
        c.last = before;
    }
}

impl ContainerState {
    /// Its newest instance ended, and nobody saw how.
    fn lose(&mut self, started_at: Option<Timestamp>, id: String, policy: RestartPolicy, lost: Lost, now: Timestamp) {
        let (step, code, reason, message) = if policy == RestartPolicy::Never {
            let message = format!("{}; its restart policy is Never", lost.told());
            (Step::Ended, LOST, "ContainerStatusUnknown", message)
        } else {
            (Step::Waiting, UNKNOWN, "Unknown", lost.told().to_owned())
        };
        let exit = Exit { code, reason: reason.to_owned(), message, finished_at: now };
        self.step = step;
        self.existed = true;
        self.last = Some(Box::new(Ended { exit, started_at, id }));
    }
}

fn ended(t: &ContainerStateTerminated) -> Ended {
    Ended {
        exit: Exit {
            code: t.exit_code,
            reason: t.reason.clone().unwrap_or_default(),
            message: t.message.clone().unwrap_or_default(),
            finished_at: t.finished_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |at| at.0),
        },
        started_at: t.started_at.as_ref().map(|at| at.0),
        id: t.container_id.clone().unwrap_or_default(),
    }
}
