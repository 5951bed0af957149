//! The one body type of requests and answers, and how a request's body is read.
//!
//! What must stay true: a request's body never takes more than [`LIMIT`] bytes of memory, nor its client more than
//! [`PATIENCE`] to send it; an answer that may be large or endless is a stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::time::timeout;
use wherry_api::status::ApiError;

/// Anything that can go wrong while a body is read or made.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Bytes that a request's body may have: what Kubernetes allows.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// A client has this long to send a request's body: as long as it does, the body has room that others wait for.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The body of somebody else's answer.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    Foreign(body).map_err(Into::into).boxed_unsync()
}

/// A body that says nothing of its size: whatever was announced, nobody may take it for what is in memory already.
struct Foreign<B>(B);

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Foreign<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// A body that is made while it is sent.
pub fn stream(chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body could not be read")]
    Broken(#[source] BoxError),
}

/// Reads a body of at most `limit` bytes.
pub async fn gather(mut body: Body, limit: usize) -> Result<Bytes, GatherError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(GatherError::Broken)?.into_data() else { continue };
        if all.len() + data.len() > limit {
            return Err(GatherError::TooLarge(limit));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Why a request's body was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error("it took more than {PATIENCE:?} to arrive")]
    Late,
    /// There is no room to await it, or no turn for it afterwards.
    #[error("too many requests")]
    Crowded,
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Gather(GatherError::TooLarge(limit)) => Self::too_large(limit),
            Unread::Gather(GatherError::Broken(error)) => {
                Self::bad_request(format!("the request's body could not be read: {error}"))
            }
            Unread::Late => Self::timeout("request did not complete within the allotted timeout"),
            Unread::Crowded => crowded(),
        }
    }
}

/// 429, as Kubernetes says it.
pub(crate) fn crowded() -> ApiError {
    ApiError::too_many_requests("Too many requests, please try again later.", 1)
}

/// Reads a body of at most `limit` bytes, for as long as a client has.
pub(crate) async fn within_patience(
    reading: impl Future<Output = Result<Bytes, GatherError>>,
) -> Result<Bytes, Unread> {
    Ok(timeout(PATIENCE, reading).await.map_err(|_| Unread::Late)??)
}

/// Reads somebody's body. Errors: 413 over the limit, 400 if it stopped coming, 504 if it takes too long.
pub async fn collect(body: Body) -> Result<Bytes, ApiError> {
    Ok(within_patience(gather(body, LIMIT)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_413() {
        let fits = collect(full(vec![b' '; LIMIT])).await;
        assert_eq!(fits.map(|b| b.len()), Ok(LIMIT));
        let error = collect(full(vec![b' '; LIMIT + 1])).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (413, "RequestEntityTooLarge"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_byte_by_byte_without_end_is_given_up() {
        let drip = futures::stream::unfold((), |()| async {
            tokio::time::sleep(PATIENCE / 4).await;
            Some((Ok(Bytes::from_static(b" ")), ()))
        });
        let error = collect(stream(drip)).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (504, "Timeout"));
    }
}
