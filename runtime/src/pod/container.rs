//! One container's life as the pod's state machine sees it: where it stands, how it ended last, when to try again.
//!
//! No I/O and no clock: what happened and when is told to it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::backend::Exit;

/// How long `ErrImagePull` is shown before `ImagePullBackOff` takes its place.
pub(super) const SHOW_PULL_ERROR: Duration = Duration::from_secs(2);

/// Where a container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waits for the pod's sandbox.
    Waiting,
    /// Its image is being made ready.
    Pulling,
    /// Its image is ready; waits until the containers before it were started.
    Pulled,
    /// The backend was asked to start it.
    Starting,
    /// It could not be created (image, configuration, backend); tried again at `retry`.
    Failed {
        backing_off: bool,
        at: Instant,
        retry: Option<Instant>,
    },
    Running {
        id: String,
        since: Timestamp,
    },
    /// It ended and waits to be started again.
    BackOff {
        delay: Duration,
        until: Instant,
    },
    /// It ended for good, or (while the pod ends) will not be started again.
    Ended,
}

/// How an instance of the container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub exit: Exit,
    pub started_at: Option<Timestamp>,
    /// `wasm://…`, empty if it never started.
    pub id: String,
}

/// The instances of a container whose logs can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    pub newest: Option<u32>,
    /// What `--previous` means now.
    pub previous: Option<u32>,
    /// Why there is no newest one yet.
    pub waiting: &'static str,
}

/// One container of the pod.
#[derive(Clone, Debug)]
pub struct ContainerState {
    pub name: String,
    pub image: String,
    /// As the image store resolved it; shown as `imageID`.
    pub image_id: String,
    pub step: Step,
    /// Why it could not be created when that was tried last: shown until it runs, also while it is tried again.
    pub(super) trouble: Option<Box<(&'static str, String)>>,
    /// The number of the newest instance: `restartCount`.
    pub restarts: u32,
    /// Whether the instance numbered `restarts` has existed.
    pub(super) existed: bool,
    /// How the newest instance ended, and the one before it.
    pub last: Option<Box<Ended>>,
    pub before_last: Option<Box<Ended>>,
    pub(super) restart: Backoff,
    pub(super) pull: Backoff,
    /// When the newest instance ended, on the timers' clock.
    pub(super) ended: Option<Instant>,
    /// It is being stopped, until when it may take its time.
    pub(super) stop_by: Option<Instant>,
    /// Its image was changed while it ran: it is started again whatever the restart policy says.
    pub(super) replaced: bool,
}

impl ContainerState {
    pub fn new(name: &str, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            image_id: String::new(),
            step: Step::Waiting,
            trouble: None,
            restarts: 0,
            existed: false,
            last: None,
            before_last: None,
            restart: Backoff::default(),
            pull: Backoff::default(),
            ended: None,
            stop_by: None,
            replaced: false,
        }
    }

    /// The number of the instance that is started next.
    pub fn next_attempt(&self) -> u32 {
        if self.existed { self.restarts + 1 } else { self.restarts }
    }

    /// Which instances have a log to read.
    pub fn instances(&self) -> Instances {
        let newest = self.existed.then_some(self.restarts);
        let over = matches!(self.step, Step::Running { .. } | Step::Ended);
        let previous = if over { newest.and_then(|n| n.checked_sub(1)) } else { newest };
        let waiting = match self.step {
            Step::Running { .. } | Step::Ended => "",
            _ => self.trouble.as_ref().map_or("ContainerCreating", |t| t.0),
        };
        Instances { newest, previous, waiting }
    }

    pub fn running(&self) -> bool {
        matches!(self.step, Step::Running { .. })
    }

    /// Whether the containers after it have to wait for it: its first start is still to come and nothing went wrong yet.
    pub(super) fn holds_up_others(&self) -> bool {
        !self.existed && matches!(self.step, Step::Waiting | Step::Pulling | Step::Pulled | Step::Starting)
    }

    /// Its newest instance ended.
    pub(super) fn end(&mut self, ended: Ended, now: Instant) {
        self.before_last = self.last.take();
        self.last = Some(Box::new(ended));
        self.ended = Some(now);
        self.stop_by = None;
        self.step = Step::Ended;
    }

    /// When it needs attention next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        match &self.step {
            Step::Failed { backing_off: false, at, retry: Some(retry), .. } => {
                Some((*at + SHOW_PULL_ERROR).min(*retry))
            }
            Step::Failed { retry, .. } => *retry,
            Step::BackOff { until, .. } => Some(*until),
            _ => None,
        }
    }
}
