//! `GET /backup`: a consistent copy of the state, as a stream, for who may read everything.

use std::path::{Path, PathBuf};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use tokio_util::io::ReaderStream;
use wherry_api::status::ApiError;

use super::Server;
use super::body::{self, Body, BoxError};
use super::error::ServerError;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Read from disk at once.
const READ: usize = 256 * 1024;

/// Where a server has no folder for the copy, there is no such path.
pub(super) async fn respond(server: &Server) -> Result<Response<Body>, ServerError> {
    let Some(folder) = &server.config().scratch else { return Err(ApiError::no_such_path().into()) };
    let copy = Copy(folder.join(format!("backup-{:016x}", rand::random::<u64>())));
    server.store().backup(&copy.0).await?;
    let (file, size) = open(&copy.0).await.map_err(ServerError::Backup)?;
    // The file's name is gone before its first byte is sent; the open file keeps its contents.
    drop(copy);
    let stream = ReaderStream::with_capacity(file, READ);
    let body = body::stream(futures::TryStreamExt::map_err(stream, BoxError::from));
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, OCTETS);
    response.headers_mut().insert(CONTENT_LENGTH, size.into());
    Ok(response)
}

async fn open(path: &Path) -> std::io::Result<(tokio::fs::File, u64)> {
    let file = tokio::fs::File::open(path).await?;
    let size = file.metadata().await?.len();
    Ok((file, size))
}

/// A copy that is removed whatever happens.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "a backup's temporary file is left");
        }
    }
}
