//! Deletecollection: every object that matches, each deleted as if it were asked for by name.

use futures::{StreamExt, TryStreamExt, stream};
use http::Response;
use serde_json::json;

use super::delete::{self, DeleteOptions, Outcome};
use super::list;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::ListOptions;

/// Deletions in flight at once: enough to share commits, few enough to leave room for others.
const AT_ONCE: usize = 64;

pub(crate) async fn delete_collection(call: &mut Call, body: Body) -> Result<Response<Body>, ServerError> {
    let tree = call.read_tree(body).await?.map(|d| d.object);
    let options = &DeleteOptions::parse(tree, &call.query)?;
    let filter = list::filter(call)?;
    let call = &*call;
    let page = list::page(call, &filter, &ListOptions::parse(&call.query, false)?).await?;
    let deletions = stream::iter(page.entries).map(|entry| async move {
        match delete::run(call, &entry.meta.name, options).await {
            Ok(Outcome::Removed(stored) | Outcome::Waiting(stored)) => Ok(Some(stored.bytes)),
            // Somebody else was faster.
            Err(ServerError::Api(error)) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    });
    let items = deletions.buffered(AT_ONCE).try_filter_map(|d| async move { Ok(d) }).try_collect().await?;
    let metadata = json!({"resourceVersion": call.server.cache().revision().to_string()});
    list::joined(call, &metadata, items)
}
