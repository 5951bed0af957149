//! OpenAPI documents, derived from the registry and from the types' schemas.
//!
//! A document is made on first use, then kept as gzip bytes with the hash of its text; the expanded values live only while
//! it is made. A changed registry takes over the documents of the group versions that stayed the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::registry::Registry;
use crate::resource::{Descriptor, SchemaSource};
use crate::schema::structural::publish;

mod components;
mod operations;
mod parameters;
mod paths;
mod v2;

/// An OpenAPI document, gzip-compressed, with a strong ETag that is a hash of its contents.
#[derive(Clone, Debug)]
pub struct Document {
    pub gzip: Bytes,
    /// Hexadecimal, without quotes.
    pub etag: String,
}

impl Document {
    /// The document of this tree.
    pub fn new(value: &Value) -> Self {
        let text = value.to_string();
        let mut etag = String::with_capacity(64);
        for byte in Sha256::digest(text.as_bytes()) {
            // Writing to a String cannot fail.
            let _ = write!(etag, "{byte:02X}");
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to a Vec cannot fail.
        let _ = encoder.write_all(text.as_bytes());
        Self { gzip: encoder.finish().unwrap_or_default().into(), etag }
    }

    /// The text, for a client that does not take gzip.
    pub fn plain(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // What `new` has written can be read.
        let _ = GzDecoder::new(self.gzip.as_ref()).read_to_end(&mut text);
        text
    }
}

/// A registry's documents by their path. Bound: one per group and version, and two more.
#[derive(Debug, Default)]
pub struct Documents(Mutex<BTreeMap<String, Document>>);

impl Documents {
    /// The document at `path`, made by `make` unless it is there. Two callers may both make the first one.
    fn get(&self, path: &str, make: impl FnOnce() -> Value) -> Document {
        let documents = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(document) = documents().get(path) {
            return document.clone();
        }
        let new = Document::new(&make());
        documents().entry(path.to_owned()).or_insert(new).clone()
    }

    /// Those of the group versions for which `same` holds.
    pub(crate) fn kept(&self, same: impl Fn(&str, &str) -> bool) -> Self {
        let documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = documents.iter().filter(|(path, _)| match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => same("", version),
            ["apis", group, version] => same(group, version),
            _ => false,
        });
        Self(Mutex::new(kept.map(|(path, document)| (path.clone(), document.clone())).collect()))
    }
}

/// `api/v1` or `apis/GROUP/VERSION`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group_versions(registry: &Registry) -> BTreeSet<(&str, &str)> {
    registry.iter().map(|d| (d.group.as_ref(), d.version.as_ref())).collect()
}

/// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`: paths, operations (with `fieldValidation` parameters and
/// `x-kubernetes-group-version-kind`) and component schemas with merge keys and list types.
pub fn openapi_v3(registry: &Registry, group: &str, version: &str) -> Option<Document> {
    if !group_versions(registry).contains(&(group, version)) {
        return None;
    }
    Some(registry.documents().get(&root(group, version), || v3(registry, group, version)))
}

/// A group version that another server serves, in the place of one of the registry's if there is one.
#[derive(Clone, Debug)]
pub struct Foreign {
    pub group: String,
    pub version: String,
    /// Its document of version 3, if it has one.
    pub document: Option<Document>,
}

/// `/openapi/v3`: where the documents are, with their hashes.
pub fn openapi_v3_index(registry: &Registry, foreign: &[Foreign]) -> Document {
    let make = || {
        let own = own_versions(registry, foreign)
            .filter_map(|(group, version)| Some((root(group, version), openapi_v3(registry, group, version)?.etag)));
        let others = foreign.iter().filter_map(|other| {
            let document = other.document.as_ref()?;
            Some((root(&other.group, &other.version), document.etag.clone()))
        });
        let paths: Map<String, Value> = own
            .chain(others)
            .map(|(root, etag)| {
                let url = format!("/openapi/v3/{root}?hash={etag}");
                (root, json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths})
    };
    if foreign.is_empty() { registry.documents().get("", make) } else { Document::new(&make()) }
}

/// `/openapi/v2` for all groups.
pub fn openapi_v2(registry: &Registry, foreign: &[Foreign]) -> Document {
    let make = || {
        let all = own_versions(registry, foreign).map(|(group, version)| v3(registry, group, version));
        let others = foreign.iter().filter_map(|other| serde_json::from_slice(&other.document.as_ref()?.plain()).ok());
        let mut document = v2::convert(all.chain(others), &info());
        let custom = registry.iter().filter(|d| !is_foreign(foreign, &d.group, &d.version));
        let custom = custom.filter_map(|d| match &d.schema {
            SchemaSource::Custom(schema) => Some((d, schema.published(publish::Version::V2))),
            SchemaSource::BuiltIn(_) => None,
        });
        for (kind, definition) in custom {
            v2::define(&mut document, &kind.definition, definition, gvk(&kind.group, &kind.version, &kind.kind));
        }
        if !foreign.is_empty() {
            v2::resolve(&mut document);
        }
        document
    };
    if foreign.is_empty() { registry.documents().get("v2", make) } else { Document::new(&make()) }
}

fn is_foreign(foreign: &[Foreign], group: &str, version: &str) -> bool {
    foreign.iter().any(|other| other.group == group && other.version == version)
}

/// The group versions that are served here and by nobody else.
fn own_versions<'a>(registry: &'a Registry, foreign: &'a [Foreign]) -> impl Iterator<Item = (&'a str, &'a str)> {
    group_versions(registry).into_iter().filter(|(group, version)| !is_foreign(foreign, group, version))
}

fn v3(registry: &Registry, group: &str, version: &str) -> Value {
    let kinds: Vec<&Descriptor> =
        registry.iter().filter(|d| d.group == group && d.version == version).map(AsRef::as_ref).collect();
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::all(&kinds),
        "components": {"schemas": components::all(&kinds), "securitySchemes": {"BearerToken": {
            "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
        }}},
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": concat!("v1.36.0+wherry.", env!("CARGO_PKG_VERSION"))})
}

/// The value of `x-kubernetes-group-version-kind`.
fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
mod tests;
