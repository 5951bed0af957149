//! `/openapi/v3` and `/openapi/v2`: the documents that are derived from the registry, and those of other servers, as
//! compressed bytes.

use std::sync::{Arc, OnceLock};

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use wherry_api::schema::{Document, openapi_v2, openapi_v2_protobuf, openapi_v3, openapi_v3_index};
use wherry_api::status::ApiError;

use super::Served;
use super::body::{self, Body};
use super::error::ServerError;
use super::negotiate;
use super::query::Query;

/// How kubectl asks for version 2 (with an `@`, where the answer has a dot): to validate a `kind: List` on its own side, and
/// until 1.26 to validate and explain anything.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Documents about everything that is served, made on first use.
#[derive(Debug, Default)]
pub(super) struct Merged {
    index: OnceLock<Document>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

/// Answers a GET below `/openapi/`. A document is made on first use, away from the threads that serve requests.
pub(crate) async fn respond(
    served: &Arc<Served>,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, ServerError> {
    let (served, wanted) = (Arc::clone(served), path.trim_end_matches('/').to_owned());
    let protobuf = wanted == "/openapi/v2" && wants_protobuf(headers);
    let document = tokio::task::spawn_blocking(move || find(&served, &wanted, protobuf)).await?;
    let document = document.ok_or_else(ApiError::no_such_path)?;
    if !protobuf && !negotiate::accepts_json(headers) {
        return Err(negotiate::only_json().into());
    }
    let etag = format!("\"{}\"", document.etag);
    // A link of the index names the document's hash: what it shows never changes.
    let cache = match query.get("hash") {
        Some(hash) if hash == document.etag => "public, max-age=31536000, immutable",
        _ => "no-cache, private",
    };
    let builder =
        Response::builder().header(ETAG, &etag).header(CACHE_CONTROL, cache).header(VARY, "Accept, Accept-Encoding");
    if negotiate::has(headers, &etag) {
        return Ok(builder.status(StatusCode::NOT_MODIFIED).body(body::empty())?);
    }
    let media = if protobuf { PROTOBUF } else { "application/json" };
    let builder = builder.header(CONTENT_TYPE, HeaderValue::from_static(media));
    if negotiate::accepts_gzip(headers) {
        return Ok(builder.header(CONTENT_ENCODING, "gzip").body(body::full(document.gzip))?);
    }
    let text = tokio::task::spawn_blocking(move || document.plain()).await?;
    Ok(builder.body(body::full(text))?)
}

/// Whether the client takes version 2 in protobuf and not in JSON.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let asked = |value: &HeaderValue| value.to_str().is_ok_and(|v| v.contains("proto-openapi.spec.v2"));
    headers.get_all(ACCEPT).iter().any(asked) && !negotiate::accepts_json(headers)
}

fn find(served: &Served, path: &str, protobuf: bool) -> Option<Document> {
    let (registry, remotes, merged) = (&served.registry, &served.remotes, &served.openapi);
    let one = |group: &str, version: &str| match remotes.find(group, version) {
        Some(remote) => remote.document().cloned(),
        None => openapi_v3(registry, group, version),
    };
    match path.strip_prefix("/openapi/")? {
        "v2" if protobuf => {
            Some(merged.v2_protobuf.get_or_init(|| openapi_v2_protobuf(registry, &remotes.foreign())).clone())
        }
        "v2" => Some(merged.v2.get_or_init(|| openapi_v2(registry, &remotes.foreign())).clone()),
        "v3" => Some(merged.index.get_or_init(|| openapi_v3_index(registry, &remotes.foreign())).clone()),
        rest => {
            let parts: Vec<&str> = rest.split('/').collect();
            match parts.as_slice() {
                ["v3", "api", version] => one("", version),
                ["v3", "apis", group, version] => one(group, version),
                _ => None,
            }
        }
    }
}
