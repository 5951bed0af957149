//! One cached object: the bytes that are sent, and the little of them that lists and watches need.
//!
//! Strings that many objects have in common (namespaces, label sets, selectable values) are shared: see [`super::parse`].

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::fields::Fields;
use super::parse;
use crate::store::{Key, Revision};

/// One object.
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    /// The object as it is sent, resourceVersion included.
    pub bytes: Bytes,
    /// Of its last write.
    pub revision: Revision,
    pub meta: Meta,
}

impl Entry {
    /// The object, in the stored version, as a type or as a tree. Nobody but the server writes objects: what cannot be read is
    /// a defect, or a type that is narrower than the kind.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.bytes)
    }
}

/// The parsed part of an entry.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub labels: Arc<[(Box<str>, Box<str>)]>,
    /// uids of owner references.
    pub owners: Box<[Box<str>]>,
    /// Which fields the cache reads.
    pub(super) known: Arc<Fields>,
    /// Their values, in the same order.
    pub(super) fields: Box<[Arc<str>]>,
    pub deleting: bool,
}

impl Meta {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }

    /// A field by its path in the stored form; `""` if it is absent or not indexed.
    pub fn field(&self, path: &str) -> &str {
        match path {
            "metadata.name" => &self.name,
            "metadata.namespace" => &self.namespace,
            _ => self.known.position(path).and_then(|index| self.fields.get(index)).map_or("", |value| value),
        }
    }
}

/// An object as a DELETED event shows it: with the resourceVersion of what ended it. Costs nothing for the entry of an
/// [`super::Event::Deleted`], which has it already.
pub fn deleted_bytes(entry: &Entry, revision: Revision) -> Bytes {
    if entry.revision == revision {
        return entry.bytes.clone();
    }
    let Some(range) = parse::resource_version(&entry.bytes) else { return entry.bytes.clone() };
    let (Some(head), Some(tail)) = (entry.bytes.get(..range.start), entry.bytes.get(range.end..)) else {
        return entry.bytes.clone();
    };
    let digits = revision.to_string();
    let mut out = Vec::with_capacity(head.len() + digits.len() + tail.len());
    out.extend_from_slice(head);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(tail);
    Bytes::from(out)
}

/// The entry that watchers of a deletion share.
pub(super) fn deleted(entry: &Entry, revision: Revision) -> Arc<Entry> {
    let bytes = deleted_bytes(entry, revision);
    Arc::new(Entry { key: entry.key.clone(), bytes, revision, meta: entry.meta.clone() })
}
