//! Custom kinds: what the server serves follows the CustomResourceDefinitions that are stored.
//!
//! One task reads them whenever one changes and gives the server a new registry. What must stay true: the answer to a write
//! of a definition is sent after its kinds are served so; a definition that did not change keeps its descriptors.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;
use wherry_api::custom::{self, Definition};
use wherry_api::registry::Registry;
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::status::ApiError;

use super::error::ServerError;
use super::{Inner, Server, answer};
use crate::cache::{At, Entry, Filter};
use crate::store::{Key, Precondition, Revision};

mod convert;

/// How long a write of a definition waits for its kinds to be served.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What definitions were read, and up to which revision they are served.
#[derive(Debug)]
pub(super) struct Definitions {
    served: watch::Sender<Revision>,
    /// By name. Bound: the definitions that are stored.
    known: tokio::sync::Mutex<HashMap<Box<str>, Known>>,
}

#[derive(Debug)]
struct Known {
    revision: Revision,
    descriptors: Vec<Arc<Descriptor>>,
}

impl Default for Definitions {
    fn default() -> Self {
        Self { served: watch::Sender::new(0), known: tokio::sync::Mutex::default() }
    }
}

fn resource() -> GroupResource {
    GroupResource { group: "apiextensions.k8s.io".into(), resource: "customresourcedefinitions".into() }
}

impl Definitions {
    /// Returns when what `revision` wrote to a definition is served, or after a while.
    pub(super) async fn served(&self, revision: Revision) {
        let mut served = self.served.subscribe();
        if timeout(PATIENCE, served.wait_for(|served| *served >= revision)).await.is_err() {
            tracing::warn!(revision, "a definition's kinds are not served yet");
        }
    }

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
        let registry = self.registry();
        let GroupResource { group, resource } = resource();
        let Some(kind) = registry.by_group_resource(&group, &resource).cloned() else { return Ok(None) };
        let definitions = &self.inner.definitions;
        let mut known = definitions.known.lock().await;
        let list = self.cache().list(&kind, &Filter::default(), At::Latest, None, 0).await?;
        let mut next = HashMap::new();
        let mut changed = known.len() != list.entries.len();
        for entry in &list.entries {
            let name = entry.meta.name.clone();
            let kept = known.remove(&name).filter(|before| before.revision == entry.revision);
            changed |= kept.is_none();
            next.insert(
                name,
                match kept {
                    Some(kept) => kept,
                    None => Known { revision: entry.revision, descriptors: self.define(entry)? },
                },
            );
        }
        if changed {
            self.serve(registry.with_custom(ordered(&registry, &next))).await?;
        }
        *known = next;
        definitions.served.send_replace(list.revision);
        Ok(Some((kind, list.revision)))
    }

    fn define(&self, entry: &Entry) -> Result<Vec<Arc<Descriptor>>, ServerError> {
        let crd = answer::parse(&entry.bytes)?;
        if !custom::is_accepted(&crd) {
            return Ok(Vec::new());
        }
        let definition = Arc::new(Definition::parse(&crd));
        let webhook = convert::Webhook::of(&definition, self.outbound());
        let descriptors = definition.descriptors(|version| {
            Arc::new(convert::Converter::new(&definition, version, entry.revision, webhook.clone()))
        });
        Ok(descriptors.into_iter().map(Arc::new).collect())
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
