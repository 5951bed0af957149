//! Answers that show one object, or any small document, in the form that the client accepts.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response, StatusCode, response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::table;

use super::body::{self, Body};
use super::error::ServerError;
use super::negotiate::{Accepted, Form};

/// Answers at least this large are compressed for clients that accept it, as Kubernetes does.
pub(crate) const COMPRESS_FROM: usize = 128 * 1024;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An object as it is stored, in the accepted form.
pub(crate) fn object(
    accepted: Accepted,
    resource: &Descriptor,
    code: StatusCode,
    bytes: Bytes,
) -> Result<Response<Body>, ServerError> {
    if accepted.form == Form::Object && !accepted.pretty {
        return json_bytes(accepted, code, bytes);
    }
    tree(accepted, resource, code, &parse(&bytes)?)
}

/// The same of an object, or of a document that shows one (a Scale), as a tree.
pub(crate) fn tree(
    accepted: Accepted,
    resource: &Descriptor,
    code: StatusCode,
    tree: &Value,
) -> Result<Response<Body>, ServerError> {
    match accepted.form {
        Form::Object => value(accepted, code, tree),
        Form::Table { .. } => {
            let revision = object::resource_version(tree);
            let row = transform(accepted.form, resource, tree, Timestamp::now());
            value(accepted, code, &whole_table(accepted.form, resource, revision, &[row], true))
        }
        Form::Metadata { .. } => value(accepted, code, &transform(accepted.form, resource, tree, Timestamp::now())),
    }
}

/// An object of a list or a watch in a form: a table's row, the metadata, or the object itself.
pub(crate) fn transform(form: Form, resource: &Descriptor, tree: &Value, now: Timestamp) -> Value {
    match form {
        Form::Object => tree.clone(),
        Form::Table { include, .. } => table::row(resource, tree, include, now),
        Form::Metadata { version } => {
            let mut partial = table::partial(tree);
            object::set_at(&mut partial, "apiVersion", format!("meta.k8s.io/{version}"));
            partial
        }
    }
}

/// A stored object's `PartialObjectMetadata`. Its metadata is copied as it is and not read.
pub(crate) fn partial(version: &str, bytes: &[u8]) -> Result<Vec<u8>, ServerError> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let document: Document<'_> = serde_json::from_slice(bytes).map_err(ServerError::Object)?;
    let metadata = document.metadata.get();
    let head = format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":"#);
    Ok([head.as_bytes(), metadata.as_bytes(), b"}"].concat())
}

/// A Table with these rows; `columns`: with their definitions.
pub(crate) fn whole_table(form: Form, resource: &Descriptor, revision: &str, rows: &[Value], columns: bool) -> Value {
    let version = if let Form::Table { version, .. } = form { version } else { "v1" };
    let definitions = if columns { table::columns(resource) } else { json!([]) };
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {"resourceVersion": revision},
        "columnDefinitions": definitions, "rows": rows,
    })
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Value, ServerError> {
    serde_json::from_slice(bytes).map_err(ServerError::Object)
}

/// A document that is not a stored object (a Status, a review).
pub(crate) fn value(accepted: Accepted, code: StatusCode, value: &Value) -> Result<Response<Body>, ServerError> {
    let mut text = if accepted.pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) }
        .map_err(ServerError::Object)?;
    if accepted.pretty {
        text.push(b'\n');
    }
    json_bytes(accepted, code, text.into())
}

/// A `Success` Status about an object.
pub(crate) fn success(resource: &Descriptor, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource.plural, "uid": uid});
    if !resource.group.is_empty() {
        object::set_at(&mut details, "group", resource.group.as_ref());
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The head of every answer that is made as JSON.
pub(crate) fn head(code: StatusCode) -> response::Builder {
    Response::builder().status(code).header(CONTENT_TYPE, JSON).header(CACHE_CONTROL, "no-cache, private")
}

fn json_bytes(accepted: Accepted, code: StatusCode, bytes: Bytes) -> Result<Response<Body>, ServerError> {
    Ok(packed(accepted.packs(), head(code).body(bytes)?))
}

/// An answer of known bytes, compressed if the client may get it so and it is large.
pub(crate) fn packed(gzip: bool, response: Response<Bytes>) -> Response<Body> {
    let (mut parts, bytes) = response.into_parts();
    if gzip && bytes.len() >= COMPRESS_FROM {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        // A Vec takes every write.
        if encoder.write_all(&bytes).is_ok()
            && let Ok(mut packed) = encoder.finish()
        {
            packed.shrink_to_fit();
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            return Response::from_parts(parts, body::full(packed));
        }
    }
    Response::from_parts(parts, body::full(bytes))
}
