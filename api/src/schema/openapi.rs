//! OpenAPI documents, derived from the registry and from the types' schemas.
//!
//! A document is made on first use, then kept as gzip bytes with the hash of its text; the expanded values live only while
//! it is made. A changed registry takes over the documents of the group versions that stayed the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::registry::Registry;
use crate::resource::Descriptor;

mod components;
mod document;
mod operations;
mod parameters;
mod paths;
mod v2;

pub use document::Document;
use v2::Form;

/// A registry's documents by their path, and what version 2 is put together from. Bound: one and two per group
/// and version, and five more.
#[derive(Debug, Default)]
pub struct Documents(Mutex<Kept>);

#[derive(Debug, Default, Clone)]
struct Kept {
    whole: BTreeMap<String, Document>,
    /// By the root of a custom group version; the built-in kinds are under the empty text.
    pieces: BTreeMap<(Form, String), v2::Piece>,
}

impl Documents {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The document at `path`, made by `make` unless it is there. Two callers may both make the first one.
    fn get(&self, path: &str, make: impl FnOnce() -> Document) -> Document {
        if let Some(document) = self.kept().whole.get(path) {
            return document.clone();
        }
        let new = make();
        self.kept().whole.entry(path.to_owned()).or_insert(new).clone()
    }

    fn piece(&self, form: Form, root: &str, make: impl FnOnce() -> v2::Piece) -> v2::Piece {
        let key = (form, root.to_owned());
        if let Some(piece) = self.kept().pieces.get(&key) {
            return piece.clone();
        }
        let new = make();
        self.kept().pieces.entry(key).or_insert(new).clone()
    }

    /// Those of the built-in kinds and of the group versions for which `same` holds.
    pub(crate) fn of_same(&self, same: impl Fn(&str, &str) -> bool) -> Self {
        let same = |path: &str| match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => same("", version),
            ["apis", group, version] => same(group, version),
            _ => false,
        };
        let mut kept = self.kept().clone();
        kept.whole.retain(|path, _| same(path));
        kept.pieces.retain(|(_, root), _| root.is_empty() || same(root));
        Self(Mutex::new(kept))
    }
}

/// `api/v1` or `apis/GROUP/VERSION`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group_versions<'a>(kinds: impl IntoIterator<Item = &'a Arc<Descriptor>>) -> BTreeSet<(&'a str, &'a str)> {
    kinds.into_iter().map(|d| (d.group.as_ref(), d.version.as_ref())).collect()
}

/// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`: paths, operations (with `fieldValidation` parameters and
/// `x-kubernetes-group-version-kind`) and component schemas with merge keys and list types.
pub fn openapi_v3(registry: &Registry, group: &str, version: &str) -> Option<Document> {
    if !group_versions(registry.iter()).contains(&(group, version)) {
        return None;
    }
    let make = || Document::new(&v3(&of_version(registry.iter(), group, version)));
    Some(registry.documents().get(&root(group, version), make))
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
        let own =
            group_versions(registry.iter()).into_iter().filter(|(group, version)| !is_foreign(foreign, group, version));
        let own =
            own.filter_map(|(group, version)| Some((root(group, version), openapi_v3(registry, group, version)?.etag)));
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
        Document::new(&json!({"paths": paths}))
    };
    if foreign.is_empty() { registry.documents().get("", make) } else { make() }
}

/// `/openapi/v2` for all groups. After a change of custom kinds only their group versions are made anew.
pub fn openapi_v2(registry: &Registry, foreign: &[Foreign]) -> Document {
    openapi_v2_in(Form::Json, registry, foreign)
}

/// The same in protobuf.
pub fn openapi_v2_protobuf(registry: &Registry, foreign: &[Foreign]) -> Document {
    openapi_v2_in(Form::Protobuf, registry, foreign)
}

fn openapi_v2_in(form: Form, registry: &Registry, foreign: &[Foreign]) -> Document {
    let documents = registry.documents();
    let make = || {
        let mut pieces = vec![built_in_piece(form, registry, foreign)];
        let custom = group_versions(registry.custom()).into_iter();
        let custom = custom.filter(|(group, version)| !is_foreign(foreign, group, version));
        pieces.extend(custom.map(|(group, version)| {
            documents.piece(form, &root(group, version), || {
                let kinds = of_version(registry.custom(), group, version);
                v2::Piece::custom(form, v3(&kinds), &kinds)
            })
        }));
        if !foreign.is_empty() {
            let others =
                foreign.iter().filter_map(|other| serde_json::from_slice(&other.document.as_ref()?.plain()).ok());
            pieces.push(v2::Piece::foreign(form, others, &pieces));
        }
        v2::whole(form, &info(), &pieces)
    };
    if foreign.is_empty() { documents.get(&format!("v2 {form:?}"), make) } else { make() }
}

/// What the built-in kinds add; kept, unless another server serves some of their group versions.
fn built_in_piece(form: Form, registry: &Registry, foreign: &[Foreign]) -> v2::Piece {
    let kinds = registry.built_in();
    let versions = group_versions(kinds);
    let (taken, own): (Vec<_>, Vec<_>) =
        versions.into_iter().partition(|(group, version)| is_foreign(foreign, group, version));
    let make = || v2::Piece::builtin(form, own.iter().map(|(group, version)| v3(&of_version(kinds, group, version))));
    if taken.is_empty() { registry.documents().piece(form, "", make) } else { make() }
}

fn is_foreign(foreign: &[Foreign], group: &str, version: &str) -> bool {
    foreign.iter().any(|other| other.group == group && other.version == version)
}

fn of_version<'a>(
    kinds: impl IntoIterator<Item = &'a Arc<Descriptor>>,
    group: &str,
    version: &str,
) -> Vec<&'a Descriptor> {
    kinds.into_iter().filter(|d| d.group == group && d.version == version).map(AsRef::as_ref).collect()
}

fn v3(kinds: &[&Descriptor]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths::all(kinds),
        "components": {"schemas": components::all(kinds), "securitySchemes": {"BearerToken": {
            "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
        }}},
    })
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": concat!("v1.36.0+wherry-", env!("CARGO_PKG_VERSION"))})
}

/// The value of `x-kubernetes-group-version-kind`.
fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
mod tests;
