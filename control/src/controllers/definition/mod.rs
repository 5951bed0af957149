//! CustomResourceDefinitions: accepts their names, establishes them, and empties them before they go.
//!
//! A definition is served once its names are accepted; the answer to that write comes after the server serves it, so whoever
//! sees `Established`, which is written next, can use the kind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionStatus,
};
use kube::api::{ApiResource, DeleteParams, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::json;
use wherry_api::custom::FINALIZER;

use super::contents::Contents;
use super::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step, code_of};

mod plan;

use plan::Ending;

/// While objects are being removed.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Definitions {
    shared: Arc<Shared>,
}

impl FromContext for Definitions {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

impl Controller for Definitions {
    type Key = Key;
    const NAME: &'static str = "customresourcedefinition";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.definitions.subscribe(itself(queue));
        let (to, shared) = (queue.clone(), self.shared.clone());
        // Names that became free may be wanted by another definition of the group.
        self.shared.definitions.subscribe(move |change| {
            let Some(group) = change.old.filter(|_| change.new.is_none()).map(|old| old.spec.group.clone()) else {
                return;
            };
            let others = shared.definitions.grouped_by(&group).into_iter();
            others.for_each(|other| to.add(Key::of(&*other)));
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.definitions.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(definition) = self.shared.definitions.get(key) else { return Ok(None) };
        if definition.metadata.deletion_timestamp.is_some() {
            return self.end(&definition).await;
        }
        let group = self.shared.definitions.grouped_by(&definition.spec.group).into_iter();
        let others = group.filter(|other| other.name_any() != definition.name_any());
        let taken: BTreeSet<String> = others.flat_map(|other| plan::names(&other)).collect();
        let shown = definition.status.clone().unwrap_or_default();
        let status = plan::accept(&definition.spec.names, &shown, &taken, Timestamp::now());
        self.show(&definition, &shown, &status).await?;
        Ok(None)
    }
}

impl Definitions {
    fn api(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.shared.client.clone())
    }

    async fn show(
        &self,
        definition: &CustomResourceDefinition,
        shown: &CustomResourceDefinitionStatus,
        status: &CustomResourceDefinitionStatus,
    ) -> Result<(), Error> {
        if shown == status {
            return Ok(());
        }
        write::status(&self.api(), &self.shared.definitions, definition, shown, status).await
    }

    /// Removes the objects, then the finalizer.
    async fn end(&self, definition: &CustomResourceDefinition) -> Result<Option<Duration>, Error> {
        if !definition.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(None);
        }
        let shown = definition.status.clone().unwrap_or_default();
        let left = if plan::is_served(&shown) { self.empty(definition).await? } else { 0 };
        let step = if left > 0 { Ending::Removing } else { Ending::Removed };
        let status = plan::ending(&shown, step, Timestamp::now());
        if shown != status {
            // The watch brings the definition back with its new version.
            return self.show(definition, &shown, &status).await.map(|()| Some(AGAIN));
        }
        if left > 0 {
            return Ok(Some(AGAIN));
        }
        let kept: Vec<_> = definition.finalizers().iter().filter(|name| *name != FINALIZER).collect();
        let patch = json!({"metadata": {"finalizers": kept}});
        write::merge(&self.api(), &self.shared.definitions, definition, patch).await?;
        Ok(None)
    }

    /// Deletes all objects of the kind, in the version that needs no conversion; returns how many were left before.
    async fn empty(&self, definition: &CustomResourceDefinition) -> Result<usize, Error> {
        let spec = &definition.spec;
        let Some(version) = spec.versions.iter().find(|version| version.storage) else { return Ok(0) };
        let kind = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &spec.names.plural);
        let all = Contents::of(&self.shared.client, &resource, "");
        let found = match all.list().await {
            Ok(found) => found,
            Err(error) if code_of(&error) == Some(404) => return Ok(0),
            Err(error) => return Err(error).step("list the objects of a definition"),
        };
        let namespaces: BTreeSet<&str> = found.iter().map(|object| object.namespace.as_str()).collect();
        for namespace in namespaces {
            let gone =
                Contents::of(&self.shared.client, &resource, namespace).delete_all(&DeleteParams::default()).await;
            gone.step("delete the objects of a definition")?;
        }
        if found.is_empty() {
            return Ok(0);
        }
        // Those that nothing holds are gone already.
        Ok(all.list().await.step("list the objects of a definition")?.len())
    }
}
