//! A container's life: its tasks, how they are told to end, and how it ended.
//!
//! What must stay true: every task of a container is spawned here and ends when the container is killed; the first end
//! is the one that counts.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::bell::Bell;
use super::guests::{Place, Placed, Threads};
use crate::backend::Exit;
use crate::fault;

/// Exit code of a container that was killed, by limit or by deadline.
pub(super) const KILLED: i32 = 137;

/// Exit code of a guest that trapped, as of a process that aborted.
pub(super) const TRAPPED: i32 = 134;

/// Exit code of a command that was told to end: WASI has no signals, so it ends as a process without a handler does.
pub(super) const TERMINATED: i32 = 143;

#[derive(Debug)]
pub(super) struct Life {
    threads: Threads,
    tasks: TaskTracker,
    /// Listeners and connections: what is waited for when the container drains.
    front: TaskTracker,
    /// Calls of guests of this node, which have no connection.
    visits: TaskTracker,
    drain: Bell,
    kill: Bell,
    ended: CancellationToken,
    exit: OnceLock<Exit>,
}

impl Life {
    pub(super) fn new(threads: Threads) -> Self {
        Self {
            threads,
            tasks: TaskTracker::new(),
            front: TaskTracker::new(),
            visits: TaskTracker::new(),
            drain: Bell::default(),
            kill: Bell::default(),
            ended: CancellationToken::new(),
            exit: OnceLock::new(),
        }
    }

    /// Runs a guest until it ends or the container is killed: in front, or in the lane if `place` says so.
    pub(super) fn spawn_guest(&self, place: Arc<Place>, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.track_future(self.until_killed(task));
        Placed::start(Box::pin(task), place, self.threads.clone());
    }

    /// Runs a listener or a connection, which drains before the container ends.
    pub(super) fn spawn_front(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.front.spawn_on(self.until_killed(task), &self.threads.front);
    }

    /// Leave to bring new work, unless none is to be taken; while it is held, the container waits to end.
    pub(super) fn welcome(&self) -> Option<TaskTrackerToken> {
        // The token first: a drain that begins now waits for it.
        let token = self.front.token();
        (!self.drain.has_rung()).then_some(token)
    }

    fn until_killed<F>(&self, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = self.kill.until(task);
        async move {
            task.await;
        }
    }

    /// The threads of connections.
    pub(super) fn handle(&self) -> &Handle {
        &self.threads.front
    }

    /// Rings when no new work is to be taken.
    pub(super) fn drain(&self) -> &Bell {
        &self.drain
    }

    /// Whether every task is to be dropped: one that is polled may still go on for a moment.
    pub(super) fn is_killed(&self) -> bool {
        self.kill.has_rung()
    }

    /// Drops every task.
    pub(super) fn kill(&self) {
        self.kill.ring();
    }

    /// Ends the container; the first call decides how.
    pub(super) fn end(&self, exit: Exit) {
        // A later end is not the cause.
        let _ = self.exit.set(exit);
        self.drain.ring();
        self.kill.ring();
        self.ended.cancel();
    }

    /// Waits for the end and for every task.
    pub(super) async fn wait(&self) -> Exit {
        self.ended.cancelled().await;
        for tasks in [&self.front, &self.tasks] {
            tasks.close();
            tasks.wait().await;
        }
        self.exit.get().cloned().unwrap_or_else(|| exit(KILLED, "Error", ""))
    }

    /// Takes no more work from outside and waits until its connections have ended.
    pub(super) async fn drained(&self) {
        self.drain.ring();
        self.front.close();
        self.front.wait().await;
    }

    /// Held while a guest of this node is answered.
    pub(super) fn visit(&self) -> TaskTrackerToken {
        self.visits.token()
    }

    /// The same as [`Life::drained`], and no guest is answered any more; `false` if `grace` was too short.
    pub(super) async fn left(&self, grace: Duration) -> bool {
        let left = async {
            self.drained().await;
            self.visits.close();
            self.visits.wait().await;
        };
        tokio::time::timeout(grace, left).await.is_ok()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.kill.ring();
        self.ended.cancel();
    }
}

/// An end, now.
pub(super) fn exit(code: i32, reason: &str, message: impl Into<String>) -> Exit {
    Exit {
        code,
        reason: reason.to_owned(),
        message: fault::cut(message.into(), fault::STATUS),
        finished_at: Timestamp::now(),
    }
}

/// The end of a container that needed more memory than its limit.
pub(super) fn out_of_memory(limit: u64) -> Exit {
    exit(KILLED, "OOMKilled", format!("the guest needed more than its memory limit of {}", binary(limit)))
}

/// Bytes in the largest binary unit of which they are a whole number, as a manifest gives them: `16Mi`.
fn binary(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let whole = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_container_ended_is_told_in_as_much_as_the_kubelet_does() {
        assert_eq!(exit(128, "ContainerCannotRun", "x".repeat(1 << 20)).message.len(), 4096);
    }

    #[test]
    fn a_memory_limit_is_told_in_the_unit_of_its_manifest() {
        let told = [16 << 20, 1 << 30, 1536 << 20, 100 << 10, 1000, 0].map(binary);
        assert_eq!(told, ["16Mi", "1Gi", "1536Mi", "100Ki", "1000 bytes", "0 bytes"]);
    }
}
