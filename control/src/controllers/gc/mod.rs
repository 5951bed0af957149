//! Deletes what has lost its owner, holds back owners that wait for their dependents, and releases dependents of owners that
//! want them to stay.
//!
//! Works on metadata of every kind that discovery lists, those of later CRDs as well. The graph only says where to look:
//! before anything is deleted the object and its owners are read from the server, and the delete names the uid.
//!
//! An owner is where its reference says: in the dependent's namespace, or in none. Who names one in another namespace has lost it,
//! and is told so; who has no namespace and names an owner of a kind that has is left alone.

mod dependent;
pub mod graph;
mod monitor;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ObjectMeta, Patch, Preconditions, PropagationPolicy,
};
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use self::graph::{FOREGROUND, Fate, Graph, Node, ORPHAN, Owner, Standing, Task, Uid, fate, owners};
use super::write;
use crate::controllers::Context;
use crate::reconcile::events::Type;
use crate::reconcile::{Controller, Error, Queue, Shared, Step, absent_is_fine};

pub const NAME: &str = "garbagecollector";
/// Owners that the server said are gone; emptied when full.
const GONE: usize = 4096;
/// The first look waits this long at most for every kind to be listed. Live reads make an early look safe.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shared by the workers and the monitors of all kinds.
#[derive(Debug)]
struct Gc {
    shared: Arc<Shared>,
    graph: RwLock<Graph>,
    /// As dependents of a namespace name them. Bound: [`GONE`].
    gone: Mutex<HashSet<(Owner, Arc<str>)>>,
    kinds: RwLock<Option<Arc<Kinds>>>,
    /// Set when the workers start.
    queue: watch::Sender<Option<Queue<Task>>>,
    /// Every kind has been listed once.
    synced: watch::Sender<bool>,
    /// Somebody met a kind that discovery did not list.
    unknown: Notify,
}

/// What discovery says.
struct Kinds(Discovery);

impl std::fmt::Debug for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kinds").field("groups", &self.0.groups().count()).finish()
    }
}

/// The workers and the monitors, until the context says stop.
pub fn start(context: &Context) -> BoxFuture<'static, ()> {
    let gc = Arc::new(Gc {
        shared: context.shared.clone(),
        graph: RwLock::default(),
        gone: Mutex::default(),
        kinds: RwLock::default(),
        queue: watch::Sender::new(None),
        synced: watch::Sender::new(false),
        unknown: Notify::new(),
    });
    let context = context.clone();
    Box::pin(async move {
        let monitors = monitor::run(gc.clone(), context.stop.clone());
        tokio::join!(context.run(Collector(gc)), monitors);
    })
}

#[derive(Debug)]
struct Collector(Arc<Gc>);

impl Controller for Collector {
    type Key = Task;
    const NAME: &'static str = NAME;
    const WORKERS: usize = 128;

    fn watch(self: &Arc<Self>, queue: &Queue<Task>) {
        self.0.queue.send_replace(Some(queue.clone()));
    }

    /// The monitors find everything that is to be looked at.
    fn keys(&self) -> Vec<Task> {
        Vec::new()
    }

    async fn reconcile(&self, task: &Task) -> Result<Option<Duration>, Error> {
        match task {
            Task::Report { dependent, owner } => self.0.report(dependent, owner),
            Task::Check(uid) => {
                self.0.synced().await;
                self.0.check(uid).await?;
            }
            Task::Orphan(uid) => {
                self.0.synced().await;
                self.0.orphan(uid).await?;
            }
        }
        Ok(None)
    }
}

impl Gc {
    /// Waits until every monitor has listed, with patience.
    async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        let _ = tokio::time::timeout(PATIENCE, synced.wait_for(|done| *done)).await;
    }

    fn client(&self) -> Client {
        self.shared.client.clone()
    }

    fn put(&self, resource: &Arc<ApiResource>, meta: &ObjectMeta) {
        let tasks = self.graph.write().put(resource, meta);
        self.enqueue(tasks);
    }

    fn remove(&self, uid: &str) {
        let mut graph = self.graph.write();
        let namespace = graph.get(uid).map(|node| node.key.namespace.clone());
        let tasks = graph.remove(uid);
        drop(graph);
        if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
            self.shared.departures.tell(&namespace);
        }
        self.enqueue(tasks);
    }

    fn enqueue(&self, tasks: Vec<Task>) {
        if let Some(queue) = &*self.queue.borrow() {
            for task in tasks {
                queue.add(task);
            }
        }
    }

    fn api(&self, node: &Node) -> Api<DynamicObject> {
        if node.key.namespace.is_empty() {
            Api::all_with(self.client(), &*node.resource)
        } else {
            Api::namespaced_with(self.client(), &node.key.namespace, &*node.resource)
        }
    }

    /// The object's metadata, if it is still there.
    async fn live(&self, uid: &str, node: &Node) -> Result<Option<ObjectMeta>, Error> {
        let found = self.api(node).get_metadata_opt(&node.key.name).await.step("read an object's metadata")?;
        let found = found.map(|object| object.metadata).filter(|meta| meta.uid.as_deref() == Some(uid));
        if found.is_none() {
            self.remove(uid);
        }
        Ok(found)
    }

    async fn check(&self, uid: &Uid) -> Result<(), Error> {
        let Some(node) = self.graph.read().get(uid).cloned() else { return Ok(()) };
        if node.waits() {
            return self.finish(uid, &node).await;
        }
        if node.deleting || node.owners.is_empty() {
            return Ok(());
        }
        let Some(meta) = self.live(uid, &node).await? else { return Ok(()) };
        if meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut standings = Vec::new();
        for owner in &owners(&meta) {
            let Some(standing) = self.standing(&node, owner).await? else { return Ok(()) };
            standings.push((owner.uid.clone(), standing));
        }
        let parent = !self.graph.read().dependents(uid).is_empty();
        match fate(&node, parent, &standings) {
            Fate::Stays => Ok(()),
            Fate::Unlink(lost) => self.unlink(&node, &meta, &lost).await,
            Fate::Foreground => {
                self.break_circle(uid, &node, &meta).await?;
                self.delete(uid, &node, PropagationPolicy::Foreground).await
            }
            Fate::Background => self.delete(uid, &node, PropagationPolicy::Background).await,
            Fate::Orphan => self.delete(uid, &node, PropagationPolicy::Orphan).await,
        }
    }

    /// How an owner of `node` stands; `None`: it is nowhere to be found, and that will not change.
    async fn standing(&self, node: &Node, owner: &Owner) -> Result<Option<Standing>, Error> {
        let known = |waits: bool| Ok(Some(if waits { Standing::Waiting } else { Standing::Solid }));
        let place = &node.key.namespace;
        if let Some(found) = self.graph.read().get(&owner.uid).filter(|known| known.is(owner, place)) {
            return known(found.waits());
        }
        let named = (owner.clone(), place.clone());
        if self.gone.lock().contains(&named) {
            return Ok(Some(Standing::Gone));
        }
        let Some(api) = self.owner_api(node, owner)? else { return Ok(None) };
        let found = api.get_metadata_opt(&owner.name).await.step("read an owner")?.map(|object| object.metadata);
        let Some(meta) = found.filter(|meta| meta.uid.as_deref() == Some(&*owner.uid)) else {
            let mut gone = self.gone.lock();
            if gone.len() >= GONE {
                gone.clear();
            }
            gone.insert(named);
            return Ok(Some(Standing::Gone));
        };
        let foreground = meta.finalizers.iter().flatten().any(|name| name == FOREGROUND);
        known(meta.deletion_timestamp.is_some() && foreground)
    }

    /// Tells, as an event, that an object names an owner that is in another namespace, if it still does.
    fn report(&self, dependent: &Uid, owner: &Uid) {
        let graph = self.graph.read();
        let (Some(node), Some(known)) = (graph.get(dependent), graph.get(owner)) else { return };
        let Some(named) = node.owned_by(owner).filter(|_| !known.reaches(&node.key.namespace)) else { return };
        let namespace = &node.key.namespace;
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {owner}] does not exist in namespace {namespace:?}",
            named.api_version, named.kind, named.name
        );
        let about = ObjectReference {
            api_version: Some(node.resource.api_version.clone()),
            kind: Some(node.resource.kind.clone()),
            namespace: Some(namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: Some(node.key.name.to_string()),
            uid: Some(dependent.to_string()),
            ..ObjectReference::default()
        };
        let events = self.shared.events.component("garbage-collector-controller");
        events.about(about, Type::Warning, "OwnerRefInvalidNamespace", message);
    }

    /// Where an owner is found; `None`: nowhere, as its kind has namespaces and the dependent has none.
    fn owner_api(&self, node: &Node, owner: &Owner) -> Result<Option<Api<DynamicObject>>, Error> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let kinds = self.kinds.read().clone();
        let Some((resource, caps)) = kinds.and_then(|kinds| kinds.0.resolve_gvk(&kind)) else {
            self.unknown.notify_one();
            return Err(Error::Unfinished(format!("no such kind: {} {}", owner.api_version, owner.kind)));
        };
        Ok(match caps.scope {
            Scope::Namespaced if node.key.namespace.is_empty() => None,
            Scope::Namespaced => Some(Api::namespaced_with(self.client(), &node.key.namespace, &resource)),
            Scope::Cluster => Some(Api::all_with(self.client(), &resource)),
        })
    }

    async fn delete(&self, uid: &str, node: &Node, policy: PropagationPolicy) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        absent_is_fine(self.api(node).delete(&node.key.name, &params).await).step("delete a dependent")?;
        Ok(())
    }

    /// If one of an object's dependents waits already, its owners may wait for it in a circle: it blocks them no more.
    async fn break_circle(&self, uid: &str, node: &Node, meta: &ObjectMeta) -> Result<(), Error> {
        let blocks = node.owners.iter().any(|owner| owner.blocks);
        if !blocks || !self.graph.read().dependents(uid).iter().any(|(_, dependent)| dependent.waits()) {
            return Ok(());
        }
        let mut owners = meta.owner_references.clone().unwrap_or_default();
        for owner in &mut owners {
            owner.block_owner_deletion = Some(false);
        }
        self.patch(node, meta, json!({"ownerReferences": owners})).await
    }

    /// An owner in foreground deletion goes when nothing blocks it.
    async fn finish(&self, uid: &str, node: &Node) -> Result<(), Error> {
        let blocking = self.graph.read().blocking(uid);
        if blocking.is_empty() {
            return self.drop_finalizer(uid, node, FOREGROUND).await;
        }
        self.enqueue(
            blocking.into_iter().filter(|(_, node)| !node.deleting).map(|(uid, _)| Task::Check(uid)).collect(),
        );
        Ok(())
    }

    async fn orphan(&self, uid: &Uid) -> Result<(), Error> {
        let Some(node) = self.graph.read().get(uid).cloned().filter(|n| n.deleting && n.orphan) else { return Ok(()) };
        let dependents = self.graph.read().dependents(uid);
        for (dependent, node) in dependents {
            if let Some(meta) = self.live(&dependent, &node).await? {
                self.unlink(&node, &meta, std::slice::from_ref(uid)).await?;
            }
        }
        self.drop_finalizer(uid, &node, ORPHAN).await
    }

    /// Removes references to owners.
    async fn unlink(&self, node: &Node, meta: &ObjectMeta, lost: &[Uid]) -> Result<(), Error> {
        let is_lost = |uid: &str| lost.iter().any(|lost| **lost == *uid);
        let kept: Vec<_> = meta.owner_references.iter().flatten().filter(|o| !is_lost(&o.uid)).collect();
        self.patch(node, meta, json!({"ownerReferences": kept})).await
    }

    async fn drop_finalizer(&self, uid: &str, node: &Node, name: &str) -> Result<(), Error> {
        let Some(meta) = self.live(uid, node).await? else { return Ok(()) };
        let kept: Vec<_> = meta.finalizers.iter().flatten().filter(|finalizer| *finalizer != name).collect();
        if meta.finalizers.as_ref().is_some_and(|all| all.len() == kept.len()) {
            return Ok(());
        }
        self.patch(node, &meta, json!({"finalizers": kept})).await
    }

    /// Merges into the metadata of the version that was read.
    async fn patch(&self, node: &Node, read: &ObjectMeta, mut change: Value) -> Result<(), Error> {
        if let Some(fields) = change.as_object_mut() {
            fields.insert("resourceVersion".to_owned(), json!(read.resource_version));
            fields.insert("uid".to_owned(), json!(read.uid));
        }
        let patch = Patch::Merge(json!({"metadata": change}));
        let answer = self.api(node).patch_metadata(&node.key.name, &write::patching(), &patch).await;
        absent_is_fine(answer).step("change an object's metadata")?;
        Ok(())
    }
}
