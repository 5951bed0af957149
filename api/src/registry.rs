//! The served kinds at one moment: the built-in ones ([`crate::kinds::all`]) and the custom ones of that time.
//!
//! A registry never changes: a change makes a new one, which shares what stayed the same, documents of unaffected groups
//! included.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::resource::Descriptor;
use crate::schema::openapi::Documents;

/// Every served kind, cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    descriptors: Arc<[Arc<Descriptor>]>,
    /// How many of them are built in.
    builtin: usize,
    /// Indexes into `descriptors`, sorted by group, plural and version.
    by_path: Arc<[usize]>,
    documents: Arc<Documents>,
}

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Self {
        Self::of(crate::kinds::all())
    }

    /// A registry of these kinds.
    pub fn of(kinds: Vec<Descriptor>) -> Self {
        let descriptors: Arc<[Arc<Descriptor>]> = kinds.into_iter().map(Arc::new).collect();
        Self { builtin: descriptors.len(), by_path: index(&descriptors), descriptors, documents: Arc::default() }
    }

    /// The same built-in kinds with these custom ones. Documents of group versions whose descriptors are all the same ones
    /// as here are taken over.
    #[must_use]
    pub fn with_custom(&self, custom: Vec<Arc<Descriptor>>) -> Self {
        let builtin = self.built_in().iter().cloned();
        let descriptors: Arc<[Arc<Descriptor>]> = builtin.chain(custom).collect();
        let mut next =
            Self { builtin: self.builtin, by_path: index(&descriptors), descriptors, documents: Arc::default() };
        let same = self.in_common(&next);
        next.documents = Arc::new(self.documents.of_same(|group, version| same.contains(&(group, version))));
        next
    }

    /// The group versions of which both registries have the same descriptors. Costs what the two are long.
    pub fn in_common<'a>(&'a self, other: &'a Self) -> HashSet<(&'a str, &'a str)> {
        let (mut mine, theirs) = (self.by_version(), other.by_version());
        mine.retain(|version, kinds| theirs.get(version) == Some(kinds));
        mine.into_keys().collect()
    }

    /// The addresses of each group version's descriptors.
    fn by_version(&self) -> HashMap<(&str, &str), Vec<*const Descriptor>> {
        let mut all = HashMap::<_, Vec<_>>::new();
        for kind in self.iter() {
            all.entry((kind.group.as_ref(), kind.version.as_ref())).or_default().push(Arc::as_ptr(kind));
        }
        all
    }

    /// The OpenAPI documents made so far.
    pub(crate) fn documents(&self) -> &Documents {
        &self.documents
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        self.descriptors.iter()
    }

    pub(crate) fn built_in(&self) -> &[Arc<Descriptor>] {
        self.descriptors.get(..self.builtin).unwrap_or_default()
    }

    pub(crate) fn custom(&self) -> &[Arc<Descriptor>] {
        self.descriptors.get(self.builtin..).unwrap_or_default()
    }

    /// By the parts of a URL path.
    pub fn by_plural(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Descriptor>> {
        let order = |index: &usize| {
            let found = self.descriptors.get(*index);
            found.map_or(Ordering::Less, |d| (&*d.group, &*d.plural, &*d.version).cmp(&(group, plural, version)))
        };
        let at = self.by_path.binary_search_by(order).ok()?;
        self.descriptors.get(*self.by_path.get(at)?)
    }

    /// By what an object says of itself.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Descriptor>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.descriptors.iter().find(|d| d.group == group && d.version == version && d.kind == kind)
    }

    /// By group and plural, in the version that is stored if that is served, else in any.
    pub fn by_group_resource(&self, group: &str, plural: &str) -> Option<&Arc<Descriptor>> {
        let all = || self.descriptors.iter().filter(|d| d.group == group && d.plural == plural);
        all().find(|d| d.is_storage_version()).or_else(|| all().next())
    }
}

fn index(descriptors: &[Arc<Descriptor>]) -> Arc<[usize]> {
    let mut index: Vec<usize> = (0..descriptors.len()).collect();
    index.sort_by(|a, b| {
        let key = |i: &usize| descriptors.get(*i).map(|d| (&d.group, &d.plural, &d.version));
        key(a).cmp(&key(b))
    });
    index.into()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler as V1;
    use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler as V2;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;
    use crate::schema::{openapi_v2, openapi_v3};

    #[test]
    fn a_kind_is_found_in_each_version_and_by_default_in_the_stored_one() {
        let plural = "horizontalpodautoscalers";
        let v1 = Descriptor::of::<V1>().stored_as(("autoscaling", "v2"), plural, |o| o, |o| o);
        let registry = Registry::of(vec![v1, Descriptor::of::<V2>(), Descriptor::of::<ConfigMap>()]);
        for version in ["v1", "v2"] {
            assert_eq!(registry.by_plural("autoscaling", version, plural).unwrap().version, version);
        }
        assert_eq!(registry.by_group_resource("autoscaling", plural).unwrap().version, "v2");
        assert!(registry.by_plural("", "v1", plural).is_none());
        let storage: Vec<_> = registry.iter().map(|d| d.storage_resource().to_string()).collect();
        assert_eq!(storage[0], storage[1]);
    }

    #[test]
    fn a_change_keeps_the_documents_of_other_groups() {
        let registry = Registry::of(vec![Descriptor::of::<ConfigMap>()]);
        let core = openapi_v3(&registry, "", "v1").unwrap();
        let all = openapi_v2(&registry, &[]);
        let next = registry.with_custom(vec![Arc::new(Descriptor::of::<V2>())]);
        assert_eq!(openapi_v3(&next, "", "v1").unwrap().gzip.as_ptr(), core.gzip.as_ptr(), "the same bytes");
        assert!(openapi_v3(&next, "autoscaling", "v2").is_some());
        assert_ne!(openapi_v2(&next, &[]).etag, all.etag);
        assert!(openapi_v3(&next.with_custom(Vec::new()), "autoscaling", "v2").is_none());
    }
}
