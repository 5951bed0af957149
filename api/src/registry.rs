//! The list of served kinds. Built-ins come from [`crate::kinds::all`]; custom resources will be added at run time.

use std::sync::Arc;

use crate::resource::Descriptor;
use crate::schema::openapi::Documents;

/// Every served kind, cheap to clone; a change makes a new one.
#[derive(Clone, Debug)]
pub struct Registry {
    descriptors: Arc<[Arc<Descriptor>]>,
    documents: Arc<Documents>,
}

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Self {
        Self::of(crate::kinds::all())
    }

    /// A registry of these kinds.
    pub fn of(kinds: Vec<Descriptor>) -> Self {
        Self { descriptors: kinds.into_iter().map(Arc::new).collect(), documents: Arc::default() }
    }

    /// The OpenAPI documents made so far.
    pub(crate) fn documents(&self) -> &Documents {
        &self.documents
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        self.descriptors.iter()
    }

    /// By the parts of a URL path.
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Descriptor>> {
        self.descriptors.iter().find(|d| d.group == group && d.version == version && d.plural == plural)
    }

    /// By what an object says of itself.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Descriptor>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.descriptors.iter().find(|d| d.group == group && d.version == version && d.kind == kind)
    }

    /// By group and plural, in the version that is stored.
    pub fn by_group_resource(&self, group: &str, plural: &str) -> Option<&Arc<Descriptor>> {
        self.descriptors.iter().find(|d| d.group == group && d.plural == plural)
    }
}
