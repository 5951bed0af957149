//! Who is at the other end of a connection, as far as its server cares: whether it has asked anything, and whether it still
//! does. One that does not is sent away after a time, so that it takes nobody's place.
//!
//! A request pays for none of this: no clock is set for it, and who holds the [`Caller`] tells whether one is under way.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::bell::Bell;
use super::patience::Patience;

/// Holders of a [`Caller`] that serves no request: its connection's task, and the service that takes requests.
const OWNERS: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Caller {
    /// For the answers to its requests.
    pub(super) patience: Patience,
    /// Rings when it asks for the first time.
    pub(super) asked: Bell,
    /// It asked, or was being answered, since somebody looked.
    lately: AtomicBool,
}

impl Caller {
    /// A request begins. It is under way until what is returned is dropped.
    pub(super) fn asks(self: &Arc<Self>) -> Arc<Self> {
        if !self.asked.has_rung() {
            self.asked.ring();
        }
        self.lately.store(true, Ordering::Relaxed);
        Arc::clone(self)
    }

    /// Waits until no request has been under way for `limit`, twice that at most.
    pub(super) async fn gone_quiet(self: &Arc<Self>, limit: Duration) {
        let mut look = pin!(tokio::time::sleep(limit));
        loop {
            look.as_mut().await;
            let busy = Arc::strong_count(self) > OWNERS;
            if !self.lately.swap(busy, Ordering::Relaxed) && !busy {
                return;
            }
            look.as_mut().reset(Instant::now() + limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_quiet_when_it_asks_nothing_and_all_of_its_answers_were_sent() {
        let (caller, limit) = (Arc::new(Caller::default()), Duration::from_secs(10));
        let service = Arc::clone(&caller);
        let began = Instant::now();
        let mut quiet = pin!(caller.gone_quiet(limit));
        let request = service.asks();
        assert!(tokio::time::timeout(limit * 9 + limit / 2, &mut quiet).await.is_err(), "it is being answered");
        drop(request);
        assert!(quiet.as_mut().now_or_never().is_none());
        quiet.await;
        assert_eq!(began.elapsed(), limit * 11);
        assert!(caller.asked.has_rung());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_never_asks_is_quiet_from_the_start() {
        let caller = Arc::new(Caller::default());
        let (_service, began, limit) = (Arc::clone(&caller), Instant::now(), Duration::from_secs(10));
        caller.gone_quiet(limit).await;
        assert_eq!(began.elapsed(), limit);
        assert!(!caller.asked.has_rung());
    }
}
