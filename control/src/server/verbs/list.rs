//! List: a page of stored bytes, joined while it is sent.
//!
//! What must stay true: a LIST of plain objects is never a tree and never one buffer; all pages of one list come from
//! one snapshot, and an expired one is said with a token that continues anyway.

use std::io::Write;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::selector::{FieldSelector, LabelSelector};
use wherry_api::status::ApiError;
use wherry_api::table::IncludeObject;

use crate::cache::{At, CacheError, Entry, Filter, List};
use crate::server::answer::{self, COMPRESS_FROM};
use crate::server::body::{self, Body, BoxError};
use crate::server::call::Call;
use crate::server::error::ServerError;
use crate::server::negotiate::Form;
use crate::server::query::{ListOptions, Match};
use crate::server::versions;
use crate::store::{Key, Revision};

/// Bytes that are gathered before they are handed to the connection.
const CHUNK: usize = 64 * 1024;

/// Bytes of a row of a table, or of an object's metadata, which few have more of.
const ROW: usize = 2 * 1024;

/// Bytes that compressing takes as long as it lasts.
const PACKER: usize = 320 * 1024;

/// What a `continue` token says. Opaque to clients.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The snapshot; 0: whatever there is.
    rv: Revision,
    /// The last key of the page before.
    start: String,
}

const TOKEN_VERSION: &str = "wherry/v1";

impl Token {
    fn new(rv: Revision, start: &Key) -> Self {
        Self { v: TOKEN_VERSION.into(), rv, start: start.as_str().to_owned() }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn decode(text: &str, prefix: &str) -> Result<Self, ApiError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token: Option<Self> = bytes.and_then(|b| serde_json::from_slice(&b).ok());
        token
            .filter(|t| t.v == TOKEN_VERSION && t.start.starts_with(prefix))
            .ok_or_else(|| ApiError::bad_request("continue key is not valid: it is not one of this list"))
    }
}

/// What a list, watch or deletecollection is about.
pub(crate) struct Selection {
    /// By what the cache knows.
    pub(crate) filter: Filter,
    /// By what only an object in the version of the request tells: what the filter lets through is judged by these as well.
    pub(crate) served: FieldSelector,
}

pub(crate) fn selection(call: &Call) -> Result<Selection, ApiError> {
    let labels = call.query.get("labelSelector").map(LabelSelector::parse).transpose()?.unwrap_or_default();
    let mut fields: FieldSelector = match call.query.get("fieldSelector") {
        Some(text) => FieldSelector::parse(&call.resource, text)?,
        None => FieldSelector::default(),
    };
    // A watch of one object by its path: the authorizer was asked about that one, so nothing may widen it.
    if !call.info.name.is_empty() {
        if !fields.is_empty() {
            return Err(ApiError::bad_request(
                "both a name and a field selector provided; please provide one or the other.",
            ));
        }
        fields = FieldSelector::parse(&call.resource, &format!("metadata.name={}", call.info.name))?;
    }
    let (fields, served) =
        if call.resource.may_change_fields() { fields.split() } else { (fields, FieldSelector::default()) };
    let namespaced = call.resource.namespaced() && !call.info.namespace.is_empty();
    let filter = Filter { namespace: namespaced.then(|| call.info.namespace.clone()), labels, fields };
    Ok(Selection { filter, served })
}

pub(crate) async fn list(call: &Call) -> Result<Response<Body>, ServerError> {
    let options = ListOptions::parse(&call.query, false)?;
    let Selection { filter, served } = selection(call)?;
    let mut page = page(call, &filter, &options).await?;
    if !served.is_empty() {
        page.remaining = None;
    }
    let metadata = metadata(&page);
    let size: usize = page.entries.iter().map(|entry| entry.bytes.len()).sum();
    let count = page.entries.len();
    let is_joined = call.accepted.form == Form::Object && !call.accepted.pretty;
    let shown = match call.accepted.form {
        Form::Object if is_joined => kept(call, &page.entries, size),
        Form::Object | Form::Table { include: IncludeObject::Object, .. } => size,
        Form::Table { .. } | Form::Metadata { .. } => size.min(count * ROW),
    };
    call.room.foresee(shown)?;
    let mut items = versions::all(&call.resource, &page.entries).await?;
    if !served.is_empty() {
        let mut kept = versions::with_fields(&call.resource, &served, &page.entries, &items)?.into_iter();
        items.retain(|_| kept.next().unwrap_or_default());
    }
    if is_joined {
        return joined(call, &metadata, items);
    }
    let made = || match call.accepted.form {
        Form::Object => pretty(call, &metadata, &items),
        Form::Table { .. } => table(call, metadata, &items),
        Form::Metadata { version } => partial(call, version, &metadata, &items),
    };
    call.apart(size, made).await
}

/// What a list of these objects keeps until it is sent, but for the objects that the cache has as they are. `size`: bytes of all.
fn kept(call: &Call, entries: &[Arc<Entry>], size: usize) -> usize {
    let converted = entries.iter().filter(|entry| !call.resource.serves_as_stored(entry.revision));
    let converted: usize = converted.map(|entry| entry.bytes.len()).sum();
    let packer = if call.accepted.packs() && size >= COMPRESS_FROM { PACKER } else { 0 };
    entries.len() * size_of::<Bytes>() + converted + packer
}

/// One page, as the options ask.
pub(crate) async fn page(call: &Call, filter: &Filter, options: &ListOptions) -> Result<List, ServerError> {
    let prefix = Key::prefix(&call.resource.storage_resource());
    let token = options.continue_token.as_deref().map(|text| Token::decode(text, &prefix)).transpose()?;
    if token.is_some() && options.version.is_some_and(|v| v != 0) {
        let message = "specifying resource version is not allowed when using continue";
        return Err(ApiError::bad_request(message).into());
    }
    let at = match (&token, options.version, options.version_match) {
        (Some(Token { rv: 0, .. }), ..) | (None, None | Some(0), _) => At::Latest,
        (Some(token), ..) => At::Exact(token.rv),
        (None, Some(version), Some(Match::Exact)) => At::Exact(version),
        (None, Some(version), _) => At::NotOlderThan(version),
    };
    let after = token.as_ref().map(|t| Key::from_stored(&t.start));
    let result = call.server.cache().list(&call.resource, filter, at, after.as_ref(), options.limit).await;
    match (result, &after) {
        (Err(CacheError::Expired { .. }), Some(after)) => {
            Err(ServerError::ContinueExpired { token: Token::new(0, after).encode() })
        }
        (result, _) => Ok(result?),
    }
}

/// `metadata` of the list.
fn metadata(page: &List) -> Value {
    let mut meta = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        object::set_at(&mut meta, "continue", Token::new(page.revision, next).encode());
        if let Some(remaining) = page.remaining {
            object::set_at(&mut meta, "remainingItemCount", remaining);
        }
    }
    meta
}

/// A list as a concatenation of its stored items.
pub(crate) fn joined(call: &Call, metadata: &Value, items: Vec<Bytes>) -> Result<Response<Body>, ServerError> {
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        call.resource.list_kind,
        call.resource.api_version(),
    );
    let commas = items.len().saturating_sub(1);
    let length = head.len() + TAIL.len() + commas + items.iter().map(Bytes::len).sum::<usize>();
    let builder = answer::head(StatusCode::OK);
    let chunks = Chunks { head: Some(head), tail: Some(TAIL), items: items.into_iter(), first: true };
    if call.accepted.packs() && length >= COMPRESS_FROM {
        let builder = builder.header(CONTENT_ENCODING, "gzip").header(VARY, "Accept-Encoding");
        return Ok(builder.body(compressed(chunks))?);
    }
    let body = body::stream(stream::iter(chunks.map(Ok)));
    Ok(builder.header(CONTENT_LENGTH, length).body(body)?)
}

/// What follows the items.
const TAIL: &str = "]}\n";

/// The list's text in pieces of about [`CHUNK`].
struct Chunks {
    head: Option<String>,
    tail: Option<&'static str>,
    items: std::vec::IntoIter<Bytes>,
    first: bool,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.tail?;
        let head = self.head.take().unwrap_or_default();
        let (mut size, mut count) = (head.len(), 0);
        for item in self.items.as_slice() {
            if size >= CHUNK {
                break;
            }
            size += item.len() + 1;
            count += 1;
        }
        let tail = if count == self.items.len() { self.tail.take().unwrap_or_default() } else { "" };
        // No larger than what it holds: that is what it counts for.
        let mut chunk = BytesMut::with_capacity(size + tail.len());
        chunk.extend_from_slice(head.as_bytes());
        for item in self.items.by_ref().take(count) {
            if !std::mem::take(&mut self.first) {
                chunk.extend_from_slice(b",");
            }
            chunk.extend_from_slice(&item);
        }
        chunk.extend_from_slice(tail.as_bytes());
        Some(chunk.freeze())
    }
}

fn compressed(chunks: Chunks) -> Body {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let pieces = stream::iter(chunks.map(Some).chain([None])).scan(Some(encoder), |state, chunk| {
        let piece = match (state.as_mut(), chunk) {
            (Some(encoder), Some(chunk)) => encoder.write_all(&chunk).map(|()| std::mem::take(encoder.get_mut())),
            (Some(_), None) => state.take().map_or(Ok(Vec::new()), GzEncoder::finish),
            (None, _) => Ok(Vec::new()),
        };
        std::future::ready(Some(piece.map(Bytes::from).map_err(BoxError::from)))
    });
    body::stream(pieces.filter(|piece| std::future::ready(!matches!(piece, Ok(bytes) if bytes.is_empty()))))
}

/// Indented, for people: one item's tree at a time.
fn pretty(call: &Call, metadata: &Value, items: &[Bytes]) -> Result<Response<Body>, ServerError> {
    let resource = &call.resource;
    let mut text = format!(
        "{{\n  \"kind\": \"{}\",\n  \"apiVersion\": \"{}\",\n  \"metadata\": {},\n  \"items\": [",
        resource.list_kind,
        resource.api_version(),
        indented(metadata, "  ")?
    );
    for (index, item) in items.iter().enumerate() {
        text.push_str(if index == 0 { "\n    " } else { ",\n    " });
        text.push_str(&indented(&answer::parse(item)?, "    ")?);
    }
    text.push_str(if items.is_empty() { "]\n}\n" } else { "\n  ]\n}\n" });
    Ok(answer::head(StatusCode::OK).body(body::full(text))?)
}

fn indented(value: &Value, by: &str) -> Result<String, ServerError> {
    let text = serde_json::to_string_pretty(value).map_err(ServerError::Object)?;
    Ok(text.replace('\n', &format!("\n{by}")))
}

/// Each item in the accepted form, one tree at a time.
fn transformed(call: &Call, items: &[Bytes]) -> Result<Vec<Value>, ServerError> {
    let now = Timestamp::now();
    let show = |item: &Bytes| Ok(answer::transform(call.accepted.form, &call.resource, &answer::parse(item)?, now));
    items.iter().map(show).collect()
}

fn table(call: &Call, metadata: Value, items: &[Bytes]) -> Result<Response<Body>, ServerError> {
    let rows = transformed(call, items)?;
    let mut table = answer::whole_table(call.accepted.form, &call.resource, "", &rows, true);
    object::set_at(&mut table, "metadata", metadata);
    answer::value(call.accepted, StatusCode::OK, &table)
}

fn partial(call: &Call, version: &str, metadata: &Value, items: &[Bytes]) -> Result<Response<Body>, ServerError> {
    let items = transformed(call, items)?;
    let list = json!({
        "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata, "items": items,
    });
    answer::value(call.accepted, StatusCode::OK, &list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_a_list_takes_no_more_memory_than_it_counts_for() {
        let item = |size| Bytes::from(vec![b' '; size]);
        for items in [vec![], vec![item(100)], vec![item(CHUNK - 1), item(1), item(1)], vec![item(9); CHUNK]] {
            let whole = ["head", &vec![" "; items.len()].join(","), TAIL].concat().len();
            let whole = whole - items.len() + items.iter().map(Bytes::len).sum::<usize>();
            let chunks = Chunks { head: Some("head".into()), tail: Some(TAIL), items: items.into_iter(), first: true };
            let mut sent = 0;
            for piece in chunks {
                sent += piece.len();
                let (length, taken) = (piece.len(), piece.try_into_mut().unwrap().capacity());
                assert!(taken <= length + 1, "{taken} bytes for {length}");
            }
            assert_eq!(sent, whole);
        }
    }

    #[test]
    fn a_token_is_good_for_its_resource_only() {
        let text = Token::new(7, &Key::from_stored("core/pods/a/b")).encode();
        let token = Token::decode(&text, "core/pods/").unwrap();
        assert_eq!((token.rv, token.start.as_str()), (7, "core/pods/a/b"));
        assert_eq!(Token::decode(&text, "core/secrets/").unwrap_err().code, 400);
        assert_eq!(Token::decode("nonsense", "core/pods/").unwrap_err().code, 400);
    }
}
