//! Answers that are in memory as a whole until their clients have read them.
//!
//! What must stay true: what is held so is bounded, as bodies that come in are ([`Intake`]): for each user and altogether, and
//! who holds most gives way; it counts until the last of its bytes has left for the client, or the client has gone. An answer
//! of less than [`FROM`] bytes costs nothing here: every stream may hold as much of a list.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::body::{self, Body};
use super::error;
use super::intake::{Held, Intake};
use super::listen::Connection;

/// Bytes of an answer that is counted.
const FROM: u64 = 64 << 10;
/// Bytes of all of them. A larger one than a user may have counts as so much.
const TOTAL: usize = 256 << 20;
/// Of one user's.
const OF_USER: usize = 64 << 20;

/// Answers that wait to be sent. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Unsent(Intake);

/// What was made, and its place until the last byte of it is dropped.
struct Whole {
    bytes: Bytes,
    _place: Held,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Unsent {
    pub(super) fn new() -> Self {
        Self(Intake::bounded(TOTAL, OF_USER))
    }

    /// The answer with a place for its bytes. `None`: there is none. This process reads what it asks for. After a write
    /// (`done`) the client must be told, if need be in the place of older answers to the same user: a refusal would say that
    /// nothing was done.
    pub(super) async fn hold(
        &self,
        to: Option<&Arc<Connection>>,
        done: bool,
        response: Response<Body>,
    ) -> Option<Response<Body>> {
        let Some(connection) = to else { return Some(response) };
        let size = response.body().size_hint().exact().filter(|&size| size >= FROM);
        let Some(size) = size else { return Some(response) };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(OF_USER);
        let take = if done { Intake::press } else { Intake::hold };
        let place = take(&self.0, connection.owner(), size, connection.closing())?;
        let (parts, body) = response.into_parts();
        // It is there already.
        Some(match body.collect().await {
            Ok(read) => {
                let whole = Whole { bytes: read.to_bytes(), _place: place };
                Response::from_parts(parts, body::full(Bytes::from_owner(whole)))
            }
            Err(failure) => error::respond(&wherry_api::status::ApiError::internal(failure).into()),
        })
    }
}
