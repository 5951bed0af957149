//! Answers in other forms than JSON, in which everything is made: YAML and CBOR, the latter also as a sequence of events.
//!
//! What must stay true: whoever accepts JSON never comes here; an answer is turned into another form as a whole, apart
//! from the threads that serve everybody if it is large.

mod yaml;

use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;
use wherry_api::cbor;
use wherry_api::status::ApiError;

use super::answer;
use super::body::{self, Body};
use super::error::ServerError;
use super::heavy::Heavy;
use super::negotiate::{Accepted, Media};
use super::unsent::Room;

const CBOR: HeaderValue = HeaderValue::from_static("application/cbor");
const CBOR_SEQUENCE: HeaderValue = HeaderValue::from_static("application/cbor-seq");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");

/// An answer in the accepted form. `events`: a success is a watch, whose body has a line in each frame. `room`: of an answer that
/// may be refused.
pub(super) async fn present(
    (heavy, user): (&Heavy, &str),
    accepted: Accepted,
    events: bool,
    room: Option<&Room>,
    response: Response<Body>,
) -> Result<Response<Body>, ServerError> {
    if accepted.media == Media::Json || response.headers().get(CONTENT_TYPE) != Some(&answer::JSON) {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let length = parts.headers.remove(CONTENT_LENGTH);
    if events && parts.status.is_success() {
        parts.headers.insert(CONTENT_TYPE, CBOR_SEQUENCE);
        let sequence = body.into_data_stream().and_then(|line| async move { Ok(event(&line)?) });
        return Ok(Response::from_parts(parts, body::stream(sequence)));
    }
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    if let (Some(room), Some(length)) = (room, length.or_else(|| body.size_hint().exact())) {
        room.foresee(usize::try_from(length).unwrap_or(usize::MAX))?;
    }
    let mut pieces = body.collect().await.map_err(ApiError::internal)?.aggregate();
    let size = pieces.remaining();
    let made = heavy.run(user, size, || encode(accepted.media, &pieces.copy_to_bytes(size))).await?;
    let media = if accepted.media == Media::Cbor { CBOR } else { YAML };
    parts.headers.insert(CONTENT_TYPE, media);
    Ok(answer::packed(accepted.gzip, Response::from_parts(parts, made)))
}

fn encode(media: Media, text: &[u8]) -> Result<Bytes, ServerError> {
    let tree = answer::parse(text)?;
    match media {
        Media::Cbor => Ok(tagged(&tree).into()),
        Media::Yaml => Ok(yaml::document(&tree).into()),
        Media::Json => Ok(Bytes::copy_from_slice(text)),
    }
}

fn tagged(tree: &Value) -> Vec<u8> {
    [&cbor::SELF_DESCRIBED[..], &cbor::encode(tree)].concat()
}

/// An event of a watch. The object in it is a whole body, tag included.
fn event(line: &[u8]) -> Result<Bytes, ServerError> {
    let event = answer::parse(line)?;
    let part = |name: &str| event.get(name).unwrap_or(&Value::Null);
    let mut out = cbor::SELF_DESCRIBED.to_vec();
    cbor::head_of_map(2, &mut out);
    cbor::entry("type", &cbor::encode(part("type")), &mut out);
    cbor::entry("object", &tagged(part("object")), &mut out);
    Ok(out.into())
}
