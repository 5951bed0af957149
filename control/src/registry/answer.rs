//! What the registry answers: statuses, headers and bodies of the distribution protocol.

use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LINK, LOCATION, RANGE};
use http::{Response, StatusCode, response};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{Answer, DOCKER_DIGEST, Digest, Repository};
use crate::server::body::{self, Body};

/// Read from disk at once while a blob is sent.
const READ: usize = 64 * 1024;

const UPLOAD_ID: &str = "docker-upload-uuid";

pub(super) fn base() -> Answer {
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/json")
        .header("docker-distribution-api-version", "registry/2.0");
    Ok(response.body(body::full("{}"))?)
}

pub(super) fn empty(status: StatusCode) -> Answer {
    Ok(Response::builder().status(status).header(CONTENT_LENGTH, 0).body(body::empty())?)
}

pub(super) fn created(location: String, digest: &Digest) -> response::Builder {
    Response::builder()
        .status(StatusCode::CREATED)
        .header(LOCATION, location)
        .header(DOCKER_DIGEST, digest.to_string())
        .header(CONTENT_LENGTH, 0)
}

pub(super) fn progress(status: StatusCode, repository: &Repository, id: &str, written: u64) -> Answer {
    let response = Response::builder()
        .status(status)
        .header(LOCATION, format!("/v2/{repository}/blobs/uploads/{id}"))
        .header(RANGE, format!("0-{}", written.saturating_sub(1)))
        .header(UPLOAD_ID, id);
    Ok(response.body(body::empty())?)
}

pub(super) fn listing(value: &serde_json::Value, link: Option<String>) -> Answer {
    list_of("application/json", value, link, Response::builder())
}

pub(super) fn list_of(
    media_type: &str,
    value: &serde_json::Value,
    link: Option<String>,
    response: response::Builder,
) -> Answer {
    let mut response = response.header(CONTENT_TYPE, media_type);
    if let Some(link) = link {
        response = response.header(LINK, link);
    }
    Ok(response.body(body::full(value.to_string()))?)
}

pub(super) fn file_body(file: tokio::fs::File, length: u64) -> Body {
    let stream = ReaderStream::with_capacity(file.take(length), READ).map_ok(http_body::Frame::data);
    BodyExt::map_err(StreamBody::new(stream), Into::into).boxed_unsync()
}
