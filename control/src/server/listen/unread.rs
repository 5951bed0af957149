//! What a handler left of a request's body, read to its end before the answer is sent.
//!
//! A client of HTTP/1.1 that still sends when the connection is closed gets an error of the network and never sees the answer,
//! which says what was wrong. HTTP/2 answers beside the body, and needs none of this.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::server::body::{Body, BoxError};
use crate::server::guard::Impatient;

/// Read at most of what nobody wants: a component that is pushed where it may not be. Who sends more than this, or slower, is
/// cut off as before.
const MOST: usize = 64 << 20;
const WITHIN: Duration = Duration::from_secs(10);

type Sent = Impatient<Incoming>;

/// Where a body comes back to that its handler dropped early; empty where it does not matter.
pub(super) struct Unread(Option<Arc<Mutex<Option<Sent>>>>);

impl Unread {
    /// A client that asks before it sends has not begun, and is not told to.
    pub(super) fn of(request: &Parts) -> Self {
        let waits = request.headers.contains_key(http::header::EXPECT);
        Self((request.version < http::Version::HTTP_2 && !waits).then(Arc::default))
    }

    pub(super) fn watch(&self, body: Sent) -> Body {
        match &self.0 {
            Some(rest) => Watched { body: Some(body), rest: Arc::clone(rest) }.boxed_unsync(),
            None => body.boxed_unsync(),
        }
    }

    /// Reads what came back.
    pub(super) async fn drain(self) {
        let rest = self.0.and_then(|rest| rest.lock().take());
        let Some(mut body) = rest else { return };
        let read = async {
            let mut room = MOST;
            while let Some(Ok(frame)) = body.frame().await {
                match room.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(left) => room = left,
                    None => break,
                }
            }
        };
        // Who takes longer has had its chance to read the answer.
        let _ = timeout(WITHIN, read).await;
    }
}

/// A body that its handler reads as far as it likes.
struct Watched {
    /// `None` once it failed or ended.
    body: Option<Sent>,
    rest: Arc<Mutex<Option<Sent>>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        *self.rest.lock() = self.body.take().filter(|body| !body.is_end_stream());
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
