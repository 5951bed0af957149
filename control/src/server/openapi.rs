//! `/openapi/v3` and `/openapi/v2`: the documents that are derived from the registry, as compressed bytes.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use wherry_api::registry::Registry;
use wherry_api::schema::{Document, openapi_v2, openapi_v3, openapi_v3_index};
use wherry_api::status::ApiError;

use super::body::{self, Body};
use super::error::ServerError;
use super::negotiate;
use super::query::Query;

/// What kubectl asks for to validate a `kind: List` on its own side, which it does whatever the server offers.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A version 2 document in protobuf that defines nothing (`swagger` and `info.title`): kubectl then leaves each object of
/// the list to the server's validation, which knows better.
const PROTOBUF_DOCUMENT: &[u8] = b"\x0a\x032.0\x12\x08\x0a\x06Wherry";

/// Answers a GET below `/openapi/`. A document is made on first use, away from the threads that serve requests.
pub(crate) async fn respond(
    registry: &Registry,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, ServerError> {
    if path.trim_end_matches('/') == "/openapi/v2" && wants_protobuf(headers) {
        return Ok(Response::builder().header(CONTENT_TYPE, PROTOBUF).body(body::full(PROTOBUF_DOCUMENT))?);
    }
    let (kinds, wanted) = (registry.clone(), path.trim_end_matches('/').to_owned());
    let document = tokio::task::spawn_blocking(move || find(&kinds, &wanted)).await?;
    let document = document.ok_or_else(ApiError::no_such_path)?;
    if !negotiate::accepts_json(headers) {
        return Err(ApiError::not_acceptable("only the following media types are accepted: application/json").into());
    }
    let etag = format!("\"{}\"", document.etag);
    // A link of the index names the document's hash: what it shows never changes.
    let cache = match query.get("hash") {
        Some(hash) if hash == document.etag => "public, max-age=31536000, immutable",
        _ => "no-cache, private",
    };
    let builder =
        Response::builder().header(ETAG, &etag).header(CACHE_CONTROL, cache).header(VARY, "Accept, Accept-Encoding");
    if matches(headers, &etag) {
        return Ok(builder.status(StatusCode::NOT_MODIFIED).body(body::empty())?);
    }
    let builder = builder.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if negotiate::accepts_gzip(headers) {
        return Ok(builder.header(CONTENT_ENCODING, "gzip").body(body::full(document.gzip))?);
    }
    Ok(builder.body(body::full(document.plain()))?)
}

/// Whether the client takes version 2 in protobuf and not in JSON. Clients write it with an `@` where the answer has a dot.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let asked = |value: &HeaderValue| value.to_str().is_ok_and(|v| v.contains("proto-openapi.spec.v2"));
    headers.get_all(ACCEPT).iter().any(asked) && !negotiate::accepts_json(headers)
}

fn find(registry: &Registry, path: &str) -> Option<Document> {
    match path.strip_prefix("/openapi/")? {
        "v2" => Some(openapi_v2(registry)),
        "v3" => Some(openapi_v3_index(registry)),
        rest => {
            let parts: Vec<&str> = rest.split('/').collect();
            match parts.as_slice() {
                ["v3", "api", version] => openapi_v3(registry, "", version),
                ["v3", "apis", group, version] => openapi_v3(registry, group, version),
                _ => None,
            }
        }
    }
}

fn matches(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|v| v.trim().trim_start_matches("W/"))
        .any(|v| v == etag || v == "*")
}
