//! Served versions and the stored one: several descriptors may show the same objects.
//!
//! Objects are stored once, under one group and plural, in one version. A [`Descriptor`] whose `stored_as` is `None` is
//! served as it is stored, bytes for bytes. Any other served version names where its objects are stored and how they
//! become its own; the verbs convert at their edges: reads after the cache, writes before the store. Between them (admission,
//! defaults, validation) an object has the version of the request.
//!
//! A built-in kind gives two pure functions ([`Conversion::Pure`]); custom resources convert through [`Convert`], which may
//! ask a webhook.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::resource::{Descriptor, GroupResource};
use crate::status::ApiError;

/// What a conversion that may wait returns.
pub type Converting<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// Where and how a served version's objects are stored.
#[derive(Clone, Debug)]
pub struct StoredAs {
    /// What their keys begin with, whatever group and plural they are served under.
    pub resource: GroupResource,
    /// The version in which they are written.
    pub version: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub conversion: Conversion,
}

/// How objects become those of another version. `apiVersion` and `kind` are written by the caller.
#[derive(Clone)]
pub enum Conversion {
    /// Two functions of one object, which must lose nothing: what one version has no field for travels in annotations.
    Pure { to_stored: fn(Value) -> Value, from_stored: fn(Value) -> Value },
    /// Whatever a custom resource's definition says.
    Custom(Arc<dyn Convert>),
}

impl fmt::Debug for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pure { .. } => f.write_str("Pure { .. }"),
            Self::Custom(convert) => convert.fmt(f),
        }
    }
}

/// Between what is stored and one served version of a custom resource.
pub trait Convert: Send + Sync + fmt::Debug {
    /// The uid of the definition that the kind is served by.
    fn definition(&self) -> &str;

    /// Whether an object whose last write has this revision can be sent as its bytes are: it was written in this version, by
    /// the present schema.
    fn is_current(&self, revision: u64) -> bool;

    /// Whether a field may read otherwise in the served version than in what is stored.
    fn may_change_fields(&self) -> bool;

    /// Stored objects, in whatever version each was written, in the served version: as many, in the same order.
    #[expect(clippy::wrong_self_convention, reason = "it is the objects that come from the store")]
    fn from_stored(&self, objects: Vec<Value>) -> Converting<'_, Vec<Value>>;

    /// An object of the served version as it is to be stored.
    fn to_stored(&self, object: Value) -> Converting<'_, Value>;
}

/// Versions of a descriptor.
impl Descriptor {
    /// Objects are stored as `resource` of `group/version`, of the same kind; `from_stored` and `to_stored` convert one
    /// object (see [`Conversion::Pure`]). Fields that selectors may name must be given in both forms:
    /// [`Descriptor::selectable_as`].
    #[must_use]
    pub fn stored_as(
        mut self,
        (group, version): (&'static str, &'static str),
        resource: &'static str,
        from_stored: fn(Value) -> Value,
        to_stored: fn(Value) -> Value,
    ) -> Self {
        self.stored_as = Some(StoredAs {
            resource: GroupResource::new(group, resource),
            version: version.into(),
            kind: self.kind.clone(),
            conversion: Conversion::Pure { to_stored, from_stored },
        });
        self
    }

    /// What the keys of the objects begin with. Everything that a client reads (errors, authorization) has
    /// [`Descriptor::group_resource`] instead.
    pub fn storage_resource(&self) -> GroupResource {
        self.stored_as.as_ref().map_or_else(|| self.group_resource(), |stored| stored.resource.clone())
    }

    /// Group, version and kind that stored objects have.
    pub fn storage_kind(&self) -> (&str, &str, &str) {
        match &self.stored_as {
            None => (&self.group, &self.version, &self.kind),
            Some(stored) => (&stored.resource.group, &stored.version, &stored.kind),
        }
    }

    /// Whether an object whose last write has this revision is sent as it is stored.
    pub fn serves_as_stored(&self, revision: u64) -> bool {
        match self.stored_as.as_ref().map(|stored| &stored.conversion) {
            None => true,
            Some(Conversion::Pure { .. }) => false,
            Some(Conversion::Custom(convert)) => convert.is_current(revision),
        }
    }

    /// Whether what is stored may tell otherwise of the fields that selectors may name than this version does.
    pub fn may_change_fields(&self) -> bool {
        match self.stored_as.as_ref().map(|stored| &stored.conversion) {
            Some(Conversion::Custom(convert)) => convert.may_change_fields(),
            None | Some(Conversion::Pure { .. }) => false,
        }
    }

    /// The uid of a custom kind's definition.
    pub fn defined_by(&self) -> Option<&str> {
        match self.stored_as.as_ref().map(|stored| &stored.conversion) {
            Some(Conversion::Custom(convert)) => Some(convert.definition()),
            _ => None,
        }
    }

    /// Whether this version is the one that is stored.
    pub fn is_storage_version(&self) -> bool {
        self.storage_kind() == (&*self.group, &*self.version, &*self.kind)
    }
}
