//! Rolls Deployments out: one ReplicaSet per template, resized step by step.
//!
//! Each pass does one step of [`plan`] and writes the status. What a step wrote shows in the shared cache at once and wakes
//! the Deployment up again, so a rollout runs as fast as its pods become available.

pub mod plan;
pub mod sizes;
pub mod status;
pub mod template;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::core::SelectorExt;
use kube::{Api, ResourceExt};
use serde_json::{Map, json};

use self::plan::{Action, Update};
use self::status::Note;
use super::{claim, pods, write};
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::events::Type;
use crate::reconcile::{
    Change, Controller, Error, EventRecorder, Key, Queue, Shared, Step, code_of, controller_of, message_of,
    namespace_is_terminating, uid,
};

#[derive(Debug)]
pub struct Deployments {
    shared: Arc<Shared>,
    events: EventRecorder,
}

impl FromContext for Deployments {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), events: context.events("deployment-controller") }
    }
}

impl Controller for Deployments {
    type Key = Key;
    const NAME: &'static str = "deployment";
    const WORKERS: usize = 32;

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.deployments.subscribe(itself(queue));
        let (to, controller) = (queue.clone(), self.clone());
        self.shared.replica_sets.subscribe(move |change| controller.set_changed(change, &to));
        let (to, controller) = (queue.clone(), self.clone());
        self.shared.pods.subscribe(move |change| controller.pod_changed(change, &to));
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.deployments.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(deployment) = self.shared.deployments.get(key) else { return Ok(None) };
        let Some(spec) = &deployment.spec else { return Ok(None) };
        let Some(selector) = claim::selector(&spec.selector)? else { return Ok(None) };
        let sets = claim::claim(&self.shared.client, &*deployment, &selector, &self.shared.replica_sets).await?;
        let old_pods = self.old_pods(&deployment, &sets);
        let view = plan::View { deployment: &deployment, all: &sets, old_pods };
        let plan = plan::plan(&view).map_err(Error::Encode)?;
        let mut note = None;
        let mut result = Ok(());
        for action in plan.actions {
            match self.act(&deployment, action).await {
                Ok(told) => note = told.or(note),
                Err((error, told)) => {
                    (note, result) = (told.or(note), Err(error));
                    break;
                }
            }
        }
        let again = self.show(&deployment, plan.rolling, note).await?;
        result.map(|()| again)
    }
}

/// A step that failed, and what the status should tell of it.
type Failed = (Error, Option<Note>);

impl Deployments {
    fn set_changed(&self, change: &Change<'_, ReplicaSet>, queue: &Queue<Key>) {
        for set in change.sides() {
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(&set.metadata) {
                Some(owner) if owner.kind == "Deployment" => queue.add(Key::new(namespace, &owner.name)),
                Some(_) => {}
                None => self.possible_owners(namespace, set).into_iter().for_each(|key| queue.add(key)),
            }
        }
    }

    fn possible_owners(&self, namespace: &str, set: &ReplicaSet) -> Vec<Key> {
        let matches = |deployment: &Deployment| {
            let selector = deployment.spec.as_ref().and_then(|s| claim::selector(&s.selector).ok().flatten());
            selector.is_some_and(|s| s.matches(set.labels()))
        };
        self.shared.deployments.namespace(namespace, matches).iter().map(|d| Key::of(&**d)).collect()
    }

    /// A Deployment that recreates waits for its old pods to end.
    fn pod_changed(&self, change: &Change<'_, Pod>, queue: &Queue<Key>) {
        let (Some(pod), true) = (change.old, change.new.is_none_or(|pod| pods::is_ended(pod))) else { return };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some(owner) = controller_of(&pod.metadata).filter(|o| o.kind == "ReplicaSet") else { return };
        let set = self.shared.replica_sets.get(&Key::new(namespace, &owner.name));
        let Some(owner) = set.as_ref().and_then(|s| controller_of(&s.metadata)) else { return };
        let key = Key::new(namespace, &owner.name);
        if self.shared.deployments.get(&key).is_some_and(|d| !sizes::is_rolling(&d)) {
            queue.add(key);
        }
    }

    fn old_pods(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let new = template::current(deployment, sets);
        let old = sets.iter().filter(|set| new.as_ref().is_none_or(|new| uid(&**new) != uid(&***set)));
        old.into_iter().any(|set| self.shared.pods.owned_by(uid(&**set)).iter().any(|pod| !pods::is_ended(pod)))
    }

    async fn act(&self, deployment: &Deployment, action: Action) -> Result<Option<Note>, Failed> {
        match action {
            Action::Create(set) => return self.create(deployment, &set).await,
            Action::Update(update) => self.update(deployment, update).await,
            Action::Delete(set) => self.delete(&set).await,
            Action::Annotate(revision) => {
                let patch = json!({"metadata": {"annotations": {template::REVISION: revision.to_string()}}});
                write::merge(&self.deployments(deployment), &self.shared.deployments, deployment, patch).await
            }
        }
        .map(|()| None)
        .map_err(|error| (error, None))
    }

    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<Option<Note>, Failed> {
        let name = set.name_any();
        let error = match self.sets(deployment).create(&write::post(), set).await {
            Ok(created) => {
                let size = sizes::wanted(&created);
                self.shared.replica_sets.observe(created);
                if size > 0 {
                    self.scaled(deployment, &name, 0, size);
                }
                return Ok(Some(Note::Created(name)));
            }
            Err(error) => error,
        };
        if namespace_is_terminating(&error) {
            return Ok(None);
        }
        if code_of(&error) == Some(409) {
            return self.collided(deployment, &name).await.map(|()| None).map_err(|error| (error, None));
        }
        let said = message_of(&error);
        let message = format!("Failed to create new replica set \"{name}\": {said}");
        self.events.event(deployment, Type::Warning, "ReplicaSetCreateError", message);
        let failure = Error::Request { step: "create a replica set", source: Box::new(error) };
        Err((failure, Some(Note::CreateFailed { name, error: said })))
    }

    /// The name is taken: by our own set that the cache did not show yet, or by another template with the same hash.
    async fn collided(&self, deployment: &Deployment, name: &str) -> Result<(), Error> {
        let found = self.sets(deployment).get_opt(name).await.step("read a replica set")?;
        let Some(found) = found else { return Err(Error::Unfinished(format!("{name} came and went"))) };
        let own = controller_of(&found.metadata).is_some_and(|owner| owner.uid == uid(deployment));
        let template = deployment.spec.as_ref().map(|s| &s.template);
        let same = found.spec.as_ref().and_then(|s| s.template.as_ref()).zip(template);
        if own && same.is_some_and(|(one, other)| template::same(one, other)) {
            self.shared.replica_sets.observe(found);
            return Ok(());
        }
        let shown = deployment.status.clone().unwrap_or_default();
        let mut status = shown.clone();
        status.collision_count = Some(shown.collision_count.unwrap_or_default() + 1);
        write::status(&self.deployments(deployment), &self.shared.deployments, deployment, &shown, &status).await?;
        Err(Error::Unfinished(format!("{name} is the name of another template's replica set")))
    }

    async fn update(&self, deployment: &Deployment, update: Update) -> Result<(), Error> {
        let mut spec = Map::new();
        spec.extend(update.replicas.map(|size| ("replicas".to_owned(), json!(size))));
        spec.extend(update.min_ready_seconds.map(|seconds| ("minReadySeconds".to_owned(), json!(seconds))));
        let patch = json!({"metadata": {"annotations": update.annotations}, "spec": spec});
        write::merge(&self.sets(deployment), &self.shared.replica_sets, &*update.set, patch).await?;
        if let Some(size) = update.replicas {
            self.scaled(deployment, &update.set.name_any(), sizes::wanted(&update.set), size);
        }
        Ok(())
    }

    fn scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.events.event(deployment, Type::Normal, "ScalingReplicaSet", message);
    }

    async fn delete(&self, set: &ReplicaSet) -> Result<(), Error> {
        let api: Api<ReplicaSet> =
            Api::namespaced(self.shared.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
        write::delete(&api, &self.shared.replica_sets, set, "delete an old replica set").await
    }

    /// Writes the status if it changed.
    async fn show(
        &self,
        deployment: &Deployment,
        rolling: bool,
        note: Option<Note>,
    ) -> Result<Option<Duration>, Error> {
        // A step may have written the Deployment itself.
        let Some(latest) = self.shared.deployments.get(&Key::of(deployment)) else { return Ok(None) };
        let all = self.shared.replica_sets.owned_by(uid(deployment));
        let new = template::current(&latest, &all);
        let now = Timestamp::now();
        let view = status::View { deployment: &latest, all: &all, new: new.as_ref(), rolling, note, now };
        let (status, again) = status::status(&view);
        let shown = latest.status.clone().unwrap_or_default();
        if shown != status {
            write::status(&self.deployments(deployment), &self.shared.deployments, &*latest, &shown, &status).await?;
        }
        Ok(again)
    }

    fn deployments(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.shared.client.clone(), deployment.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn sets(&self, deployment: &Deployment) -> Api<ReplicaSet> {
        Api::namespaced(self.shared.client.clone(), deployment.metadata.namespace.as_deref().unwrap_or_default())
    }
}
