//! Custom kinds: what the server serves follows the CustomResourceDefinitions that are stored.
//!
//! They are read whenever one changes, and the server is given a new registry: by the write itself, whose answer is sent
//! after that, and by a task that follows. What must stay true: no write of a definition is answered before its kinds are
//! served so; a definition that did not change keeps its descriptors, and a version that did not change its schema.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use wherry_api::custom::{self, Definition};
use wherry_api::registry::Registry;
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::status::ApiError;

use super::error::ServerError;
use super::{Inner, Server, answer};
use crate::cache::{At, Entry, Filter};
use crate::store::{Key, Precondition, Revision};

mod convert;

/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What definitions were read.
#[derive(Debug, Default)]
pub(super) struct Definitions(tokio::sync::Mutex<Read>);

#[derive(Debug, Default)]
struct Read {
    /// Up to which revision they are served.
    served: Revision,
    /// By name. Bound: the definitions that are stored.
    known: HashMap<Box<str>, Known>,
}

#[derive(Debug)]
struct Known {
    revision: Revision,
    /// `None`: it is not accepted.
    definition: Option<Arc<Definition>>,
    descriptors: Vec<Arc<Descriptor>>,
}

fn resource() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

impl Definitions {
    /// Whether a write to this key changes what is served.
    pub(super) fn concerns(key: &Key) -> bool {
        key.as_str().starts_with(&Key::prefix(&resource()))
    }
}

/// What clients are told who create something of a kind that is going.
pub(super) fn ending() -> ApiError {
    let mut error = ApiError::method_not_allowed();
    "create not allowed while custom resource definition is terminating".clone_into(&mut error.message);
    error
}

/// What must stay in the store as it is when an object of a custom kind is created, or the object might outlive its
/// definition, which is gone when it has been emptied. `None`: the kind is built in. Errors: 404, 405.
pub(super) fn hold(server: &Server, resource: &Descriptor) -> Result<Option<(Key, Precondition)>, ApiError> {
    let Some(uid) = resource.defined_by() else { return Ok(None) };
    let name = resource.group_resource().to_string();
    match server.cache().get(&self::resource(), "", &name) {
        Some(entry) if *entry.meta.uid != *uid => Err(ApiError::no_such_path()),
        Some(entry) if entry.meta.deleting => Err(ending()),
        Some(entry) => Ok(Some((entry.key.clone(), Precondition::At(entry.revision)))),
        None => Err(ApiError::no_such_path()),
    }
}

/// Follows the definitions until the server stops.
pub(super) fn keep(server: &Server) {
    let (weak, stopping) = (Arc::downgrade(&server.inner), server.stopping().clone());
    server.tasks().spawn(async move { stopping.run_until_cancelled(follow(weak)).await });
}

async fn follow(server: Weak<Inner>) {
    loop {
        let Some(inner) = server.upgrade() else { return };
        let server_now = Server { inner };
        let read = server_now.read_definitions().await;
        let events = match &read {
            Ok(Some((kind, revision))) => server_now.cache().watch(kind, Filter::default(), Some(*revision)).await,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "definitions cannot be read");
                drop(server_now);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        drop(server_now);
        let Ok(mut events) = events else { continue };
        // The first event ends the wait; those that came with it are read with it.
        if events.next().await.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
        while events.next().now_or_never().flatten().is_some() {}
    }
}

impl Server {
    /// Serves what the stored definitions define; returns their own descriptor and the revision that was read.
    pub(super) async fn read_definitions(&self) -> Result<Option<(Arc<Descriptor>, Revision)>, ServerError> {
        self.serve_definitions(Revision::MAX).await
    }

    /// The same, unless another caller has served what was written up to a revision.
    pub(super) async fn serve_definitions(
        &self,
        up_to: Revision,
    ) -> Result<Option<(Arc<Descriptor>, Revision)>, ServerError> {
        let GroupResource { group, resource } = resource();
        let mut read = self.inner.definitions.0.lock().await;
        let registry = self.registry();
        let Some(kind) = registry.by_group_resource(&group, &resource).cloned() else { return Ok(None) };
        if read.served >= up_to {
            return Ok(Some((kind, read.served)));
        }
        let list = self.cache().list(&kind, &Filter::default(), At::Latest, None, 0).await?;
        let mut next = HashMap::with_capacity(list.entries.len());
        let mut changed = read.known.len() != list.entries.len();
        for entry in &list.entries {
            let known = match read.known.remove(&entry.meta.name) {
                Some(same) if same.revision == entry.revision => same,
                before => {
                    changed = true;
                    let before = before.and_then(|before| before.definition);
                    self.define(entry, before.as_deref()).unwrap_or_else(|error| {
                        let error: &dyn std::error::Error = &error;
                        tracing::error!(error, name = %entry.meta.name, "a definition cannot be read and is not served");
                        Known { revision: entry.revision, definition: None, descriptors: Vec::new() }
                    })
                }
            };
            next.insert(entry.meta.name.clone(), known);
        }
        if changed {
            self.serve(registry.with_custom(ordered(&registry, &next))).await?;
        }
        *read = Read { served: list.revision, known: next };
        Ok(Some((kind, list.revision)))
    }

    /// Reads one definition; `before` is what it was.
    fn define(&self, entry: &Entry, before: Option<&Definition>) -> Result<Known, ServerError> {
        let (crd, revision) = (answer::parse(&entry.bytes)?, entry.revision);
        if !custom::is_accepted(&crd) {
            return Ok(Known { revision, definition: None, descriptors: Vec::new() });
        }
        let definition = Arc::new(Definition::parse_after(&crd, before));
        let webhook = convert::Webhook::of(&definition, self.outbound());
        let descriptors = definition
            .descriptors(|version| Arc::new(convert::Converter::new(&definition, version, revision, webhook.clone())));
        let descriptors = descriptors.into_iter().map(Arc::new).collect();
        Ok(Known { revision, definition: Some(definition), descriptors })
    }
}

/// All descriptors by group, then by name; none in the place of a built-in kind.
fn ordered(registry: &Registry, known: &HashMap<Box<str>, Known>) -> Vec<Arc<Descriptor>> {
    let builtin = |d: &Descriptor| {
        let found = registry.by_plural(&d.group, &d.version, &d.plural);
        found.is_some_and(|found| matches!(found.schema, wherry_api::resource::SchemaSource::BuiltIn(_)))
    };
    let all = known.values().flat_map(|known| &known.descriptors);
    let mut all: Vec<_> = all.filter(|d| !builtin(d)).cloned().collect();
    all.sort_by(|a, b| (&a.group, &a.plural, &a.version).cmp(&(&b.group, &b.plural, &b.version)));
    all
}
