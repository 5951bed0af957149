//! Custom resources: from a CustomResourceDefinition to the descriptors of what it serves.
//!
//! A [`Definition`] is read from a CRD that validation has accepted; each served version becomes a [`Descriptor`] that takes
//! the same path as any built-in kind. What must stay true: nothing here knows a store or a webhook; how versions convert is
//! given by the caller as a [`Convert`].

use std::sync::Arc;

use serde_json::Value;

use crate::kinds::tree::{is_true, list, some, text};
use crate::object;
use crate::resource::{
    ALL_VERBS, Descriptor, Durability, GroupResource, Revision, ScalePaths, SchemaSource, Scope, Selectable,
    Subresource, WRITABLE_METADATA,
};
use crate::version::{Conversion, Convert, StoredAs};

mod columns;
mod schema;
mod strategy;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use columns::{FORMATS, TYPES};
pub use schema::Schema;

/// Holds a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Verbs while a definition is being deleted.
const ENDING_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

/// One CustomResourceDefinition.
#[derive(Debug)]
pub struct Definition {
    /// `PLURAL.GROUP`.
    pub name: String,
    pub uid: String,
    pub group: String,
    pub plural: String,
    pub kind: String,
    list_kind: String,
    singular: String,
    short_names: Vec<String>,
    categories: Vec<String>,
    scope: Scope,
    /// All, also those that are not served, in the order of the definition.
    pub versions: Vec<Arc<Version>>,
    /// The version that is written.
    pub storage: String,
    /// `spec.conversion.webhook`, if versions convert through one.
    pub webhook: Option<Value>,
    /// Being deleted.
    pub ending: bool,
}

/// One version of a definition.
#[derive(Debug)]
pub struct Version {
    pub name: String,
    pub served: bool,
    pub schema: Arc<Schema>,
    /// The version as the definition has it.
    spec: Value,
}

/// Whether a kind's definition is being deleted: nothing of it is created any more.
pub fn is_ending(resource: &Descriptor) -> bool {
    matches!(resource.schema, SchemaSource::Custom(_)) && !resource.verbs.contains(&"create")
}

/// Whether a definition is served: its names are its own.
pub fn is_accepted(crd: &Value) -> bool {
    condition(crd, "NamesAccepted") == Some("True")
}

/// The status of one of a definition's conditions.
fn condition<'a>(crd: &'a Value, kind: &str) -> Option<&'a str> {
    let found = list(crd, "/status/conditions").iter().find(|c| text(c, "/type") == kind)?;
    Some(text(found, "/status"))
}

impl Definition {
    /// Reads a definition; names are the accepted ones. Schemas are parsed here, once.
    pub fn parse(crd: &Value) -> Self {
        Self::parse_after(crd, None)
    }

    /// [`Definition::parse`] after a change: versions that are written as they were in `before` are taken over, with their
    /// schemas.
    pub fn parse_after(crd: &Value, before: Option<&Self>) -> Self {
        let spec = |pointer: &str| text(crd, pointer).to_owned();
        let accepted = |field: &str| match text(crd, &format!("/status/acceptedNames/{field}")) {
            "" => text(crd, &format!("/spec/names/{field}")).to_owned(),
            name => name.to_owned(),
        };
        let names = |field: &str| {
            let all = list(crd, &format!("/status/acceptedNames/{field}")).iter();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let versions = list(crd, "/spec/versions");
        let storage = versions.iter().find(|v| is_true(v, "/storage")).map(|v| text(v, "/name").to_owned());
        Self {
            name: object::name(crd).to_owned(),
            uid: object::uid(crd).to_owned(),
            group: spec("/spec/group"),
            plural: spec("/spec/names/plural"),
            kind: accepted("kind"),
            list_kind: accepted("listKind"),
            singular: accepted("singular"),
            short_names: names("shortNames"),
            categories: names("categories"),
            scope: if text(crd, "/spec/scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
            versions: versions.iter().map(|spec| version_of(spec, before)).collect(),
            storage: storage.unwrap_or_default(),
            webhook: some(crd, "/spec/conversion/webhook")
                .filter(|_| text(crd, "/spec/conversion/strategy") == "Webhook")
                .cloned(),
            ending: object::is_deleting(crd),
        }
    }

    pub fn version(&self, name: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// `GROUP/VERSION`.
    pub fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.group)
    }

    pub fn storage_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone().into(), resource: self.plural.clone().into() }
    }

    /// What is served. A definition that is being deleted serves its stored version in any case, so that its objects can be
    /// removed.
    pub fn descriptors(&self, convert: impl Fn(&Arc<Version>) -> Arc<dyn Convert>) -> Vec<Descriptor> {
        let served = |v: &&Arc<Version>| v.served || (self.ending && v.name == self.storage);
        self.versions.iter().filter(served).map(|version| self.descriptor(version, convert(version))).collect()
    }

    fn descriptor(&self, version: &Arc<Version>, convert: Arc<dyn Convert>) -> Descriptor {
        let owned = |names: &[String]| names.iter().map(|name| name.clone().into()).collect();
        Descriptor {
            group: self.group.clone().into(),
            version: version.name.clone().into(),
            also_in: &[],
            kind: self.kind.clone().into(),
            list_kind: self.list_kind.clone().into(),
            plural: self.plural.clone().into(),
            singular: self.singular.clone().into(),
            short_names: owned(&self.short_names),
            categories: owned(&self.categories),
            scope: self.scope,
            subresources: version.subresources(),
            columns: columns::of(&version.spec),
            durability: Durability::Synced,
            expires_after: None,
            selectable: version.selectable(),
            stored_as: Some(StoredAs {
                resource: self.storage_resource(),
                version: self.storage.clone().into(),
                kind: self.kind.clone().into(),
                conversion: Conversion::Custom(convert),
            }),
            definition: definition(&self.group, &version.name, &self.kind).into(),
            schema: SchemaSource::Custom(Arc::clone(&version.schema)),
            verbs: if self.ending { ENDING_VERBS } else { ALL_VERBS },
            create_on_update: false,
            revision: Revision::Required,
            returns_deleted: false,
            generation: true,
            strategy: Arc::new(strategy::Custom::new(Arc::clone(&version.schema), version.scale())),
            deprecated: version.deprecated(&self.group, &self.kind).map(Into::into),
            idle: None,
            status_keeps: WRITABLE_METADATA,
        }
    }
}

fn version_of(spec: &Value, before: Option<&Definition>) -> Arc<Version> {
    let same = before.and_then(|before| before.versions.iter().find(|version| version.spec == *spec));
    same.cloned().unwrap_or_else(|| Arc::new(Version::parse(spec)))
}

/// A definition's name in OpenAPI: the group's parts in reverse order, version and kind.
fn definition(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

impl Version {
    fn parse(spec: &Value) -> Self {
        Self {
            name: text(spec, "/name").to_owned(),
            served: is_true(spec, "/served"),
            schema: Arc::new(Schema::parse(some(spec, "/schema/openAPIV3Schema"))),
            spec: spec.clone(),
        }
    }

    /// What clients of a deprecated version are told.
    fn deprecated(&self, group: &str, kind: &str) -> Option<String> {
        let told = some(&self.spec, "/deprecationWarning").and_then(Value::as_str);
        let usual = || format!("{group}/{} {kind} is deprecated", self.name);
        is_true(&self.spec, "/deprecated").then(|| told.map_or_else(usual, str::to_owned))
    }

    fn subresources(&self) -> Vec<Subresource> {
        let status = some(&self.spec, "/subresources/status").map(|_| Subresource::Status);
        status.into_iter().chain(self.scale().map(Subresource::Scale)).collect()
    }

    fn scale(&self) -> Option<ScalePaths> {
        let scale = some(&self.spec, "/subresources/scale")?;
        let path = |field: &str| text(scale, field).to_owned();
        Some(ScalePaths {
            spec_replicas: path("/specReplicasPath").into(),
            status_replicas: path("/statusReplicasPath").into(),
            selector: Some(path("/labelSelectorPath")).filter(|path| !path.is_empty()).map(Into::into),
        })
    }

    fn selectable(&self) -> Vec<Selectable> {
        let paths = list(&self.spec, "/selectableFields").iter().map(|field| text(field, "/jsonPath"));
        let paths = paths.map(|path| path.trim_start_matches('.').to_owned());
        paths.map(|path| Selectable { path: path.clone().into(), stored: path.into(), absent: "" }).collect()
    }
}
