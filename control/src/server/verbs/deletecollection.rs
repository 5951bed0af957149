//! Deletecollection: every object that matches, each deleted as if it were asked for by name.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::Response;
use serde_json::json;

use super::delete::{self, Admission, DeleteOptions, Outcome};
use super::list::{self, Selection};
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::ListOptions;
use crate::server::versions;

/// Deletions in flight at once: enough to share commits, few enough to leave room for others.
const AT_ONCE: usize = 64;

pub(crate) async fn delete_collection(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let tree = call.read_tree(body).await?.map(|d| d.object);
    let options = &DeleteOptions::parse(tree, &call.query)?;
    let Selection { filter, served } = list::selection(call)?;
    let call = &*call;
    let mut entries = list::page(call, &filter, &ListOptions::parse(&call.query, false)?).await?.entries;
    if !served.is_empty() {
        let shown = versions::all(&call.resource, &entries).await?;
        let mut kept = versions::with_fields(&call.resource, &served, &entries, &shown)?.into_iter();
        entries.retain(|_| kept.next().unwrap_or_default());
    }
    let deletions: Vec<_> = entries.iter().map(|entry| one(call, &entry.meta.name, options).boxed()).collect();
    let deleted: Vec<Option<Bytes>> = stream::iter(deletions).buffered(AT_ONCE).try_collect().await?;
    let items = deleted.into_iter().flatten().collect();
    let metadata = json!({"resourceVersion": call.server.cache().revision().to_string()});
    list::joined(call, &metadata, items)
}

/// Deletes one object; `None`: somebody else was faster.
async fn one(call: &Call, name: &str, options: &DeleteOptions) -> Result<Option<Bytes>, ServerError> {
    match delete::run(call, name, options, Admission::Asked).await {
        Ok(Outcome::Removed(stored) | Outcome::Waiting(stored)) => {
            Ok(Some(versions::bytes(&call.resource, stored).await?))
        }
        Err(ServerError::Api(error)) if error.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}
