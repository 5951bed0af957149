//! The wait before a container is started again, or an image pulled again.
//!
//! As the kubelet's: the first failure arms the wait and is not delayed by it (a restart) or is (a pull), each further one
//! doubles it up to five minutes, and ten minutes without a failure forget it.

use std::time::Duration;

use tokio::time::Instant;

const INITIAL: Duration = Duration::from_secs(10);
const MAXIMUM: Duration = Duration::from_mins(5);
const FORGET: Duration = Duration::from_mins(10);

/// One thing's failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    armed: Option<Armed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Armed {
    delay: Duration,
    since: Instant,
}

impl Backoff {
    /// How long after a failure at `failed` the next try has to wait; `None` when it may start at once.
    pub fn wait(&self, failed: Instant) -> Option<Duration> {
        self.live(failed).map(|armed| armed.delay)
    }

    /// Records that a next try begins at `now` after a failure at `failed`: the wait after the next failure is longer.
    pub fn arm(&mut self, failed: Instant, now: Instant) {
        let delay = self.live(failed).map_or(INITIAL, |armed| (armed.delay * 2).min(MAXIMUM));
        self.armed = Some(Armed { delay, since: now });
    }

    /// Forgets all failures (the pull succeeded, the container was changed).
    pub fn reset(&mut self) {
        self.armed = None;
    }

    fn live(&self, failed: Instant) -> Option<Armed> {
        self.armed.filter(|armed| failed.saturating_duration_since(armed.since) <= FORGET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn doubles_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        assert_eq!(backoff.wait(now), None);
        let mut waits = Vec::new();
        for _ in 0..8 {
            backoff.arm(now, now);
            waits.push(backoff.wait(now).unwrap_or_default().as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn ten_minutes_of_running_forget_the_failures() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        backoff.arm(now, now);
        backoff.arm(now, now);
        assert_eq!(backoff.wait(now + Duration::from_secs(599)), Some(Duration::from_secs(20)));
        assert_eq!(backoff.wait(now + Duration::from_secs(601)), None);
    }
}
