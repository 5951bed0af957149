//! Empties namespaces that are being deleted, then lets them go.
//!
//! What a namespace can hold is asked of discovery each time, so content of any kind goes, whoever defined it. The namespace
//! is finalized only after every kind was listed and found empty.

pub mod conditions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::discovery::{ApiCapabilities, Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};

use self::conditions::{Left, Outcome};
use super::write;
use crate::reconcile::driver::itself;
use crate::reconcile::{Context, Controller, Error, Key, Queue, Shared, Step, code_of, message_of};

/// The finalizer that keeps a namespace until it is empty.
const FINALIZER: &str = "kubernetes";
/// Content that ends gracefully is looked for again after this time.
const AGAIN: Duration = Duration::from_millis(500);
/// Kinds that are emptied at once.
const AT_ONCE: usize = 16;

#[derive(Debug)]
pub struct Namespaces {
    shared: Arc<Shared>,
}

impl Namespaces {
    pub fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

impl Controller for Namespaces {
    type Key = Key;
    const NAME: &'static str = "namespace";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.namespaces.subscribe(itself(queue));
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.namespaces.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.shared.namespaces.get(key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_none() || !holds(&namespace) {
            return Ok(None);
        }
        let outcome = empty(&self.shared.client, &namespace.name_any()).await;
        if outcome.is_empty() {
            return self.finalize(&namespace).await.map(|()| None);
        }
        self.show(&namespace, &outcome).await?;
        match outcome.delete_errors.first().or(outcome.discovery_error.as_ref()) {
            Some(error) => Err(Error::Unfinished(error.clone())),
            None => Ok(Some(AGAIN)),
        }
    }
}

fn holds(namespace: &Namespace) -> bool {
    finalizers(namespace).iter().any(|name| name == FINALIZER)
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default()
}

impl Namespaces {
    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let mut next = namespace.clone();
        if let Some(spec) = &mut next.spec {
            spec.finalizers = Some(finalizers(namespace).iter().filter(|name| *name != FINALIZER).cloned().collect());
        }
        let api: Api<Namespace> = Api::all(self.shared.client.clone());
        match api.replace_subresource("finalize", &namespace.name_any(), &write::post(), &next).await {
            Ok(_) => Ok(()),
            Err(error) if code_of(&error) == Some(404) => Ok(()),
            Err(error) => Err(error).step("finalize the namespace"),
        }
    }

    async fn show(&self, namespace: &Namespace, outcome: &Outcome) -> Result<(), Error> {
        let shown = namespace.status.clone().unwrap_or_default();
        let mut status = shown.clone();
        let present = shown.conditions.clone().unwrap_or_default();
        status.conditions = Some(conditions::conditions(outcome, &present, Timestamp::now()));
        if status == shown {
            return Ok(());
        }
        let api = Api::all(self.shared.client.clone());
        write::status(&api, &self.shared.namespaces, namespace, &shown, &status).await
    }
}

/// Deletes everything in the namespace and counts what is left.
async fn empty(client: &Client, namespace: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let kinds = match content_kinds(client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            outcome.discovery_error = Some(message_of(&error));
            return outcome;
        }
    };
    let passes = kinds.into_iter().map(|(resource, collection)| async move {
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        empty_kind(&api, &resource, collection).await
    });
    for result in stream::iter(passes).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        match result {
            Ok(left) => outcome.left.push(left),
            Err(error) => outcome.delete_errors.push(message_of(&error)),
        }
    }
    outcome
}

/// The kinds that namespaces hold, and whether each can be deleted as a collection.
async fn content_kinds(client: &Client) -> kube::Result<Vec<(ApiResource, bool)>> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let all = discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources);
    let content = |caps: &ApiCapabilities| {
        caps.scope == Scope::Namespaced
            && caps.supports_operation(verbs::LIST)
            && caps.supports_operation(verbs::DELETE)
    };
    Ok(all
        .filter(|(_, caps)| content(caps))
        .map(|(resource, caps)| (resource, caps.supports_operation(verbs::DELETE_COLLECTION)))
        .collect())
}

async fn empty_kind(api: &Api<DynamicObject>, resource: &ApiResource, collection: bool) -> kube::Result<Left> {
    let present = api.list_metadata(&ListParams::default()).await?.items;
    if !present.is_empty() {
        if collection {
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        } else {
            for object in &present {
                match api.delete(&object.name_any(), &DeleteParams::background()).await {
                    Err(error) if code_of(&error) != Some(404) => return Err(error),
                    _ => {}
                }
            }
        }
    }
    let left = if present.is_empty() { present } else { api.list_metadata(&ListParams::default()).await?.items };
    let mut finalizers = BTreeMap::new();
    for name in left.iter().flat_map(ResourceExt::finalizers) {
        *finalizers.entry(name.clone()).or_default() += 1;
    }
    let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
    Ok(Left { resource: format!("{}{group}", resource.plural), count: left.len(), finalizers })
}
