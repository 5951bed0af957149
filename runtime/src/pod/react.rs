//! How one container answers to what happened to it. An answer to something that was given up meanwhile changes nothing.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::container::{ContainerState, Ended, Step};
use super::state::{Action, Input, Notice, Now, RestartPolicy};
use crate::backend::Exit;

/// How long until a container whose configuration is not there yet is tried again.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// What a container knows of its pod while it answers.
pub(super) struct Around<'a> {
    pub(super) index: usize,
    pub(super) now: Now,
    /// The pod ends, by then.
    pub(super) stop_by: Option<Instant>,
    pub(super) policy: RestartPolicy,
    pub(super) full_name: &'a str,
    pub(super) out: &'a mut Vec<Action>,
}

impl Around<'_> {
    fn say(&mut self, warning: bool, reason: &'static str, message: String) {
        self.out.push(Action::Event(Notice { container: Some(self.index), warning, reason, message }));
    }
}

impl ContainerState {
    /// Takes what happened to it.
    pub(super) fn react(&mut self, input: Input, around: &mut Around<'_>) {
        match (input, &self.step) {
            (Input::ImageReady { id, .. }, Step::Pulling) => self.image_ready(id, around.now),
            (Input::ImageFailed { reason, message, .. }, Step::Pulling) => self.image_failed(reason, message, around),
            (Input::CreateFailed { reason, message, .. }, Step::Starting) => {
                self.create_failed(reason, message, around);
            }
            (Input::Started { id, at, .. }, Step::Starting) => self.started(id, at, around),
            (Input::Exited { exit, .. }, Step::Running { .. } | Step::Starting) => self.exited(exit, around),
            (Input::Cancelled { .. }, Step::Starting) => self.cancelled(around),
            _ => {}
        }
    }

    fn image_ready(&mut self, id: String, now: Now) {
        self.image_id = id;
        // Only a failed pull arms this: what was shown was about the pull, and is over.
        if self.pull.wait(now.tick).is_some() {
            self.trouble = None;
        }
        self.pull.reset();
        self.step = Step::Pulled;
    }

    fn image_failed(&mut self, reason: &'static str, message: String, around: &mut Around<'_>) {
        let now = around.now.tick;
        self.pull.arm(now, now);
        let text = match message.strip_prefix("failed to pull image") {
            Some(rest) => format!("Failed to pull image{rest}"),
            None => message.clone(),
        };
        around.say(true, if reason == "ErrImageNeverPull" { reason } else { "Failed" }, text);
        around.say(true, "Failed", format!("Error: {reason}"));
        let retry = self.pull.wait(now).map(|delay| now + delay);
        self.trouble = Some(Box::new((reason, message)));
        self.step = Step::Failed { backing_off: reason != "ErrImagePull", at: now, retry };
    }

    fn create_failed(&mut self, reason: &'static str, message: String, around: &mut Around<'_>) {
        around.say(true, "Failed", format!("Error: {message}"));
        if around.stop_by.is_some() {
            self.step = Step::Ended;
            return;
        }
        let now = around.now.tick;
        let delay = if reason == "CreateContainerConfigError" {
            CONFIG_RETRY
        } else {
            self.restart.arm(now, now);
            self.restart.wait(now).unwrap_or(CONFIG_RETRY)
        };
        self.trouble = Some(Box::new((reason, message)));
        self.step = Step::Failed { backing_off: true, at: now, retry: Some(now + delay) };
    }

    fn started(&mut self, id: String, at: Timestamp, around: &mut Around<'_>) {
        self.begin_instance();
        self.step = Step::Running { id, since: at };
        around.say(false, "Started", "Container started".to_owned());
        // It was to be stopped while it started.
        if let Some(by) = self.stop_by.or(around.stop_by) {
            self.stop_by = Some(by);
            let grace = by.saturating_duration_since(around.now.tick);
            around.out.push(Action::Stop { container: around.index, grace });
        }
    }

    fn exited(&mut self, exit: Exit, around: &mut Around<'_>) {
        let (id, started_at) = if let Step::Running { id, since } = &self.step {
            (id.clone(), Some(*since))
        } else {
            around.say(true, "Failed", format!("Error: {}", exit.message));
            self.begin_instance();
            (String::new(), None)
        };
        let again = std::mem::take(&mut self.replaced) || around.policy.restarts(exit.code);
        let now = around.now.tick;
        self.end(Ended { exit, started_at, id }, now);
        if around.stop_by.is_some() || !again {
            return;
        }
        match self.restart.wait(now) {
            None => {
                self.restart.arm(now, now);
                self.step = Step::Waiting;
            }
            Some(delay) => {
                self.step = Step::BackOff { delay, until: now + delay };
                let (name, pod) = (&self.name, around.full_name);
                let text = format!("Back-off restarting failed container {name} in pod {pod}");
                around.say(true, "BackOff", text);
            }
        }
    }

    fn cancelled(&mut self, around: &Around<'_>) {
        self.stop_by = None;
        let again = std::mem::take(&mut self.replaced) && around.stop_by.is_none();
        self.step = if again { Step::Waiting } else { Step::Ended };
    }

    /// The next instance exists from now on.
    fn begin_instance(&mut self) {
        self.restarts = self.next_attempt();
        self.existed = true;
        self.trouble = None;
    }
}
