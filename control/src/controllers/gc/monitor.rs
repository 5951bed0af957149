//! Keeps the graph up to date: the shared caches tell about the kinds that they hold, a metadata watch about each other one.
//!
//! Discovery is asked again every half minute, and soon after a kind was defined or an unknown one met; kinds that appear are
//! watched, those that are gone take their objects with them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, ReplicationController, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ApiResource;
use kube::discovery::{Discovery, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::dependent::Dependent;
use super::{Gc, Kinds, PATIENCE};
use crate::reconcile::kinds::Kind;
use crate::reconcile::{Store, uid};

const DISCOVER: Duration = Duration::from_secs(30);
/// Asked for by unknown kinds, discovery is not read more often than this.
const SOONEST: Duration = Duration::from_secs(1);

/// Runs until told to stop.
pub(super) async fn run(gc: Arc<Gc>, stop: CancellationToken) {
    let mut queue = gc.queue.subscribe();
    tokio::select! {
        _ = queue.wait_for(Option::is_some) => {}
        () = stop.cancelled() => return,
    }
    let shared = follow_shared(&gc);
    let mut monitors = Monitors { gc: gc.clone(), shared, tasks: JoinSet::new(), running: HashMap::new() };
    loop {
        monitors.discover().await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(DISCOVER) => {}
            () = gc.unknown.notified() => tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(SOONEST) => {}
            },
        }
    }
    monitors.tasks.shutdown().await;
}

/// Subscribes to the shared caches that hold all objects of their kind; the result names the kinds.
fn follow_shared(gc: &Arc<Gc>) -> HashSet<(String, String)> {
    let shared = &gc.shared;
    let of_definitions = gc.clone();
    shared.definitions.subscribe(move |_| of_definitions.unknown.notify_one());
    let kinds = [
        follow::<Pod>(gc, &shared.pods),
        follow::<ReplicaSet>(gc, &shared.replica_sets),
        follow::<ReplicationController>(gc, &shared.replication_controllers),
        follow::<Deployment>(gc, &shared.deployments),
        follow::<Service>(gc, &shared.services),
        follow::<Endpoints>(gc, &shared.endpoints),
        follow::<EndpointSlice>(gc, &shared.endpoint_slices),
        follow::<Namespace>(gc, &shared.namespaces),
        follow::<Node>(gc, &shared.nodes),
        follow::<ServiceAccount>(gc, &shared.service_accounts),
    ];
    kinds.into_iter().collect()
}

fn follow<K: Kind>(gc: &Arc<Gc>, store: &Store<K>) -> (String, String) {
    let resource = Arc::new(ApiResource::erase::<K>(&()));
    let kind = (resource.group.clone(), resource.plural.clone());
    let gc = gc.clone();
    store.subscribe(move |change| {
        if let Some(old) = change.old
            && change.new.is_none_or(|new| uid(&**new) != uid(&**old))
        {
            gc.remove(uid(&**old));
        }
        if let Some(new) = change.new {
            gc.put(&resource, new.meta());
        }
    });
    kind
}

struct Monitors {
    gc: Arc<Gc>,
    /// Group and plural of what the shared caches tell about.
    shared: HashSet<(String, String)>,
    /// One per kind.
    tasks: JoinSet<()>,
    running: HashMap<ApiResource, Running>,
}

struct Running {
    task: AbortHandle,
    listed: watch::Receiver<bool>,
}

impl Monitors {
    async fn discover(&mut self) {
        let discovery = match Discovery::new(self.gc.client()).run_aggregated().await {
            Ok(discovery) => discovery,
            Err(error) => return warn!(%error, "discovery failed; will try again"),
        };
        let wanted: HashSet<ApiResource> = discovery
            .groups()
            .flat_map(kube::discovery::ApiGroup::recommended_resources)
            .filter(|(_, caps)| {
                [verbs::LIST, verbs::WATCH, verbs::DELETE].iter().all(|verb| caps.supports_operation(verb))
            })
            .map(|(resource, _)| resource)
            .filter(|r| r.plural != "events" && !self.shared.contains(&(r.group.clone(), r.plural.clone())))
            .collect();
        *self.gc.kinds.write() = Some(Arc::new(Kinds(discovery)));
        let gone: Vec<_> = self.running.keys().filter(|resource| !wanted.contains(resource)).cloned().collect();
        for resource in &gone {
            self.stop(resource);
        }
        for resource in wanted {
            if !self.running.contains_key(&resource) {
                self.start(resource);
            }
        }
        while self.tasks.try_join_next().is_some() {}
        self.report();
    }

    fn start(&mut self, resource: ApiResource) {
        debug!(group = resource.group, plural = resource.plural, "watching for the garbage collector");
        let (listed, receiver) = watch::channel(false);
        let task = self.tasks.spawn(monitor(self.gc.clone(), Arc::new(resource.clone()), listed));
        self.running.insert(resource, Running { task, listed: receiver });
    }

    fn stop(&mut self, resource: &ApiResource) {
        if let Some(running) = self.running.remove(resource) {
            running.task.abort();
            let uids = self.gc.graph.read().of_resource(resource);
            for uid in &uids {
                self.gc.remove(uid);
            }
        }
    }

    /// Has the workers know when every kind was listed.
    fn report(&mut self) {
        if *self.gc.synced.borrow() {
            return;
        }
        let receivers: Vec<_> = self.running.values().map(|running| running.listed.clone()).collect();
        let gc = self.gc.clone();
        self.tasks.spawn(async move {
            let listed = async {
                for mut receiver in receivers {
                    // A kind that went away need not be waited for.
                    let _ = receiver.wait_for(|listed| *listed).await;
                }
            };
            // Nor for ever one whose server, another one than this, does not list it.
            let _ = tokio::time::timeout(PATIENCE, listed).await;
            gc.synced.send_replace(true);
        });
    }
}

/// Follows one kind.
async fn monitor(gc: Arc<Gc>, resource: Arc<ApiResource>, listed: watch::Sender<bool>) {
    let api: Api<Dependent> = Api::all_with(gc.client(), &*resource);
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut seen: HashSet<String> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => seen.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                seen.extend(object.metadata.uid.clone());
                gc.put(&resource, &object.metadata);
            }
            Ok(watcher::Event::InitDone) => {
                let present = gc.graph.read().of_resource(&resource);
                present.iter().filter(|uid| !seen.contains(&***uid)).for_each(|uid| gc.remove(uid));
                seen = HashSet::new();
                listed.send_replace(true);
            }
            Ok(watcher::Event::Apply(object)) => gc.put(&resource, &object.metadata),
            Ok(watcher::Event::Delete(object)) => gc.remove(object.metadata.uid.as_deref().unwrap_or_default()),
            Err(error) => debug!(plural = resource.plural, %error, "watch failed; will try again"),
        }
    }
}
