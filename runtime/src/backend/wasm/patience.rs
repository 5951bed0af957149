//! How long something is awaited: one timer serves the answers that a connection awaits one after the other.
//!
//! To set a timer anew for later costs nothing that others share; to make and to drop one takes the lock of the runtime's
//! timers twice.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// The timer that the last wait left, if none has it now. It may still ring for that one: its next owner looks at the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Patience {
    /// What `work` returns, or `None` if that takes longer than `limit`.
    pub(super) async fn within<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        let mut end = self.until(Instant::now() + limit);
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Pin::new(&mut end).poll(cx).map(|()| None),
        })
        .await
    }

    fn until(&self, deadline: Instant) -> Until {
        let kept = self.0.lock().take();
        let timer = match kept {
            Some(mut timer) => {
                timer.as_mut().reset(deadline);
                timer
            }
            None => Box::pin(tokio::time::sleep_until(deadline)),
        };
        Until { timer: Some(timer), home: self.clone() }
    }
}

/// Ready at a time. Dropping it leaves its timer to the next.
struct Until {
    timer: Option<Pin<Box<Sleep>>>,
    home: Patience,
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(cx))
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        let timer = self.timer.take();
        *self.home.0.lock() = timer;
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
