//! Who is at the other end of a connection, as far as its server cares: whether it has asked anything, whether it still does,
//! and whether it takes its answers. One that does not is sent away after a time, so that it takes nobody's place.
//!
//! A request pays for this with a few words of its connection: its connection has one clock, none is set for a request or its
//! head, and nothing is locked.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::task::coop;
use tokio::time::{Instant, Sleep};

use super::bell::Bell;
use super::patience::Patience;

/// Who holds a [`Caller`] beside its requests: its connection's task, the socket, and the service that takes them.
const OWNERS: usize = 3;

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
    /// Some of what the connection buffers was sent since somebody looked.
    sent: AtomicBool,
    /// The socket has no room for what is to be sent.
    stuck: AtomicBool,
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
    /// answers that are. Who takes the end of an answer, which the connection buffers, has that long for it as well. What a
    /// stream's window keeps of that from being sent counts as taken.
    pub(super) async fn gone_quiet(self: &Arc<Self>, limit: Duration) -> Quiet {
        let mut look = pin!(tokio::time::sleep(limit));
        let mut looks = 0;
        loop {
            rings(look.as_mut()).await;
            let awaiting = self.awaiting.load(Ordering::Relaxed) > 0;
            looks = if self.lately.swap(awaiting, Ordering::Relaxed) || awaiting { 0 } else { looks + 1 };
            let under_way = Arc::strong_count(self) > OWNERS || self.stuck.load(Ordering::Relaxed);
            let asked = self.asked.has_rung();
            // A ping's answer is sent, too: that is no reason to go on for ever.
            let slow = under_way || (self.sent.swap(false, Ordering::Relaxed) && asked);
            if looks >= if slow { SLOW } else { 1 } {
                return if under_way || !asked { Quiet::Gone } else { Quiet::Idle };
            }
            look.as_mut().reset(Instant::now() + limit);
        }
    }

    /// What became of sending something.
    fn sent(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Ready(_) => {
                self.sent.store(true, Ordering::Relaxed);
                self.stuck.store(false, Ordering::Relaxed);
            }
            Poll::Pending => self.stuck.store(true, Ordering::Relaxed),
        }
    }
}

/// A caller's socket.
#[derive(Debug)]
pub(super) struct Wire<S> {
    socket: S,
    caller: Arc<Caller>,
}

impl<S> Wire<S> {
    pub(super) fn new(socket: S, caller: &Arc<Caller>) -> Self {
        Self { socket, caller: Arc::clone(caller) }
    }
}

impl<S: Read + Unpin> Read for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: Write + Unpin> Write for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.caller.sent(&outcome);
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.caller.sent(&outcome);
        outcome
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

    /// As its connection's task, its socket and its service have it.
    fn caller() -> [Arc<Caller>; OWNERS] {
        let caller = Arc::<Caller>::default();
        [(); OWNERS].map(|()| Arc::clone(&caller))
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_never_asks_has_gone_and_one_that_asks_no_more_is_idle() {
        let ([caller, service, _socket], began) = (caller(), Instant::now());
        assert_eq!((caller.gone_quiet(LIMIT).await, began.elapsed()), (Quiet::Gone, LIMIT));
        drop(service.asks());
        assert_eq!((caller.gone_quiet(LIMIT).await, began.elapsed()), (Quiet::Idle, 3 * LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_its_connection_busy_and_then_says_nothing_has_gone_too() {
        let ([caller, _service, _socket], began) = (caller(), Instant::now());
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
        let ([caller, service, _socket], began) = (caller(), Instant::now());
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
        let ([caller, service, _socket], began) = (caller(), Instant::now());
        let mut answer = service.asks().answer(Full::new(Bytes::from_static(b"all")));
        let mut quiet = pin!(caller.gone_quiet(LIMIT));
        assert!(tokio::time::timeout(LIMIT * SLOW + LIMIT / 2, &mut quiet).await.is_err(), "it asked just before");
        assert!(answer.frame().await.unwrap().is_ok());
        assert_eq!((quiet.await, began.elapsed()), (Quiet::Gone, LIMIT * (2 * SLOW + 1)));
    }
    #[tokio::test(start_paused = true)]
    async fn who_takes_the_end_of_an_answer_slowly_is_no_idler_and_who_takes_nothing_of_it_has_gone() {
        let ([caller, service, _socket], began) = (caller(), Instant::now());
        drop(service.asks());
        let mut quiet = pin!(caller.gone_quiet(LIMIT));
        assert!(tokio::time::timeout(LIMIT / 2, &mut quiet).await.is_err());
        for _ in 0..SLOW {
            service.sent(&Poll::Ready(Ok(1)));
            assert!(tokio::time::timeout(LIMIT, &mut quiet).await.is_err());
        }
        service.sent(&Poll::Ready(Ok(1)));
        assert_eq!((quiet.await, began.elapsed()), (Quiet::Idle, LIMIT * (1 + SLOW)));
        drop(service.asks());
        service.sent(&Poll::Pending);
        assert_eq!((caller.gone_quiet(LIMIT).await, began.elapsed()), (Quiet::Gone, LIMIT * (2 + 2 * SLOW)));
    }

    #[tokio::test]
    async fn a_socket_tells_whether_its_caller_takes_what_is_sent() {
        let [caller, service, _socket] = caller();
        let (server, mut client) = tokio::io::duplex(8);
        let mut wire = Wire::new(hyper_util::rt::TokioIo::new(server), &service);
        let mut write =
            async || poll_fn(|cx| Poll::Ready(Pin::new(&mut wire).poll_write(cx, b"answer").is_ready())).await;
        let told = || (caller.sent.swap(false, Ordering::Relaxed), caller.stuck.load(Ordering::Relaxed));
        assert!(write().await && write().await);
        assert_eq!(told(), (true, false));
        assert!(!write().await);
        assert_eq!(told(), (false, true));
        tokio::io::AsyncReadExt::read_exact(&mut client, &mut [0; 8]).await.unwrap();
        assert!(write().await);
        assert_eq!(told(), (true, false));
    }
}
