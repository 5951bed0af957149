//! What one served kind is: names, scope, subresources, columns, durability and behaviour, as data.
//!
//! Built-in kinds and custom resources are both `Descriptor`s, so nothing downstream may ask "which kind is
//! this": it reads the descriptor or calls its strategy.

mod column;
mod idle;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource, SubResourceScope};
use schemars::{JsonSchema, Schema, SchemaGenerator};

pub use self::column::{Cell, Column};
pub use self::idle::Idle;
use crate::patch::PatchType;
use crate::strategy::{Plain, Strategy};
use crate::version::StoredAs;

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// The scope that a type of `k8s-openapi` declares.
pub trait ScopeOf {
    const SCOPE: Scope;
}

impl ScopeOf for ClusterResourceScope {
    const SCOPE: Scope = Scope::Cluster;
}

impl ScopeOf for NamespaceResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

/// What a subresource exchanges (Eviction, TokenRequest): its parents live in namespaces.
impl ScopeOf for SubResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After its transaction is on disk.
    #[default]
    Synced,
    /// From memory; it reaches the disk with the next commit (Leases, Events).
    Relaxed,
}

/// A path below an object (`/status`, `/scale`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: only this path writes `.status`, and it writes nothing else.
    Status,
    /// `/scale` as `autoscaling/v1` Scale.
    Scale(ScalePaths),
    /// The object itself, of which a write through this path changes only what the kind's strategy carries over from it
    /// (`approval`): [`crate::strategy::Part::Named`].
    Part(&'static str),
    /// Anything with a handler of its own in the API server: `log`, `binding`, `eviction`, `token`, `finalize`, …
    Named(NamedSubresource),
}

/// Where the numbers of a Scale live in the object, as dotted paths that begin with a dot (`.spec.replicas`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: Cow<'static, str>,
    pub status_replicas: Cow<'static, str>,
    /// A path to a label selector, as an object (`matchLabels`…) or in its string form.
    pub selector: Option<Cow<'static, str>>,
}

/// A subresource that discovery shows and a handler named `name` serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSubresource {
    pub name: Cow<'static, str>,
    /// Group and version of what it exchanges, where they differ from the parent's (`policy/v1` for eviction).
    pub group_version: Option<(Cow<'static, str>, Cow<'static, str>)>,
    /// The kind that it exchanges (`Binding`, `Eviction`, `TokenRequest`; `Pod` for `log`).
    pub kind: Cow<'static, str>,
    pub verbs: &'static [&'static str],
}

impl Subresource {
    pub fn name(&self) -> &str {
        match self {
            Self::Status => "status",
            Self::Scale(_) => "scale",
            Self::Part(name) => name,
            Self::Named(named) => &named.name,
        }
    }
}

/// Group and plural name: what identifies a resource in paths, authorization and storage whatever its version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    pub group: Cow<'static, str>,
    pub resource: Cow<'static, str>,
}

impl GroupResource {
    /// The core group is `""`.
    pub const fn new(group: &'static str, resource: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), resource: Cow::Borrowed(resource) }
    }
}

impl fmt::Display for GroupResource {
    /// `deployments.apps`, or `pods` for the core group: the form of Kubernetes' error messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// Where a kind's schema comes from.
#[derive(Clone)]
pub enum SchemaSource {
    /// A type of `k8s-openapi`: the function adds its definition, and those it needs, to a generator.
    BuiltIn(fn(&mut SchemaGenerator) -> Schema),
    /// A CustomResourceDefinition's schema. Defaults and validation by it are the [`Strategy`]'s.
    Custom(Arc<crate::custom::Schema>),
}

impl fmt::Debug for SchemaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(_) => f.write_str("BuiltIn(..)"),
            Self::Custom(schema) => schema.fmt(f),
        }
    }
}

/// A field that selectors may name besides `metadata.name` and `metadata.namespace`. An absent one reads as the empty
/// string. Paths are dotted, without a leading dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selectable {
    /// As clients write it.
    pub path: Cow<'static, str>,
    /// Where it is in the stored form, which is what the cache reads; after a `|`, where it is looked for if that is empty.
    pub stored: Cow<'static, str>,
    /// What it reads as where it is absent: the zero value of its type (`false`, `0`), else the empty string.
    pub absent: &'static str,
}

/// Whether a PUT says which revision of the object it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// Without one, whatever is there is changed.
    Optional,
    /// As Kubernetes wants it of custom resources, Leases, PodDisruptionBudgets and some more.
    Required,
}

/// One served kind.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// `""` is the core group.
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    /// Other API versions that a body may name: it has the same fields there (Kubernetes: `policy/v1beta1` of an Eviction).
    pub also_in: &'static [&'static str],
    pub kind: Cow<'static, str>,
    pub list_kind: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub singular: Cow<'static, str>,
    pub short_names: Vec<Cow<'static, str>>,
    pub categories: Vec<Cow<'static, str>>,
    pub scope: Scope,
    pub subresources: Vec<Subresource>,
    /// The whole row, in order, name and age included. None: name and time of creation.
    pub columns: Vec<Column>,
    pub durability: Durability,
    /// Seconds after its last write at which an object is removed by the store (Events: 3600).
    pub expires_after: Option<u32>,
    /// Fields for field selectors.
    pub selectable: Vec<Selectable>,
    /// Where and how objects are stored; `None`: as they are served. See [`crate::version`].
    pub stored_as: Option<StoredAs>,
    /// The OpenAPI definition's name, `io.k8s.api.apps.v1.Deployment`.
    pub definition: Cow<'static, str>,
    /// What `definition` is made from.
    pub schema: SchemaSource,
    /// Verbs that the resource itself has, in discovery's words.
    pub verbs: &'static [&'static str],
    /// PUT to a name that does not exist creates it (Kubernetes: Lease, Node, Event, Endpoints, Service, … do).
    pub create_on_update: bool,
    pub revision: Revision,
    /// A DELETE that removes the object at once answers with it, not with a Status (Kubernetes: Pod, Service, ServiceAccount).
    pub returns_deleted: bool,
    /// `.metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    pub strategy: Arc<dyn Strategy>,
    /// What every client of this version is warned of.
    pub deprecated: Option<Cow<'static, str>>,
    /// Set while nothing here acts on the kind: who creates an object is warned of it.
    pub idle: Option<Idle>,
    /// What of [`WRITABLE_METADATA`] a write of the status leaves as it is (Kubernetes: nothing for most kinds, everything for
    /// some that came later).
    pub status_keeps: &'static [&'static str],
}

/// The metadata that writers of an object have a say in.
pub const WRITABLE_METADATA: &[&str] = &["annotations", "finalizers", "labels", "ownerReferences"];

/// The verbs of an ordinary resource.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The verbs of a subresource that opens a stream (`exec`).
pub const CONNECT: &[&str] = &["create", "get"];
/// The verbs of a subresource that passes requests on.
pub const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// Building a descriptor from a Rust type.
impl Descriptor {
    /// The descriptor of a type of `k8s-openapi`: its names, scope and schema; all verbs, a counted generation, no
    /// subresources, no columns of its own, no behaviour.
    pub fn of<T>() -> Self
    where
        T: Resource + JsonSchema,
        T::Scope: ScopeOf,
    {
        Self {
            group: T::GROUP.into(),
            version: T::VERSION.into(),
            also_in: &[],
            kind: T::KIND.into(),
            list_kind: format!("{}List", T::KIND).into(),
            plural: T::URL_PATH_SEGMENT.into(),
            singular: T::KIND.to_lowercase().into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: T::Scope::SCOPE,
            subresources: Vec::new(),
            columns: Vec::new(),
            durability: Durability::Synced,
            expires_after: None,
            selectable: Vec::new(),
            stored_as: None,
            definition: T::schema_name(),
            schema: SchemaSource::BuiltIn(SchemaGenerator::subschema_for::<T>),
            verbs: ALL_VERBS,
            create_on_update: false,
            revision: Revision::Optional,
            returns_deleted: false,
            generation: true,
            strategy: Arc::new(Plain),
            deprecated: None,
            idle: None,
            status_keeps: &[],
        }
    }

    #[must_use]
    pub fn short(mut self, names: &[&'static str]) -> Self {
        self.short_names = names.iter().map(|&n| n.into()).collect();
        self
    }

    #[must_use]
    pub fn categories(mut self, names: &[&'static str]) -> Self {
        self.categories = names.iter().map(|&n| n.into()).collect();
        self
    }

    /// Adds `/status`.
    #[must_use]
    pub fn status(mut self) -> Self {
        self.subresources.push(Subresource::Status);
        self
    }

    /// Adds `/scale`; the paths begin with a dot.
    #[must_use]
    pub fn scale(
        mut self,
        spec_replicas: &'static str,
        status_replicas: &'static str,
        selector: Option<&'static str>,
    ) -> Self {
        self.subresources.push(Subresource::Scale(ScalePaths {
            spec_replicas: spec_replicas.into(),
            status_replicas: status_replicas.into(),
            selector: selector.map(Into::into),
        }));
        self
    }

    /// Adds a path that shows the object and writes a part of it that the strategy knows by `name`.
    #[must_use]
    pub fn part(mut self, name: &'static str) -> Self {
        self.subresources.push(Subresource::Part(name));
        self
    }

    /// Adds a subresource with a handler of its own that exchanges `kind` of the parent's group and version.
    #[must_use]
    pub fn named(mut self, name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Self {
        self.subresources.push(Subresource::Named(NamedSubresource {
            name: name.into(),
            group_version: None,
            kind: kind.into(),
            verbs,
        }));
        self
    }

    /// Like [`Descriptor::named`], for a kind of another group and version.
    #[must_use]
    pub fn named_of(
        mut self,
        name: &'static str,
        (group, version): (&'static str, &'static str),
        kind: &'static str,
        verbs: &'static [&'static str],
    ) -> Self {
        self.subresources.push(Subresource::Named(NamedSubresource {
            name: name.into(),
            group_version: Some((group.into(), version.into())),
            kind: kind.into(),
            verbs,
        }));
        self
    }

    #[must_use]
    pub fn columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    /// Fields for field selectors, besides name and namespace; `path=value` says what an absent one reads as.
    #[must_use]
    pub fn selectable(mut self, paths: &[&'static str]) -> Self {
        let field = |path: &&'static str| {
            let (path, absent) = path.split_once('=').unwrap_or((path, ""));
            Selectable { path: path.into(), stored: path.into(), absent }
        };
        self.selectable = paths.iter().map(field).collect();
        self
    }

    /// The same for a version that is stored as another: the field as clients write it, and its place in the stored form.
    #[must_use]
    pub fn selectable_as(mut self, paths: &[(&'static str, &'static str)]) -> Self {
        let field = |&(path, stored): &(&'static str, &'static str)| Selectable {
            path: path.into(),
            stored: stored.into(),
            absent: "",
        };
        self.selectable = paths.iter().map(field).collect();
        self
    }

    /// One more field, as clients write it, its places in the stored form, and what it reads as where it is absent.
    #[must_use]
    pub fn selectable_at(mut self, path: &'static str, stored: &'static str, absent: &'static str) -> Self {
        self.selectable.push(Selectable { path: path.into(), stored: stored.into(), absent });
        self
    }

    /// Every client is warned that this version of the kind is on its way out.
    #[must_use]
    pub fn deprecated(mut self, warning: &'static str) -> Self {
        self.deprecated = Some(warning.into());
        self
    }

    /// Writes are acknowledged from memory.
    #[must_use]
    pub fn relaxed(mut self) -> Self {
        self.durability = Durability::Relaxed;
        self
    }

    /// Objects are removed this many seconds after their last write.
    #[must_use]
    pub fn expires(mut self, seconds: u32) -> Self {
        self.expires_after = Some(seconds);
        self
    }

    /// A DELETE answers with the object.
    #[must_use]
    pub fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    #[must_use]
    pub fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    /// A PUT says which revision it changes.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.revision = Revision::Required;
        self
    }

    /// `.metadata.generation` is not kept for this kind.
    #[must_use]
    pub fn no_generation(mut self) -> Self {
        self.generation = false;
        self
    }

    /// Leaves some of the metadata as it is when the status is written.
    #[must_use]
    pub fn status_keeps(mut self, metadata: &'static [&'static str]) -> Self {
        self.status_keeps = metadata;
        self
    }

    #[must_use]
    pub fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    #[must_use]
    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }
}

impl Descriptor {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.plural.clone() }
    }

    /// Whether it is this resource, in whatever version.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name() == name)
    }

    /// The patches that are taken. Nobody but a built-in kind says how its lists merge.
    pub fn patches(&self) -> &'static [PatchType] {
        match self.schema {
            SchemaSource::BuiltIn(_) => &[PatchType::Apply, PatchType::Json, PatchType::Merge, PatchType::Strategic],
            SchemaSource::Custom(_) => &[PatchType::Apply, PatchType::Json, PatchType::Merge],
        }
    }

    /// Whether objects are kept. What can only be created (a review) is answered and forgotten.
    pub fn stored(&self) -> bool {
        self.verbs.contains(&"get") || self.verbs.contains(&"list")
    }

    /// Whether `.status` is written through `/status` only.
    pub fn has_status(&self) -> bool {
        self.subresources.contains(&Subresource::Status)
    }
}
