//! Bodies of answers: what an instance still sends, and what is under way until it was read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio_util::task::task_tracker::TaskTrackerToken;
use wasmtime_wasi_http::WasiBody;

use crate::backend::wasm::worker::Wanted;

/// A response's body; dropping it before its end tells the instance that nobody wants the rest.
pub(in crate::backend::wasm) struct GuestBody {
    body: WasiBody,
    wanted: Option<Wanted>,
    /// Bytes to come, if the length was declared: its reader stops there without asking for the end.
    left: Option<u64>,
}

impl GuestBody {
    /// `sent`: the answer is one that has a body.
    pub(super) fn new(body: WasiBody, wanted: Wanted, sent: bool) -> Self {
        let left = body.size_hint().exact();
        let mut this = Self { body, wanted: Some(wanted), left };
        this.settle(!sent || left == Some(0));
        this
    }

    pub(super) fn text(text: &'static str) -> Self {
        let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {}).boxed_unsync();
        Self { body, wanted: None, left: None }
    }

    fn settle(&mut self, done: bool) {
        if done && let Some(wanted) = self.wanted.take() {
            wanted.delivered();
        }
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(left), Some(Ok(frame))) = (&mut self.left, &frame) {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            *left = left.saturating_sub(bytes as u64);
        }
        let done = frame.is_none() || self.left == Some(0) || self.body.is_end_stream();
        self.settle(done);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer to a guest of this node, which is under way until it was read.
pub(super) struct Visited {
    body: GuestBody,
    _visit: TaskTrackerToken,
}

impl Visited {
    pub(super) fn new(body: GuestBody, visit: TaskTrackerToken) -> Self {
        Self { body, _visit: visit }
    }
}

impl Body for Visited {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
