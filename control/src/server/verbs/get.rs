//! Get: one object from the cache, which shows every acknowledged write.

use http::{Response, StatusCode};

use crate::cache::CacheError;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::query::ListOptions;
use crate::server::write::Stored;
use crate::server::{answer, versions};

pub(crate) async fn get(call: &Call) -> Result<Response<Body>, ServerError> {
    // A revision of the future is refused, as for a list; any other one is satisfied by the latest state.
    if let Some(asked) = ListOptions::parse(&call.query, false)?.version {
        let current = call.server.cache().revision();
        if asked > current {
            return Err(CacheError::TooLarge { asked, current }.into());
        }
    }
    let stored = find(call)?;
    let bytes = versions::bytes(&call.resource, stored).await?;
    let size = bytes.len();
    call.room.foresee(size)?;
    call.apart(size, || answer::object(call.accepted, &call.resource, StatusCode::OK, bytes)).await
}

/// The object that the path names. Error: 404.
pub(crate) fn find(call: &Call) -> Result<Stored, ServerError> {
    Ok(call.find(&call.info.name)?)
}
