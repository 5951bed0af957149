//! Keeps as many pods of a template alive as a ReplicaSet or a ReplicationController asks for.
//!
//! Pods are made in batches of 1, 2, 4, … so that a template that is refused costs few requests, and hundreds are in flight
//! when it is accepted. What a pass wrote is in the shared cache when it ends, so the next pass counts it.

pub mod owner;
pub mod plan;
pub mod rank;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::core::SelectorExt;
use kube::{Api, ResourceExt};

use self::owner::Owner;
use self::plan::Failure;
use super::{claim, pods, write};
use crate::controllers::{Context, FromContext};
use crate::reconcile::events::Type;
use crate::reconcile::{
    Change, Controller, Error, EventRecorder, Key, Queue, Shared, Step, absent_is_fine, controller_of, message_of,
    namespace_is_terminating, uid,
};

/// Changes of a set's pods within this time are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);

/// The controller of one kind of owner.
#[derive(Debug)]
pub struct Replicas<O> {
    shared: Arc<Shared>,
    events: EventRecorder,
    owner: PhantomData<fn() -> O>,
}

pub type ReplicaSets = Replicas<ReplicaSet>;
pub type ReplicationControllers = Replicas<ReplicationController>;

impl<O: Owner> FromContext for Replicas<O> {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), events: context.events(O::COMPONENT), owner: PhantomData }
    }
}

impl<O: Owner> Controller for Replicas<O> {
    type Key = Key;
    const NAME: &'static str = O::CONTROLLER;
    const WORKERS: usize = 32;

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        O::store(&self.shared).subscribe(crate::reconcile::driver::itself(queue));
        let (queue, controller) = (queue.clone(), self.clone());
        self.shared.pods.subscribe(move |change| controller.pod_changed(change, &queue));
    }

    fn keys(&self) -> Vec<Key> {
        O::store(&self.shared).keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(set) = O::store(&self.shared).get(key) else { return Ok(None) };
        let Some(selector) = set.selector()? else { return Ok(None) };
        let client = &self.shared.client;
        let own = claim::claim(client, &*set, &selector, &self.shared.pods).await?;
        let failure = if set.meta().deletion_timestamp.is_none() { self.scale(&set, &own).await } else { None };
        let outcome = failure.as_ref().map_or(Ok(()), |f| Err(Error::Unfinished(f.message.clone())));
        self.show(&set, failure.as_ref()).await?;
        outcome?;
        Ok(plan::until_available(&*set, &own, Timestamp::now()))
    }
}

impl<O: Owner> Replicas<O> {
    fn pod_changed(&self, change: &Change<'_, Pod>, queue: &Queue<Key>) {
        let gone = change.new.is_none_or(|new| !pods::is_active(new));
        for pod in change.sides() {
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == O::kind(&()) => {
                    let key = Key::new(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name);
                    queue.add_after(key, if gone { Duration::ZERO } else { TOGETHER });
                }
                Some(_) => {}
                None => self.possible_owners(pod).into_iter().for_each(|key| queue.add(key)),
            }
        }
    }

    /// The sets that would adopt an orphan.
    fn possible_owners(&self, pod: &Pod) -> Vec<Key> {
        if pod.labels().is_empty() {
            return Vec::new();
        }
        let matches = |set: &O| set.selector().ok().flatten().is_some_and(|s| s.matches(pod.labels()));
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        O::store(&self.shared).namespace(namespace, matches).iter().map(|set| Key::of(&**set)).collect()
    }

    /// Makes or deletes pods.
    async fn scale(&self, set: &O, own: &[Arc<Pod>]) -> Option<Failure> {
        let plan = plan::plan(set, own, &self.related(set), Timestamp::now());
        if plan.create > 0 {
            return self.create(set, plan.create).await;
        }
        self.delete(set, plan.delete).await
    }

    /// The pods of every ReplicaSet that has the same controller.
    fn related(&self, set: &O) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(set.meta()) else { return self.shared.pods.owned_by(uid(set)) };
        let siblings = O::store(&self.shared).owned_by(&owner.uid);
        siblings.iter().flat_map(|sibling| self.shared.pods.owned_by(uid(&**sibling))).collect()
    }

    async fn create(&self, set: &O, count: usize) -> Option<Failure> {
        let pod = plan::pod(set)?;
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &set.namespace().unwrap_or_default());
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let failures: Vec<kube::Error> =
                join_all((0..size).map(|_| self.create_one(set, &api, &pod))).await.into_iter().flatten().collect();
            if let Some(error) = failures.into_iter().next() {
                return Some(Failure { reason: "FailedCreate", message: message_of(&error) })
                    .filter(|_| !namespace_is_terminating(&error));
            }
            left -= size;
            batch *= 2;
        }
        None
    }

    async fn create_one(&self, set: &O, api: &Api<Pod>, pod: &Pod) -> Option<kube::Error> {
        match api.create(&write::post(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.name_any());
                self.shared.pods.observe(created);
                self.events.event(set, Type::Normal, "SuccessfulCreate", message);
                None
            }
            Err(error) => {
                if !namespace_is_terminating(&error) {
                    let message = format!("Error creating: {}", message_of(&error));
                    self.events.event(set, Type::Warning, "FailedCreate", message);
                }
                Some(error)
            }
        }
    }

    async fn delete(&self, set: &O, victims: Vec<Arc<Pod>>) -> Option<Failure> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &set.namespace().unwrap_or_default());
        let deletes = victims.iter().map(|pod| self.delete_one(set, &api, pod));
        let error = join_all(deletes).await.into_iter().find_map(Result::err)?;
        Some(Failure { reason: "FailedDelete", message: error.message() })
    }

    async fn delete_one(&self, set: &O, api: &Api<Pod>, pod: &Pod) -> Result<(), Error> {
        let answer = absent_is_fine(api.delete(&pod.name_any(), &write::delete_exactly(pod)).await);
        match answer {
            Ok(Some(answer)) => {
                self.shared.pods.forget(pod, answer);
                let message = format!("Deleted pod: {}", pod.name_any());
                self.events.event(set, Type::Normal, "SuccessfulDelete", message);
            }
            Ok(None) => self.shared.pods.forget_now(pod),
            Err(error) => {
                let message = format!("Error deleting: {}", message_of(&error));
                self.events.event(set, Type::Warning, "FailedDelete", message);
                return Err(error).step("delete a pod");
            }
        }
        Ok(())
    }

    /// Writes the status if it changed.
    async fn show(&self, set: &O, failure: Option<&Failure>) -> Result<(), Error> {
        let own = self.shared.pods.owned_by(uid(set));
        let status = plan::status(set, &own, failure, Timestamp::now());
        let shown = set.shown();
        if shown == status {
            return Ok(());
        }
        let api: Api<O> = Api::namespaced(self.shared.client.clone(), &set.namespace().unwrap_or_default());
        write::status(&api, O::store(&self.shared), set, &shown, &status).await
    }
}
