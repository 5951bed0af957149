//! A pod's life as a pure state machine: what happened goes in, what to do comes out.
//!
//! It does no I/O and reads no clock, so every story (deleted while pulling, two updates at once, a crash loop, a node that
//! came back) is a table in its tests. The worker carries out the [`Action`]s and tells it what came of them.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::container::{ContainerState, Step};
use super::react::Around;
use crate::backend::Exit;

/// How long until a sandbox that could not be made is tried again.
pub(super) const SANDBOX_RETRY: Duration = Duration::from_secs(5);

/// An instant: what is written into statuses, and what timers are measured by.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub wall: Timestamp,
    pub tick: Instant,
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The worker was started.
    Begin,
    Attached(Ipv4Addr),
    AttachFailed(String),
    ImageReady {
        container: usize,
        id: String,
    },
    ImageFailed {
        container: usize,
        reason: &'static str,
        message: String,
    },
    Started {
        container: usize,
        id: String,
        at: Timestamp,
    },
    /// It was not created; it is tried again.
    CreateFailed {
        container: usize,
        reason: &'static str,
        message: String,
    },
    Exited {
        container: usize,
        exit: Exit,
    },
    /// A start that was cancelled; nothing of it is left.
    Cancelled {
        container: usize,
    },
    /// The Pod changed in the API.
    Updated(Update),
    /// The Pod is gone from the API.
    Removed,
    /// A timer is due.
    Tick,
}

/// The part of a Pod that may change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// By container, in the order of the spec.
    pub images: Vec<String>,
    /// `metadata.deletionTimestamp` is set: how long the containers may take (`metadata.deletionGracePeriodSeconds`).
    pub deletion: Option<Duration>,
    /// What is missing of `spec.readinessGates`, as Kubernetes words it.
    pub gates: Vec<String>,
    pub generation: Option<i64>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the pod its place in the network.
    Attach,
    Pull {
        container: usize,
    },
    Start {
        container: usize,
        attempt: u32,
    },
    /// Stop pulling; nothing is to be reported.
    CancelPull {
        container: usize,
    },
    /// End the container, or cancel its start; a second one with less grace shortens the first.
    Stop {
        container: usize,
        grace: Duration,
    },
    /// All containers ended for good: give back the sandbox and the address.
    Release,
    /// Nothing of the pod is left on this node: its object may go.
    Delete,
    /// The pod was removed from the API and nothing of it is left: the worker ends.
    Finish,
    Event(Notice),
}

/// An event to record on the pod or on one of its containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub container: Option<usize>,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// Why the pod's containers are being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its object waits for us to delete it.
    Deletion,
    /// Its object is gone.
    Removal,
    /// It failed as a whole; its object stays.
    Failure,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    pub(super) cause: Cause,
    by: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    None,
    Attaching,
    Retry(Instant),
    Attached(Ipv4Addr),
    /// Given back; the address stays in the status.
    Released(Option<Ipv4Addr>),
}

/// What the machine needs to know of a Pod once.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `NAME_NAMESPACE(UID)`, as the kubelet names pods in messages.
    pub full_name: String,
    pub policy: RestartPolicy,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// `spec.activeDeadlineSeconds`.
    pub deadline: Option<Duration>,
    /// Names and images.
    pub containers: Vec<(String, String)>,
    /// What this node cannot honour and must not ignore.
    pub blocked: Option<String>,
}

/// A pod.
#[derive(Debug)]
pub struct PodState {
    pub(super) setup: Setup,
    pub(super) containers: Vec<ContainerState>,
    pub(super) place: Place,
    pub(super) stopping: Option<Stopping>,
    /// Failed as a whole: `status.reason` and `status.message`.
    pub(super) failure: Option<(String, String)>,
    pub(super) gates: Vec<String>,
    pub(super) generation: Option<i64>,
    pub(super) start_time: Timestamp,
    deadline: Option<Instant>,
    /// It ended before this process saw it: `status` stays as it is.
    pub(super) sealed: bool,
    finished: bool,
}

impl PodState {
    pub fn new(setup: Setup, start_time: Timestamp, now: Now) -> Self {
        let containers = setup.containers.iter().map(|(name, image)| ContainerState::new(name, image)).collect();
        let ran = Duration::try_from(now.wall.duration_since(start_time)).unwrap_or_default();
        let deadline = setup.deadline.map(|limit| now.tick + limit.saturating_sub(ran));
        Self {
            setup,
            containers,
            place: Place::None,
            stopping: None,
            failure: None,
            gates: Vec::new(),
            generation: None,
            start_time,
            deadline,
            sealed: false,
            finished: false,
        }
    }

    pub fn containers(&self) -> &[ContainerState] {
        &self.containers
    }

    /// Whether all containers ended and none will be started again.
    pub fn over(&self) -> bool {
        self.sealed || self.containers.iter().all(|c| c.step == Step::Ended)
    }

    /// Whether all containers are being ended.
    pub fn ends(&self) -> bool {
        self.stopping.is_some()
    }

    /// The process ends, and these containers ended so. `true`: the API is to know, because they are not started again.
    pub fn shut_down(&mut self, ended: Vec<(usize, Exit)>, now: Now) -> bool {
        if self.setup.policy != RestartPolicy::Never || self.stopping.is_some() || ended.is_empty() {
            return false;
        }
        for (container, exit) in ended {
            // What is left to do is done by the end of the process.
            self.step(Input::Exited { container, exit }, now);
        }
        if self.over() && self.failure.is_none() {
            let message = "Pod was terminated in response to imminent node shutdown.".to_owned();
            self.failure = Some(("Terminated".to_owned(), message));
        }
        true
    }

    /// When [`Input::Tick`] is due.
    pub fn next_wake(&self) -> Option<Instant> {
        let place = match self.place {
            Place::Retry(at) => Some(at),
            _ => None,
        };
        let deadline = self.deadline.filter(|_| self.stopping.is_none() && !self.over());
        self.containers.iter().filter_map(ContainerState::next_wake).chain(place).chain(deadline).min()
    }

    /// Takes what happened; says what to do.
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Begin | Input::Tick => {}
            Input::Attached(address) => self.attached(address),
            Input::AttachFailed(message) => self.attach_failed(&message, now, &mut out),
            Input::Updated(update) => self.updated(update, now, &mut out),
            Input::Removed => self.stop(Cause::Removal, self.setup.grace.min(Duration::from_secs(1)), now, &mut out),
            Input::ImageReady { container, .. }
            | Input::ImageFailed { container, .. }
            | Input::Started { container, .. }
            | Input::CreateFailed { container, .. }
            | Input::Exited { container, .. }
            | Input::Cancelled { container } => self.container(container, input, now, &mut out),
        }
        self.advance(now, &mut out);
        out
    }

    fn attached(&mut self, address: Ipv4Addr) {
        if self.place == Place::Attaching {
            self.place = Place::Attached(address);
        }
    }

    fn attach_failed(&mut self, message: &str, now: Now, out: &mut Vec<Action>) {
        if self.place == Place::Attaching {
            self.place = Place::Retry(now.tick + SANDBOX_RETRY);
            let message = format!("Failed to create pod sandbox: {message}");
            out.push(Action::Event(Notice {
                container: None,
                warning: true,
                reason: "FailedCreatePodSandBox",
                message,
            }));
        }
    }

    fn updated(&mut self, update: Update, now: Now, out: &mut Vec<Action>) {
        self.gates = update.gates;
        self.generation = update.generation;
        if self.stopping.is_none() && !self.sealed {
            let changed: Vec<_> = update.images.into_iter().enumerate().collect();
            for (index, image) in changed {
                self.replace_image(index, image, now, out);
            }
        }
        if let Some(grace) = update.deletion {
            self.stop(Cause::Deletion, grace, now, out);
        }
    }

    fn replace_image(&mut self, index: usize, image: String, now: Now, out: &mut Vec<Action>) {
        let grace = self.setup.grace;
        let Some(c) = self.containers.get_mut(index).filter(|c| c.image != image && !image.is_empty()) else { return };
        c.image = image;
        c.trouble = None;
        c.pull.reset();
        match c.step {
            Step::Pulling => {
                out.push(Action::CancelPull { container: index });
                c.step = Step::Waiting;
            }
            Step::Pulled | Step::Failed { .. } | Step::BackOff { .. } => c.step = Step::Waiting,
            Step::Running { .. } | Step::Starting => {
                c.replaced = true;
                c.restart.reset();
                c.stop_by = Some(now.tick + grace);
                let message = format!("Container {} definition changed, will be restarted", c.name);
                out.push(Action::Event(Notice { container: Some(index), warning: false, reason: "Killing", message }));
                out.push(Action::Stop { container: index, grace });
            }
            Step::Waiting | Step::Ended => {}
        }
    }

    /// Begins to end all containers, or gives those that are ending less time.
    fn stop(&mut self, cause: Cause, grace: Duration, now: Now, out: &mut Vec<Action>) {
        let by = now.tick + grace;
        let cause = match self.stopping {
            Some(Stopping { cause: Cause::Removal, .. }) => Cause::Removal,
            _ => cause,
        };
        let by = self.stopping.map_or(by, |s| s.by.min(by));
        self.stopping = Some(Stopping { cause, by });
        let grace = by.saturating_duration_since(now.tick);
        for (index, c) in self.containers.iter_mut().enumerate() {
            match c.step {
                Step::Running { .. } | Step::Starting => Self::stop_one(index, c, by, grace, out),
                Step::Pulling => {
                    out.push(Action::CancelPull { container: index });
                    c.step = Step::Ended;
                }
                _ => c.step = Step::Ended,
            }
        }
    }

    fn stop_one(index: usize, c: &mut ContainerState, by: Instant, grace: Duration, out: &mut Vec<Action>) {
        if c.stop_by.is_some_and(|before| before <= by) {
            return;
        }
        if c.stop_by.is_none() && c.running() {
            let message = format!("Stopping container {}", c.name);
            out.push(Action::Event(Notice { container: Some(index), warning: false, reason: "Killing", message }));
        }
        c.stop_by = Some(by);
        out.push(Action::Stop { container: index, grace });
    }

    fn container(&mut self, index: usize, input: Input, now: Now, out: &mut Vec<Action>) {
        let Self { setup, stopping, containers, .. } = self;
        if let Some(c) = containers.get_mut(index) {
            let stop_by = stopping.map(|s| s.by);
            c.react(input, &mut Around { index, now, stop_by, policy: setup.policy, full_name: &setup.full_name, out });
        }
    }

    /// Does what has become possible or due.
    fn advance(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.stopping.is_none() && !self.over() && self.deadline.is_some_and(|at| at <= now.tick) {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.failure = Some(("DeadlineExceeded".to_owned(), message.clone()));
            out.push(Action::Event(Notice { container: None, warning: false, reason: "DeadlineExceeded", message }));
            self.stop(Cause::Failure, self.setup.grace, now, out);
        }
        if self.over() {
            return self.settle(out);
        }
        if self.stopping.is_some() || self.block(now, out) {
            return;
        }
        match self.place {
            Place::None => self.attach(out),
            Place::Retry(at) if at <= now.tick => self.attach(out),
            Place::Attached(_) => self.run(now, out),
            _ => {}
        }
    }

    fn attach(&mut self, out: &mut Vec<Action>) {
        self.place = Place::Attaching;
        out.push(Action::Attach);
    }

    /// A pod that asks for what this node cannot do is refused, visibly, instead of being run wrongly.
    fn block(&mut self, now: Now, out: &mut Vec<Action>) -> bool {
        let Some(message) = self.setup.blocked.clone() else { return false };
        for (index, c) in self.containers.iter_mut().enumerate().filter(|(_, c)| c.step == Step::Waiting) {
            c.trouble = Some(Box::new(("CreateContainerConfigError", message.clone())));
            c.step = Step::Failed { backing_off: true, at: now.tick, retry: None };
            let message = format!("Error: {message}");
            out.push(Action::Event(Notice { container: Some(index), warning: true, reason: "Failed", message }));
        }
        true
    }

    /// Pulls, and starts in the order of the spec, what is due.
    fn run(&mut self, now: Now, out: &mut Vec<Action>) {
        let mut held_up = false;
        for (index, c) in self.containers.iter_mut().enumerate() {
            Self::due(index, c, now, out);
            if c.step == Step::Waiting {
                c.step = Step::Pulling;
                out.push(Action::Pull { container: index });
            }
            if c.step == Step::Pulled && !held_up {
                c.step = Step::Starting;
                out.push(Action::Start { container: index, attempt: c.next_attempt() });
            }
            held_up |= c.holds_up_others();
        }
    }

    fn due(index: usize, c: &mut ContainerState, now: Now, out: &mut Vec<Action>) {
        match &mut c.step {
            Step::Failed { retry: Some(retry), .. } if *retry <= now.tick => c.step = Step::Waiting,
            Step::Failed { backing_off, at, .. }
                if !*backing_off && *at + super::container::SHOW_PULL_ERROR <= now.tick =>
            {
                *backing_off = true;
                let before = c.trouble.take().map(|t| format!(": {}: {}", t.0, t.1)).unwrap_or_default();
                let message = format!("Back-off pulling image \"{}\"{before}", c.image);
                c.trouble = Some(Box::new(("ImagePullBackOff", message)));
                let message = format!("Back-off pulling image \"{}\"", c.image);
                out.push(Action::Event(Notice { container: Some(index), warning: false, reason: "BackOff", message }));
                let message = "Error: ImagePullBackOff".to_owned();
                out.push(Action::Event(Notice { container: Some(index), warning: true, reason: "Failed", message }));
            }
            Step::BackOff { until, .. } if *until <= now.tick => {
                c.restart.arm(c.ended.unwrap_or(now.tick), now.tick);
                c.step = Step::Waiting;
            }
            _ => {}
        }
    }

    /// Nothing runs and nothing will: gives back what the pod holds, once.
    fn settle(&mut self, out: &mut Vec<Action>) {
        match self.place {
            Place::Attached(address) => {
                self.place = Place::Released(Some(address));
                out.push(Action::Release);
            }
            Place::Released(_) => {}
            _ => {
                self.place = Place::Released(None);
                out.push(Action::Release);
            }
        }
        let cause = self.stopping.map(|s| s.cause);
        if !self.finished && matches!(cause, Some(Cause::Deletion | Cause::Removal)) {
            self.finished = true;
            out.push(if cause == Some(Cause::Removal) { Action::Finish } else { Action::Delete });
        } else if self.finished && cause == Some(Cause::Removal) {
            out.push(Action::Finish);
        }
    }
}

#[cfg(test)]
#[path = "state_tests/mod.rs"]
mod tests;
