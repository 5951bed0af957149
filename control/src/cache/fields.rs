//! Which fields of a resource's objects selectors may name: what the cache reads of an object beside its metadata.
//!
//! Paths are those of the stored form; a resource that is served in several versions has the fields of all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wherry_api::registry::Registry;

use super::shard_name;

/// One field.
#[derive(Debug, PartialEq, Eq)]
struct Field {
    path: Box<str>,
    /// The parts of the places where it is looked for; the first that is not empty counts.
    places: Box<[Box<[Box<str>]>]>,
    /// What it reads as where it is absent.
    absent: &'static str,
}

/// The fields of one resource, sorted by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(Box<[Field]>);

impl Fields {
    /// Of paths, each with what it reads as where it is absent.
    pub(super) fn new<'a>(paths: impl IntoIterator<Item = (&'a str, &'static str)>) -> Self {
        let paths: BTreeMap<&str, &'static str> = paths.into_iter().collect();
        let field = |(path, absent): (&str, &'static str)| Field {
            path: path.into(),
            places: path.split('|').map(|place| place.split('.').map(Into::into).collect()).collect(),
            absent,
        };
        Self(paths.into_iter().map(field).collect())
    }

    pub(super) fn position(&self, path: &str) -> Option<usize> {
        self.0.iter().position(|field| *field.path == *path)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|field| &*field.path)
    }

    /// What each reads as where it is absent.
    pub(super) fn absent(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|field| field.absent)
    }

    /// For each field, the parts of the places where it is looked for.
    pub(super) fn places(&self) -> impl Iterator<Item = impl Iterator<Item = &[Box<str>]>> {
        self.0.iter().map(|field| field.places.iter().map(AsRef::as_ref))
    }
}

/// The fields of every stored resource of a registry, by the name of its shard.
pub(super) fn of(registry: &Registry) -> HashMap<Box<str>, Arc<Fields>> {
    let mut paths: HashMap<Box<str>, Vec<(&str, &'static str)>> = HashMap::new();
    for resource in registry.iter() {
        let all = paths.entry(shard_name(&resource.storage_resource())).or_default();
        all.extend(resource.selectable.iter().map(|field| (&*field.stored, field.absent)));
    }
    paths.into_iter().map(|(name, paths)| (name, Arc::new(Fields::new(paths)))).collect()
}
