//! Who is at the other end of a connection, as far as its server cares: whether it has asked anything, whether it still does,
//! and whether it takes its answers. One that does not is sent away after a time, so that it takes nobody's place.
//!
//! A request pays for this with a few words of its connection: its connection has one clock, none is set for a request, and
//! nothing is locked.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use super::bell::Bell;
use super::patience::Patience;

/// Who holds a [`Caller`] beside its requests: its connection's task, and the service that takes them.
const OWNERS: usize = 2;

/// Who takes nothing of an answer has so many times as long as who asks nothing: it may be slow.
const SLOW: u32 = 4;

/// A client's connection.
#[derive(Debug, Default)]
pub(super) struct Caller {
    /// For the answers to its requests.
    pub(super) patience: Patience,
    /// Rings when it asks for the first time.
    pub(super) asked: Bell,
    /// Requests that await something of the guest. Others that are under way have an answer that is not sent to the end.
    awaiting: AtomicUsize,
    /// It asked, or took some of an answer, since somebody looked.
    lately: AtomicBool,
}

/// A request from when it begins until its answer was sent, or is of no use any more.
#[derive(Debug)]
pub(super) struct Asked {
    caller: Arc<Caller>,
    awaiting: bool,
}

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// Nothing is under way; it may be about to ask.
    Idle,
    /// It never asked, or takes none of its answers.
    Gone,
}

impl Caller {
    /// A request begins, which awaits the guest.
    pub(super) fn asks(self: &Arc<Self>) -> Asked {
        if !self.asked.has_rung() {
            self.asked.ring();
        }
        let mut asked = Asked { caller: Arc::clone(self), awaiting: false };
        asked.goes_on(true);
        asked
    }

    /// Waits until for `limit`, twice that at most, nothing has been under way, or [`SLOW`] times as long nothing was taken of
    /// answers that are. Of these the end, as much of it as the connection buffers, counts as taken.
    pub(super) async fn gone_quiet(self: &Arc<Self>, limit: Duration) -> Quiet {
        let mut look = pin!(tokio::time::sleep(limit));
        let mut looks = 0;
        loop {
            rings(look.as_mut()).await;
            let awaiting = self.awaiting.load(Ordering::Relaxed) > 0;
            looks = if self.lately.swap(awaiting, Ordering::Relaxed) || awaiting { 0 } else { looks + 1 };
            let idle = Arc::strong_count(self) <= OWNERS;
            match looks {
                1.. if idle && self.asked.has_rung() => return Quiet::Idle,
                1.. if idle => return Quiet::Gone,
                SLOW.. => return Quiet::Gone,
                _ => look.as_mut().reset(Instant::now() + limit),
            }
        }
    }
}

impl Asked {
    pub(super) fn patience(&self) -> &Patience {
        &self.caller.patience
    }

    /// Something of it was done; whether that which comes next is the guest's to do.
    fn goes_on(&mut self, awaiting: bool) {
        self.caller.lately.store(true, Ordering::Relaxed);
        if self.awaiting != awaiting {
            self.awaiting = awaiting;
            if awaiting {
                self.caller.awaiting.fetch_add(1, Ordering::Relaxed);
            } else {
                self.caller.awaiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// What is sent as its answer.
    pub(super) fn answer<B>(mut self, body: B) -> Answer<B> {
        self.goes_on(false);
        Answer { body, asked: self }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.goes_on(false);
    }
}

/// The body of an answer, which knows who has to do something for the next of it.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    asked: Asked,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.asked.goes_on(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits for a timer, which costs a poll one read until it rings.
async fn rings(mut timer: Pin<&mut Sleep>) {
    let mut registered = None;
    poll_fn(|cx| {
        if registered.as_ref().is_some_and(|waker| cx.waker().will_wake(waker)) && !timer.is_elapsed() {
            return Poll::Pending;
        }
        registered = Some(cx.waker().clone());
        // Also when the connection has used up its task's turn: the timer would not be set, and never ring.
        Pin::new(&mut coop::unconstrained(timer.as_mut())).poll(cx)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// As its connection's task and its service have it.
    fn caller() -> [Arc<Caller>; 2] {
        let caller = Arc::<Caller>::default();
        [Arc::clone(&caller), caller]
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_never_asks_has_gone_and_one_that_asks_no_more_is_idle() {
        let ([caller, service], began) = (caller(), Instant::now());
        assert_eq!((caller.gone_quiet(LIMIT).await, began.elapsed()), (Quiet::Gone, LIMIT));
        drop(service.asks());
        assert_eq!((caller.gone_quiet(LIMIT).await, began.elapsed()), (Quiet::Idle, 3 * LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_its_connection_busy_and_then_says_nothing_has_gone_too() {
        let ([caller, _service], began) = (caller(), Instant::now());
        let mut quiet = pin!(caller.gone_quiet(LIMIT));
        let looked = poll_fn(|cx| {
            while coop::has_budget_remaining() {
                assert!(pin!(coop::consume_budget()).poll(cx).is_ready());
            }
            quiet.as_mut().poll(cx)
        });
        assert_eq!(tokio::time::timeout(LIMIT * 2, looked).await.ok(), Some(Quiet::Gone));
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn who_awaits_the_guest_is_not_quiet() {
        let ([caller, service], began) = (caller(), Instant::now());
        let mut quiet = pin!(caller.gone_quiet(LIMIT));
        let request = service.asks();
        assert!(tokio::time::timeout(LIMIT * 9 + LIMIT / 2, &mut quiet).await.is_err());
        let silent = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, ()>>());
        let mut answer = request.answer(silent);
        assert!(answer.frame().now_or_never().is_none());
        assert!(tokio::time::timeout(LIMIT * 9, &mut quiet).await.is_err());
        drop(answer);
        assert_eq!((quiet.await, began.elapsed()), (Quiet::Idle, LIMIT * 20));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_has_gone_after_a_while() {
        let ([caller, service], began) = (caller(), Instant::now());
        let mut answer = service.asks().answer(Full::new(Bytes::from_static(b"all")));
        let mut quiet = pin!(caller.gone_quiet(LIMIT));
        assert!(tokio::time::timeout(LIMIT * SLOW + LIMIT / 2, &mut quiet).await.is_err(), "it asked just before");
        assert!(answer.frame().await.unwrap().is_ok());
        assert_eq!((quiet.await, began.elapsed()), (Quiet::Gone, LIMIT * (2 * SLOW + 1)));
    }
}
