//! All pods of this node: a worker for each Pod that the API binds to it, none for any other.
//!
//! Pods are told apart by uid: one that was deleted and made again under the same name gets a worker of its own while the old
//! one still ends.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use wherry_api::lenient::{Lenient, Told};

use super::Context;
use super::backoff::Backoff;
use super::setup::identity;
use super::shared::Shared;
use super::worker::{Worker, drain, forget};

/// The Pods bound to a node, as they change. The items are the newest objects themselves, shared with whoever else
/// keeps them.
pub type PodSource = BoxStream<'static, Event<Arc<Pod>>>;

/// A source of its own for a node that shares no cache: watches the API, and drops what the node does not read.
pub fn watch_pods(client: Client, node: &str) -> PodSource {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut told = Told::default();
    watch(Api::<Lenient<Pod>>::all(client), config)
        .default_backoff()
        .inspect_err(|error| tracing::warn!(%error, "watching this node's pods; trying again"))
        .filter_map(|event| async move { event.ok() })
        .map(move |event| match event {
            Event::Apply(pod) => Event::Apply(read(pod, &mut told)),
            Event::InitApply(pod) => Event::InitApply(read(pod, &mut told)),
            Event::Delete(pod) => {
                told.forget(&pod);
                Event::Delete(read(pod, &mut Told::default()))
            }
            Event::Init => Event::Init,
            Event::InitDone => Event::InitDone,
        })
        .boxed()
}

/// A pod as it is followed; one that cannot be read has metadata alone.
pub(super) fn read(pod: Lenient<Pod>, told: &mut Told) -> Arc<Pod> {
    if let Some((pod, why)) = told.news(&pod) {
        tracing::warn!(pod, why, "a pod of this node cannot be read and is left as it is");
    }
    match pod {
        Lenient::Read(pod) => trim(pod),
        Lenient::Unreadable(unreadable) => Arc::new(Pod { metadata: unreadable.meta, ..Pod::default() }),
    }
}

fn trim(mut pod: Pod) -> Arc<Pod> {
    pod.metadata.managed_fields = None;
    pod.metadata.owner_references = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if let Some(spec) = &mut pod.spec {
        spec.tolerations = None;
        spec.affinity = None;
        spec.topology_spread_constraints = None;
    }
    Arc::new(pod)
}

/// A pod whose worker failed is begun anew after this time; if it fails again, after longer and longer ones.
const AGAIN: Duration = Duration::from_secs(1);

/// Owns the workers.
#[derive(Clone, Debug)]
pub struct Manager {
    ctx: Arc<Context>,
    pods: Arc<Mutex<HashMap<String, Arc<Shared>>>>,
    workers: TaskTracker,
}

impl Manager {
    pub fn new(ctx: Arc<Context>) -> Self {
        Self { ctx, pods: Arc::default(), workers: TaskTracker::new() }
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Follows `source` until it ends or the future is dropped.
    pub async fn run(self, source: impl Stream<Item = Event<Arc<Pod>>>) {
        let mut source = std::pin::pin!(source);
        let mut listed = HashSet::new();
        while let Some(event) = source.next().await {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(pod) => {
                    listed.insert(identity(&pod).2.to_owned());
                    self.apply(pod);
                }
                Event::InitDone => self.listed(std::mem::take(&mut listed)).await,
                Event::Apply(pod) => self.apply(pod),
                Event::Delete(pod) => self.delete(&pod),
            }
        }
    }

    /// All pods of this node.
    pub fn pods(&self) -> Vec<Arc<Shared>> {
        self.pods.lock().values().cloned().collect()
    }

    /// The newest pod of that name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Shared>> {
        let pods = self.pods.lock();
        let named = pods.values().filter(|shared| {
            let pod = shared.pod();
            let (its_namespace, its_name, _) = identity(&pod);
            its_namespace == namespace && its_name == name
        });
        named.max_by_key(|shared| shared.pod().metadata.creation_timestamp.as_ref().map(|time| time.0)).cloned()
    }

    /// Ends all containers within `grace`; returns when all workers ended. What the API says of pods that the next process
    /// starts again stays as it is.
    pub async fn shutdown(&self, grace: Duration) {
        // Before anything is looked at: what is not begun by now is not begun any more.
        self.workers.close();
        let pods = self.pods();
        // Pods answer each other until nothing that came from outside is under way.
        let running: Vec<_> = pods.iter().flat_map(|shared| shared.running()).map(|(_, container)| container).collect();
        let left = drain(&running, grace).await;
        for shared in self.pods() {
            shared.shutdown(left);
        }
        self.workers.wait().await;
    }

    fn apply(&self, pod: Arc<Pod>) {
        if pod.spec.is_none() {
            // It could not be read: what is known of it stays.
            return;
        }
        let uid = identity(&pod).2.to_owned();
        let mut pods = self.pods.lock();
        if let Some(shared) = pods.get(&uid) {
            return shared.update(pod);
        }
        if self.workers.is_closed() {
            return;
        }
        let shared = Arc::new(Shared::new(pod));
        pods.insert(uid.clone(), shared.clone());
        let this = self.clone();
        self.workers.spawn(async move {
            this.work(&shared).await;
            this.pods.lock().remove(&uid);
        });
    }

    /// Runs a pod's worker until the pod is gone or the process ends. A worker that fails is a fault of this program: what
    /// it ran ends, and another takes over what it knew.
    async fn work(&self, shared: &Arc<Shared>) {
        let (mut backoff, mut was) = (Backoff::default(), None);
        while let Err(left) = self.try_work(shared, was.as_deref()).await {
            was = left.or(was);
            let now = Instant::now();
            let pause = backoff.wait(now).unwrap_or(AGAIN);
            backoff.arm(now, now);
            let pod = shared.pod();
            let (namespace, name, _) = identity(&pod);
            tracing::error!(namespace, name, ?pause, "the worker of a pod failed; its containers end and start again");
            stop_all(shared).await;
            if tokio::time::timeout(pause, shared.told_to_end()).await.is_ok() {
                if shared.is_removed() {
                    forget(&self.ctx, &pod).await;
                }
                return;
            }
        }
    }

    /// One worker's life; the error is what it knew last of the pod, if that can be told.
    async fn try_work(&self, shared: &Arc<Shared>, was: Option<&PodStatus>) -> Result<(), Option<Box<PodStatus>>> {
        let worker = catch_unwind(AssertUnwindSafe(|| Box::new(Worker::new(self.ctx.clone(), shared.clone(), was))));
        let mut worker = worker.map_err(|_| None)?;
        let ended = AssertUnwindSafe(Box::pin(worker.run())).catch_unwind().await;
        ended.map_err(|_| catch_unwind(AssertUnwindSafe(|| Box::new(worker.status()))).ok())
    }

    fn delete(&self, pod: &Arc<Pod>) {
        let shared = self.pods.lock().get(identity(pod).2).cloned();
        if let Some(shared) = shared {
            if pod.spec.is_some() {
                shared.update(pod.clone());
            }
            shared.remove();
        }
    }

    /// The list is complete: pods that are not in it are gone, and so is what they left on disk.
    async fn listed(&self, listed: HashSet<String>) {
        let gone: Vec<_> = {
            let pods = self.pods.lock();
            pods.iter().filter(|(uid, _)| !listed.contains(*uid)).map(|(_, shared)| shared.clone()).collect()
        };
        for shared in gone {
            shared.remove();
        }
        // Also what could not be read is no stranger.
        let mut known = listed;
        known.extend(self.pods.lock().keys().cloned());
        self.ctx.logs.remove_others(&known).await;
    }
}

/// Ends what a failed worker left running.
async fn stop_all(shared: &Shared) {
    let running = std::mem::take(&mut *shared.running.lock());
    for (_, container) in running {
        // It may be what failed.
        let _ = AssertUnwindSafe(container.stop(Duration::ZERO)).catch_unwind().await;
    }
}
