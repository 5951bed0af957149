//! A pod's story: the state machine with a clock of its own, what it is told, and how its status reads.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use super::super::*;
use crate::pod::recover::Lost;
use crate::pod::status::{Host, Transitions, status};

/// A pod and a clock of its own.
pub(super) struct Story {
    pub(super) pod: PodState,
    pub(super) transitions: Transitions,
    pub(super) start: (Timestamp, Instant),
    pub(super) elapsed: Duration,
}

impl Story {
    pub(super) fn new(policy: RestartPolicy, containers: &[&str]) -> Self {
        Self::with(policy, containers, |_| {})
    }

    pub(super) fn with(policy: RestartPolicy, containers: &[&str], change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            full_name: "web_default(u1)".to_owned(),
            policy,
            grace: Duration::from_secs(30),
            deadline: None,
            containers: containers.iter().map(|name| ((*name).to_owned(), "img:1".to_owned())).collect(),
            blocked: None,
        };
        change(&mut setup);
        let start = ("2026-01-01T00:00:00Z".parse().unwrap_or_default(), Instant::now());
        let now = Now { wall: start.0, tick: start.1 };
        Self {
            pod: PodState::new(setup, start.0, now),
            transitions: Transitions::default(),
            start,
            elapsed: Duration::ZERO,
        }
    }

    pub(super) fn now(&self) -> Now {
        let wall = self.start.0 + self.elapsed;
        Now { wall, tick: self.start.1 + self.elapsed }
    }

    pub(super) fn tell(&mut self, input: Input) -> Vec<String> {
        let now = self.now();
        self.pod.step(input, now).iter().map(describe).collect()
    }

    /// Lets time pass, with the ticks that become due.
    pub(super) fn pass(&mut self, seconds: u64) -> Vec<String> {
        let until = self.elapsed + Duration::from_secs(seconds);
        let mut actions = Vec::new();
        while let Some(due) = self.pod.next_wake() {
            let due = due.saturating_duration_since(self.start.1);
            if due > until {
                break;
            }
            self.elapsed = self.elapsed.max(due);
            actions.extend(self.tell(Input::Tick));
        }
        self.elapsed = until;
        actions
    }

    pub(super) fn run(&mut self) {
        self.tell(Input::Begin);
        self.tell(Input::Attached([127, 1, 0, 1].into()));
        for index in 0..self.pod.containers().len() {
            self.image(index);
        }
        for index in 0..self.pod.containers().len() {
            self.started(index);
        }
    }

    pub(super) fn image(&mut self, container: usize) -> Vec<String> {
        self.tell(Input::ImageReady { container, id: "img@sha256:1".to_owned() })
    }

    pub(super) fn started(&mut self, container: usize) -> Vec<String> {
        let at = self.now().wall;
        self.tell(Input::Started { container, id: format!("wasm://{container}"), at })
    }

    pub(super) fn exit(&mut self, container: usize, code: i32) -> Vec<String> {
        let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
        let exit = Exit { code, reason, message: String::new(), finished_at: self.now().wall };
        self.tell(Input::Exited { container, exit })
    }

    /// Starts again after an end, if the machine says so: pulls and starts.
    pub(super) fn restarted(&mut self, container: usize) {
        self.image(container);
        self.started(container);
    }

    pub(super) fn delete(&mut self, seconds: u64) -> Vec<String> {
        self.tell(Input::Updated(Update { deletion: Some(Duration::from_secs(seconds)), ..Update::default() }))
    }

    pub(super) fn status(&mut self) -> PodStatus {
        let (now, host) = (self.now(), Host { address: "127.0.0.1".to_owned() });
        status(&self.pod, &mut self.transitions, &host, Some("Burstable"), now)
    }

    pub(super) fn phase(&mut self) -> String {
        self.status().phase.unwrap_or_default()
    }

    pub(super) fn container(&mut self, index: usize) -> ContainerStatus {
        self.status().container_statuses.unwrap_or_default().into_iter().nth(index).unwrap_or_default()
    }

    /// `running`, `terminated:CODE:REASON` or `waiting:REASON:MESSAGE`.
    pub(super) fn shown(&mut self, index: usize) -> String {
        let state = self.container(index).state.unwrap_or_default();
        if let Some(waiting) = state.waiting {
            return format!("waiting:{}:{}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default());
        }
        match state.terminated {
            Some(ended) => format!("terminated:{}:{}", ended.exit_code, ended.reason.unwrap_or_default()),
            None => "running".to_owned(),
        }
    }

    /// `True`, or `False:REASON:MESSAGE`.
    pub(super) fn condition(&mut self, kind: &str) -> String {
        let conditions = self.status().conditions.unwrap_or_default();
        let Some(found) = conditions.into_iter().find(|c| c.type_ == kind) else { return String::new() };
        match found.status.as_str() {
            "True" => "True".to_owned(),
            _ => format!("False:{}:{}", found.reason.unwrap_or_default(), found.message.unwrap_or_default()),
        }
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Attach => "attach".to_owned(),
        Action::Pull { container } => format!("pull {container}"),
        Action::Start { container, attempt } => format!("start {container} #{attempt}"),
        Action::CancelPull { container } => format!("cancel pull {container}"),
        Action::Stop { container, grace } => format!("stop {container} {}s", grace.as_secs()),
        Action::Release => "release".to_owned(),
        Action::Delete => "delete".to_owned(),
        Action::Finish => "finish".to_owned(),
        Action::Event(notice) => format!("event {}: {}", notice.reason, notice.message),
    }
}

pub(super) fn without_events(actions: Vec<String>) -> Vec<String> {
    actions.into_iter().filter(|action| !action.starts_with("event")).collect()
}

fn kept(story: &mut Story) -> (PodStatus, Setup) {
    (story.status(), story.pod.setup.clone())
}

/// The pod as a new process finds it.
pub(super) fn after_restart(story: &mut Story) -> Story {
    let (status, setup) = kept(story);
    let policy = setup.policy;
    let mut next = Story::with(policy, &[], |fresh| *fresh = setup);
    next.start.0 = story.now().wall;
    let now = next.now();
    next.pod.recover(&status, |_| None, Lost::Restart, now);
    next
}
