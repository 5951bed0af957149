//! `GET /backup`: a consistent copy of the state, as a stream, for who may read everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio_util::io::ReaderStream;
use wherry_api::status::ApiError;

use crate::auth::{Attributes, Authorizer, Decision, UserInfo};
use crate::server::Server;
use crate::server::body::{self, Body, BoxError};
use crate::server::error::{ServerError, respond};
use crate::server::listen::Handler;
use crate::store::Store;

const PATH: &str = "/backup";
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Read from disk at once.
const READ: usize = 256 * 1024;

/// The server, with backups beside it.
pub(super) fn with_backup(
    server: Server,
    store: Arc<dyn Store>,
    authorizer: Arc<dyn Authorizer>,
    data_dir: PathBuf,
) -> Arc<dyn Handler> {
    Arc::new(WithBackup { server, store, authorizer, data_dir })
}

struct WithBackup {
    server: Server,
    store: Arc<dyn Store>,
    authorizer: Arc<dyn Authorizer>,
    data_dir: PathBuf,
}

#[async_trait]
impl Handler for WithBackup {
    async fn handle(&self, request: Request<Body>, user: UserInfo) -> Response<Body> {
        if request.uri().path() != PATH || request.method() != Method::GET {
            return self.server.handle(request, user).await;
        }
        match self.backup(&user).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a backup failed");
                respond(&error)
            }
        }
    }
}

impl WithBackup {
    async fn backup(&self, user: &UserInfo) -> Result<Response<Body>, ServerError> {
        let attributes = Attributes::non_resource("get", PATH);
        if let Decision::Deny(reason) = self.authorizer.authorize(user, &attributes).await {
            return Err(ApiError::forbidden(None, "", attributes.forbidden_by(user, &reason)).into());
        }
        let copy = Copy(self.data_dir.join(format!("backup-{:016x}", rand::random::<u64>())));
        self.store.backup(&copy.0).await?;
        let (file, size) = open(&copy.0).await.map_err(|error| ServerError::Node(BoxError::from(error)))?;
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
