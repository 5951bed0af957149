//! Empties namespaces that are being deleted, then lets them go.
//!
//! What a namespace can hold is asked of discovery each time, so content of any kind goes, whoever defined it. The namespace
//! is finalized only after every kind was listed and found empty; a server behind an APIService that cannot be asked what it
//! has keeps the namespace, which says so, and nothing else from going.

pub mod conditions;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DeleteParams};
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery};
use kube::discovery::verbs;
use kube::{Api, Client, ResourceExt};

use self::conditions::{Left, Outcome};
use super::contents::Contents;
use super::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step, code_of, message_of};

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

impl FromContext for Namespaces {
    fn new(context: &Context) -> Self {
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

/// Deletes everything in the namespace and counts what is left. Pods go first: what protects or serves them, a policy or a
/// Secret, is there until the last of them has ended.
async fn empty(client: &Client, namespace: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let Content { kinds, stale } = match content(client).await {
        Ok(content) => content,
        Err(error) => {
            outcome.discovery_error = Some(message_of(&error));
            return outcome;
        }
    };
    let (pods, rest): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|(kind, _)| is_pod(kind));
    for kinds in [pods, rest] {
        let passes = kinds.into_iter().map(|(resource, collection)| async move {
            let all = Contents::of(client, &resource, namespace);
            empty_kind(&all, &resource, collection).await
        });
        for result in stream::iter(passes).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            match result {
                Ok(left) => outcome.left.push(left),
                Err(error) => outcome.delete_errors.push(message_of(&error)),
            }
        }
        if !outcome.is_empty() {
            break;
        }
    }
    outcome.discovery_error = undiscovered(&stale);
    outcome
}

fn is_pod(kind: &ApiResource) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

/// What namespaces hold.
#[derive(Debug, Default)]
struct Content {
    /// The kinds, each in its preferred version, and whether it can be deleted as a collection.
    kinds: Vec<(ApiResource, bool)>,
    /// Group versions of which it is not known what they have.
    stale: Vec<String>,
}

async fn content(client: &Client) -> kube::Result<Content> {
    let mut content = Content::default();
    let named = client.list_api_groups_aggregated().await?.items;
    let core = client.list_core_api_versions_aggregated().await?.items;
    core.into_iter().chain(named).for_each(|group| content.add(group));
    Ok(content)
}

impl Content {
    fn add(&mut self, group: APIGroupDiscovery) {
        let name = group.metadata.and_then(|meta| meta.name).unwrap_or_default();
        let mut seen = HashSet::new();
        // The first version is the preferred one.
        for version in group.versions {
            let number = version.version.unwrap_or_default();
            let api_version = if name.is_empty() { number.clone() } else { format!("{name}/{number}") };
            if version.freshness.as_deref() == Some("Stale") {
                self.stale.push(api_version);
                continue;
            }
            for found in version.resources {
                let plural = found.resource.clone().unwrap_or_default();
                if !seen.insert(plural.clone()) || !is_content(&found) {
                    continue;
                }
                let resource = ApiResource {
                    group: name.clone(),
                    version: number.clone(),
                    api_version: api_version.clone(),
                    kind: found.response_kind.and_then(|kind| kind.kind).unwrap_or_default(),
                    plural,
                };
                self.kinds.push((resource, found.verbs.iter().any(|verb| verb == verbs::DELETE_COLLECTION)));
            }
        }
    }
}

fn is_content(found: &APIResourceDiscovery) -> bool {
    let can = |verb: &str| found.verbs.iter().any(|v| v == verb);
    found.scope.as_deref() == Some("Namespaced") && can(verbs::LIST) && can(verbs::DELETE)
}

/// What Kubernetes says of group versions that could not be discovered.
fn undiscovered(stale: &[String]) -> Option<String> {
    let each: Vec<String> = stale.iter().map(|gv| format!("{gv}: stale GroupVersion discovery: {gv}")).collect();
    let all = format!("unable to retrieve the complete list of server APIs: {}", each.join(", "));
    (!each.is_empty()).then(|| format!("Discovery failed for some groups, {} failing: {all}", each.len()))
}

async fn empty_kind(all: &Contents<'_>, resource: &ApiResource, collection: bool) -> kube::Result<Left> {
    let present = all.list().await?;
    if !present.is_empty() {
        if collection {
            all.delete_all(&DeleteParams::background()).await?;
        } else {
            for object in &present {
                match all.delete(&object.name, &DeleteParams::background()).await {
                    Err(error) if code_of(&error) != Some(404) => return Err(error),
                    _ => {}
                }
            }
        }
    }
    let left = if present.is_empty() { present } else { all.list().await? };
    let mut finalizers = BTreeMap::new();
    for name in left.iter().flat_map(|object| &object.finalizers) {
        *finalizers.entry(name.clone()).or_default() += 1;
    }
    let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
    Ok(Left { resource: format!("{}{group}", resource.plural), count: left.len(), finalizers })
}
