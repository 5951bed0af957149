//! How long an answer is awaited: one timer serves the requests of a connection one after the other.
//!
//! To set a timer anew for later costs nothing that others share; to make and to drop one takes the lock of the runtime's
//! timers twice.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// The timer that the last request left, if none has it now. It may still ring for that one: its next owner looks at the time.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<Option<Pin<Box<Sleep>>>>);

impl Patience {
    /// What `work` returns, or `None` if that takes longer than `limit`.
    pub(super) async fn within<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        let mut timer = self.timer(limit);
        let mut work = pin!(work);
        let done = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
        })
        .await;
        if done.is_some() {
            *self.0.lock() = Some(timer);
        }
        done
    }

    fn timer(&self, limit: Duration) -> Pin<Box<Sleep>> {
        let kept = self.0.lock().take();
        match kept {
            Some(mut timer) => {
                timer.as_mut().reset(Instant::now() + limit);
                timer
            }
            None => Box::pin(tokio::time::sleep(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_request_has_its_own_time_whoever_had_the_timer_before() {
        let (patience, limit) = (Patience::default(), Duration::from_secs(10));
        let asked = Instant::now();
        assert_eq!(patience.within(limit, ready(1)).await, Some(1));
        assert_eq!(patience.within(limit, tokio::time::sleep(limit / 2)).await, Some(()));
        assert_eq!(patience.within(limit, tokio::time::sleep(limit / 2)).await, Some(()));
        assert_eq!(asked.elapsed().as_secs(), 10);
        assert_eq!(patience.within(limit, pending::<()>()).await, None);
        assert_eq!(asked.elapsed().as_secs(), 20);
        assert_eq!(patience.within(limit, ready(2)).await, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_the_same_time_have_a_timer_each() {
        let (patience, limit) = (Patience::default(), Duration::from_secs(10));
        let late = patience.within(limit, pending::<()>());
        let good = patience.within(limit * 2, tokio::time::sleep(limit + limit / 2));
        assert_eq!(tokio::join!(late, good), (None, Some(())));
    }
}
