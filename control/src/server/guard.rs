//! What a connection knows of its bodies: a request that stops sending ends, a watch ends when the server stops, as long as an
//! answer is being sent the connection is not idle, and whether its client takes what is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::body::{Body, BoxError};

/// A client stopped sending in the middle of its request.
#[derive(Debug, thiserror::Error)]
#[error("no data of the request's body arrived for {0:?}")]
pub(crate) struct Stalled(Duration);

/// A request's body that fails when nothing arrives for a while.
#[derive(Debug)]
pub(crate) struct Impatient<B> {
    inner: B,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<B> Impatient<B> {
    pub(crate) fn new(inner: B, patience: Duration) -> Self {
        Self { inner, patience, deadline: Box::pin(sleep(patience)), waiting: false }
    }
}

impl<B> HttpBody for Impatient<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // The clock runs only while somebody wants to read.
        if !this.waiting {
            this.waiting = true;
            this.deadline.as_mut().reset(Instant::now() + this.patience);
        }
        ready!(this.deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(Stalled(this.patience).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response's body that ends, cleanly, when the server stops: for watches and followed logs, which have no end.
pub(crate) struct UntilStop {
    inner: Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl UntilStop {
    pub(crate) fn new(inner: Body, stop: CancellationToken) -> Self {
        Self { inner, stop: Box::pin(stop.cancelled_owned()) }
    }
}

impl HttpBody for UntilStop {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }
}

/// How many requests a connection has had and has answered to the end, and whose turn it is to do something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Requests for which the server is to do something next.
    awaiting: AtomicU64,
    /// Some of an answer was taken since somebody looked.
    taken: AtomicBool,
}

impl Activity {
    /// A request begins; it ends when what is returned is dropped.
    pub(crate) fn begin(&self) -> Busy {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.awaiting.fetch_add(1, Ordering::Relaxed);
        Busy { counts: Arc::clone(&self.0), awaiting: true }
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }

    /// Whether all of them have been answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.ended.load(Ordering::Relaxed) == self.requests()
    }

    /// Whether the client keeps the server waiting: since the last look nothing was taken of any answer, and none awaits the
    /// server. Of an answer's end, as much of it as the connection buffers counts as taken.
    pub(crate) fn is_stuck(&self) -> bool {
        !self.0.taken.swap(false, Ordering::Relaxed) && self.0.awaiting.load(Ordering::Relaxed) == 0
    }
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct Busy {
    counts: Arc<Counts>,
    awaiting: bool,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.goes_on(false);
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Busy {
    /// Something of it was done; whether the server is to do what comes next.
    fn goes_on(&mut self, awaiting: bool) {
        self.counts.taken.store(true, Ordering::Relaxed);
        match (std::mem::replace(&mut self.awaiting, awaiting), awaiting) {
            (true, false) => self.counts.awaiting.fetch_sub(1, Ordering::Relaxed),
            (false, true) => self.counts.awaiting.fetch_add(1, Ordering::Relaxed),
            (true, true) | (false, false) => 0,
        };
    }

    /// The request ends with its answer's body.
    pub(crate) fn until_end_of<B>(mut self, body: B) -> Held<B> {
        self.goes_on(false);
        Held { inner: body, busy: self }
    }
}

/// A body that holds something until it has been sent.
#[derive(Debug)]
pub(crate) struct Held<B> {
    inner: B,
    busy: Busy,
}

impl<B: HttpBody + Unpin> HttpBody for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        self.busy.goes_on(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    #[tokio::test]
    async fn a_request_that_stops_sending_fails() {
        let never = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>());
        let error = Impatient::new(never, Duration::from_millis(1)).collect().await.err().unwrap();
        assert!(error.is::<Stalled>());
    }

    #[tokio::test]
    async fn who_takes_nothing_is_stuck_and_who_waits_for_more_is_not() {
        let (activity, (events, sent)) = (Activity::default(), futures::channel::mpsc::unbounded());
        let request = activity.begin();
        assert!(!activity.is_stuck(), "it awaits its answer");
        let mut answer = request.until_end_of(StreamBody::new(sent));
        let frame = |text: &'static str| Ok::<_, BoxError>(Frame::data(Bytes::from_static(text.as_bytes())));
        assert!(!activity.is_stuck(), "it has just come");
        assert!(activity.is_stuck());
        events.unbounded_send(frame("an event")).unwrap();
        answer.frame().await.unwrap().unwrap();
        assert_eq!([activity.is_stuck(), activity.is_stuck()], [false, true], "it has taken one, and not the next");
        assert!(futures::poll!(answer.frame()).is_pending());
        assert_eq!([activity.is_stuck(), activity.is_stuck()], [false, false], "it waits for an event");
        drop(answer);
        assert_eq!([activity.is_stuck(), activity.is_stuck()], [false, true]);
    }

    #[tokio::test]
    async fn a_watch_ends_cleanly_when_the_server_stops() {
        let never = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>()).boxed_unsync();
        let stop = CancellationToken::new();
        let body = UntilStop::new(never, stop.clone());
        stop.cancel();
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }
}
