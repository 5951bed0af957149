//! The end of a record: what was answered, and when.
//!
//! What must stay true: a client reads the same bytes, audited or not; an answer without an end has its event when it begins
//! and another when it ends, whichever side ends it; so has a request whose client leaves before it is answered.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::Record;
use super::event::LARGEST;
use super::policy::{Level, Stage};
use crate::server::body::{self, Body, BoxError};

/// The record of a request, if it is to have one, until its answer has ended.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    record: Option<Record>,
    /// Its answer is a stream that the client ends.
    endless: bool,
}

impl Unanswered {
    pub(crate) fn new(record: Option<Record>, endless: bool) -> Self {
        Self { record, endless }
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// There is nothing more to say of it.
    pub(crate) fn take(&mut self) -> Option<Record> {
        self.record.take()
    }

    /// Reads of an answer what is to be recorded of it, which is JSON.
    pub(crate) async fn look(&self, response: Response<Body>) -> (Looked, Response<Body>) {
        let code = response.status().as_u16();
        let endless = self.endless && code < 400;
        // A Status is a part of every event; any other answer of one that asks for it.
        let asks = |record: &Record| record.level() >= Level::RequestResponse || record.facts.deletes();
        let shown = self.record().is_some_and(|record| code >= 400 || asks(record));
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(json);
        let is_ours = response.extensions().get::<OfAnother>().is_none();
        if endless || !shown || !is_json || !is_ours {
            return (Looked { code, read: None }, response);
        }
        if length(&response).is_some_and(|bytes| bytes > LARGEST) {
            // It cannot be recorded, and what is read of it would wait here for its client.
            return (Looked { code, read: None }, response);
        }
        let (parts, inner) = response.into_parts();
        let (read, inner) = peek(inner, LARGEST).await;
        (Looked { code, read }, Response::from_parts(parts, inner))
    }

    /// Writes what was answered; the answer, in whatever form, is to be sent afterwards.
    pub(crate) async fn answered(mut self, looked: Looked, response: Response<Body>) -> Response<Body> {
        let Looked { code, read } = looked;
        let Some(record) = self.record() else { return response };
        record.facts.answered(code, read.and_then(|bytes| serde_json::from_slice(&bytes).ok()));
        if self.endless {
            let _ = record.audit.write(&record.facts, Stage::ResponseStarted).await;
        }
        if self.endless && code < 400 {
            return response.map(|inner| Watched { inner, _record: self }.boxed_unsync());
        }
        if let Some(record) = self.take() {
            let _ = record.audit.write(&record.facts, Stage::ResponseComplete).await;
        }
        response
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        // Nobody can wait here: the event is written by a task that the log's end waits for.
        if let Some(record) = self.take() {
            record.facts.left();
            drop(record.audit.begin_write(&record.facts, Stage::ResponseComplete));
        }
    }
}

/// Marks an answer of another server: what is in it is that server's to record, as in Kubernetes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfAnother;

/// What of an answer is to be recorded.
#[derive(Debug)]
pub(crate) struct Looked {
    code: u16,
    read: Option<Bytes>,
}

fn json(media: &HeaderValue) -> bool {
    media.as_bytes().starts_with(b"application/json")
}

/// Bytes that an answer has, if it says so.
fn length(response: &Response<Body>) -> Option<usize> {
    let announced = || response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).or_else(announced)
}

/// Reads a body of at most `limit` bytes; the other one is equal to it. `None`: it is longer, or broke.
async fn peek(mut body: Body, limit: usize) -> (Option<Bytes>, Body) {
    let (mut pieces, mut size) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                size += data.len();
                pieces.push(data);
            }
            Ok(Err(_)) => {}
            Err(error) => return (None, body::stream(read(pieces).chain(futures::stream::iter([Err(error)])))),
        }
        if size > limit {
            return (None, body::stream(read(pieces).chain(body.into_data_stream())));
        }
    }
    let whole = match pieces.as_slice() {
        [one] => one.clone(),
        pieces => pieces
            .iter()
            .fold(BytesMut::with_capacity(size), |mut all, piece| {
                all.extend_from_slice(piece);
                all
            })
            .freeze(),
    };
    (Some(whole.clone()), body::full(whole))
}

fn read(pieces: Vec<Bytes>) -> impl futures::Stream<Item = Result<Bytes, BoxError>> + Send {
    futures::stream::iter(pieces).map(Ok)
}

/// The body of an answer without an end, whose record ends with it.
struct Watched {
    inner: Body,
    _record: Unanswered,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
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
    use futures::FutureExt;

    use super::*;
    use crate::audit::{Mode, fixture};
    use crate::auth::{Attributes, UserInfo};

    fn pieces(list: &[&'static str]) -> Body {
        body::stream(futures::stream::iter(list.to_vec()).map(|piece| Ok(Bytes::from_static(piece.as_bytes()))))
    }

    #[tokio::test]
    async fn a_body_that_was_looked_at_is_the_same_whatever_its_length() {
        for (list, known) in [(&["abc", "def"][..], true), (&["abc", "def", "ghi", "jkl"], false), (&[], true)] {
            let (seen, body) = peek(pieces(list), 6).await;
            assert_eq!(seen.is_some(), known, "{list:?}");
            assert_eq!(body.collect().await.unwrap().to_bytes(), list.concat());
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_to_be_recorded_is_left_to_its_client() {
        let dir = tempfile::tempdir().unwrap();
        let audit = fixture::audit("rules: [{level: RequestResponse}]", &dir.path().join("log"), Mode::Blocking);
        let (request, ()) = http::Request::get("/x").body(()).unwrap().into_parts();
        let attributes = Attributes::non_resource("get", "/x");
        let record = audit.begin("1", &attributes, &request, Some(&UserInfo::admin()));
        let unanswered = Unanswered::new(record, false);
        // Whoever reads of it waits.
        let answer = |bytes: usize| {
            let body = body::stream(futures::stream::pending());
            Response::builder()
                .header(CONTENT_TYPE, "application/json")
                .header(CONTENT_LENGTH, bytes)
                .body(body)
                .unwrap()
        };
        assert!(unanswered.look(answer(LARGEST)).now_or_never().is_none());
        assert!(unanswered.look(answer(LARGEST + 1)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_body_that_breaks_breaks_for_the_client_too() {
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"abc")), Err(BoxError::from("cut"))]);
        let (seen, body) = peek(body::stream(broken), 6).await;
        assert!(seen.is_none());
        assert!(body.collect().await.is_err());
    }
}
