//! A guest's stdout and stderr, written to its container's log with backpressure.
//!
//! At most one write per stream is under way; until the log has taken it the guest's stream is not writable, so a guest
//! that floods its log waits for the log and holds one chunk of memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::guests::Place;
use crate::backend::{LogSink, Stream};

/// Bytes of one write; what a stream buffers at most.
const CHUNK: usize = 64 << 10;

/// One output stream of a guest. Clones are the same stream.
#[derive(Clone)]
pub(super) struct Pipe(Arc<Inner>);

struct Inner {
    sink: Arc<dyn LogSink>,
    stream: Stream,
    /// Learns that the guest floods its log.
    place: Arc<Place>,
    /// The write under way.
    pending: Mutex<Option<BoxFuture<'static, ()>>>,
    /// Who waits for it to end. At most one per handle of the guest, which its resource table bounds.
    waiters: Mutex<Vec<Waker>>,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        for waiter in waiters {
            waiter.wake();
        }
    }
}

impl Pipe {
    pub(super) fn new(sink: Arc<dyn LogSink>, stream: Stream, place: Arc<Place>) -> Self {
        Self(Arc::new(Inner { sink, stream, place, pending: Mutex::new(None), waiters: Mutex::new(Vec::new()) }))
    }

    /// Waits until the log has taken everything.
    pub(super) async fn drained(&self) {
        std::future::poll_fn(|cx| self.poll_room(cx)).await;
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pending = self.0.pending.lock();
        let Some(write) = pending.as_mut() else { return Poll::Ready(()) };
        {
            let mut waiters = self.0.waiters.lock();
            if !waiters.iter().any(|w| w.will_wake(cx.waker())) {
                waiters.push(cx.waker().clone());
            }
        }
        let waker = Waker::from(Arc::clone(&self.0));
        if write.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.0.place.flood();
            return Poll::Pending;
        }
        *pending = None;
        drop(pending);
        self.0.wake_by_ref();
        Poll::Ready(())
    }

    fn has_room(&self) -> bool {
        self.poll_room(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Starts a write; the caller has seen room.
    fn send(&self, bytes: Bytes) {
        let (sink, stream) = (Arc::clone(&self.0.sink), self.0.stream);
        *self.0.pending.lock() = Some(Box::pin(async move { sink.write(stream, bytes).await }));
        // Most writes end at once.
        let _ = self.has_room();
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {
        self.drained().await;
    }
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if !bytes.is_empty() {
            self.send(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.has_room() { CHUNK } else { 0 })
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_room(cx));
        let chunk = buf.get(..CHUNK).unwrap_or(buf);
        self.send(Bytes::copy_from_slice(chunk));
        Poll::Ready(Ok(chunk.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_room(cx).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
