//! The next step of a Deployment, decided from its ReplicaSets. No I/O.
//!
//! A plan is one step: its writes show up in the cache, wake the Deployment up, and the next plan is made from what they did.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{sizes, status, template};

/// A write.
#[derive(Clone, Debug)]
pub enum Action {
    Create(Box<ReplicaSet>),
    Update(Update),
    Delete(Arc<ReplicaSet>),
    /// Writes the Deployment's own revision annotation.
    Annotate(i64),
}

/// What changes about a ReplicaSet.
#[derive(Clone, Debug)]
pub struct Update {
    pub set: Arc<ReplicaSet>,
    pub annotations: BTreeMap<String, String>,
    pub replicas: Option<i32>,
    pub min_ready_seconds: Option<i32>,
}

/// The step, and whether it belongs to a rollout.
#[derive(Debug, Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub rolling: bool,
}

/// What the plan is made from.
#[derive(Debug)]
pub struct View<'a> {
    pub deployment: &'a Deployment,
    pub all: &'a [Arc<ReplicaSet>],
    /// Whether pods of earlier templates still exist and have not ended.
    pub old_pods: bool,
}

pub fn plan(view: &View<'_>) -> Result<Plan, serde_json::Error> {
    let deployment = view.deployment;
    if deployment.metadata.deletion_timestamp.is_some() {
        return Ok(Plan::default());
    }
    let new = template::current(deployment, view.all);
    let is_new = |set: &Arc<ReplicaSet>| new.as_ref().is_some_and(|new| new.metadata.uid == set.metadata.uid);
    let old: Vec<Arc<ReplicaSet>> = view.all.iter().filter(|set| !is_new(set)).cloned().collect();
    let mut plan = Plan { actions: Vec::new(), rolling: !status::is_paused(deployment) };
    if let Some(new) = &new {
        plan.actions = keep_current(deployment, new, &old);
        if !plan.actions.is_empty() {
            return Ok(plan);
        }
    }
    if !plan.rolling || view.all.iter().any(|set| sizes::was_resized(deployment, set)) {
        plan.actions = resize(deployment, sizes::rescale(deployment, new.as_ref(), &old));
    }
    if plan.rolling && plan.actions.is_empty() {
        let rolling = sizes::is_rolling(deployment);
        plan.actions = if rolling { roll(view, new.as_ref(), &old)? } else { recreate(view, new.as_ref(), &old)? };
    } else {
        plan.rolling = false;
    }
    let complete = deployment.status.as_ref().is_some_and(|s| status::is_complete(deployment, s));
    if plan.actions.is_empty() && (complete || status::is_paused(deployment)) {
        plan.actions = clean_up(deployment, &old);
    }
    Ok(plan)
}

fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| template::revision(&set.metadata)).max().unwrap_or_default() + 1
}

/// Annotations, revision and minReadySeconds of the present set, and the Deployment's revision.
fn keep_current(deployment: &Deployment, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<Action> {
    let annotations = template::missing_annotations(deployment, new, next_revision(old));
    let wanted = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
    let present = new.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default();
    let min_ready_seconds = Some(wanted).filter(|wanted| *wanted != present);
    if !annotations.is_empty() || min_ready_seconds.is_some() {
        let set = new.clone();
        return vec![Action::Update(Update { set, annotations, replicas: None, min_ready_seconds })];
    }
    let revision = template::revision(&new.metadata);
    if template::revision(&deployment.metadata) == revision { Vec::new() } else { vec![Action::Annotate(revision)] }
}

/// Scales sets, and has their annotations say for which size of the Deployment.
fn resize(deployment: &Deployment, sizes: Vec<sizes::Sized>) -> Vec<Action> {
    let wanted = template::size_annotations(deployment);
    let update = |(set, size): sizes::Sized| {
        let present = set.metadata.annotations.clone().unwrap_or_default();
        let annotations: BTreeMap<_, _> =
            wanted.iter().filter(|(k, v)| present.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let replicas = Some(size).filter(|size| sizes::wanted(&set) != *size);
        (replicas.is_some() || !annotations.is_empty()).then_some(Action::Update(Update {
            set,
            annotations,
            replicas,
            min_ready_seconds: None,
        }))
    };
    sizes.into_iter().filter_map(update).collect()
}

fn create(view: &View<'_>, old: &[Arc<ReplicaSet>]) -> Result<Vec<Action>, serde_json::Error> {
    let Some(mut set) = template::new_set(view.deployment, next_revision(old))? else { return Ok(Vec::new()) };
    if let Some(spec) = &mut set.spec {
        spec.replicas = Some(sizes::new_size(view.deployment, view.all, 0));
    }
    Ok(vec![Action::Create(Box::new(set))])
}

fn roll(
    view: &View<'_>,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Result<Vec<Action>, serde_json::Error> {
    let Some(new) = new else { return create(view, old) };
    let size = sizes::new_size(view.deployment, view.all, sizes::wanted(new));
    if size != sizes::wanted(new) {
        return Ok(resize(view.deployment, vec![(new.clone(), size)]));
    }
    Ok(resize(view.deployment, sizes::shrink_old(view.deployment, new, old)))
}

fn recreate(
    view: &View<'_>,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Result<Vec<Action>, serde_json::Error> {
    let active: Vec<_> = old.iter().filter(|set| sizes::wanted(set) > 0).map(|set| (set.clone(), 0)).collect();
    if !active.is_empty() {
        return Ok(resize(view.deployment, active));
    }
    if view.old_pods {
        return Ok(Vec::new());
    }
    let Some(new) = new else { return create(view, old) };
    let size = sizes::replicas(view.deployment);
    if size == sizes::wanted(new) {
        return Ok(Vec::new());
    }
    Ok(resize(view.deployment, vec![(new.clone(), size)]))
}

/// Deletes the oldest empty sets beyond the history limit.
fn clean_up(deployment: &Deployment, old: &[Arc<ReplicaSet>]) -> Vec<Action> {
    let Some(limit) = deployment.spec.as_ref().and_then(|s| s.revision_history_limit) else { return Vec::new() };
    let limit = usize::try_from(limit).unwrap_or_default();
    let mut sets: Vec<_> = old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).cloned().collect();
    let surplus = sets.len().saturating_sub(limit);
    sets.sort_by_key(|set| template::revision(&set.metadata));
    let idle = |set: &Arc<ReplicaSet>| {
        let status = set.status.clone().unwrap_or_default();
        status.replicas == 0
            && sizes::wanted(set) == 0
            && set.metadata.generation.unwrap_or_default() <= status.observed_generation.unwrap_or_default()
    };
    sets.into_iter().take(surplus).filter(idle).map(Action::Delete).collect()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)]
mod tests {
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::*;

    fn deployment(replicas: i32, image: &str, strategy: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "du", "generation": 1,
                "annotations": {"kubernetes.io/change-cause": "why"}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "strategy": strategy,
                "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
        .expect("a deployment")
    }

    fn rolling() -> Value {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    }

    /// A cluster of one Deployment in which every pod becomes available at once.
    struct World {
        deployment: Deployment,
        sets: Vec<Arc<ReplicaSet>>,
        log: Vec<String>,
    }

    impl World {
        fn new(deployment: Deployment) -> Self {
            Self { deployment, sets: Vec::new(), log: Vec::new() }
        }

        /// Applies plans until nothing is left to do.
        fn settle(&mut self) {
            for _ in 0..100 {
                let old_pods = self.sets.iter().any(|s| sizes::available(s) > 0)
                    && template::current(&self.deployment, &self.sets).is_none();
                let view = View { deployment: &self.deployment, all: &self.sets, old_pods };
                let actions = plan(&view).expect("a plan").actions;
                let idle = actions.is_empty();
                for action in actions {
                    self.apply(action);
                }
                self.make_available();
                if idle {
                    return;
                }
            }
            panic!("does not settle: {:?}", self.log);
        }

        fn apply(&mut self, action: Action) {
            match action {
                Action::Create(mut set) => {
                    set.metadata.uid = set.metadata.name.clone();
                    self.log.push(format!("create {}", sizes::wanted(&set)));
                    self.sets.push(Arc::new(*set));
                }
                Action::Update(update) => {
                    let set = self.sets.iter_mut().find(|s| s.metadata.uid == update.set.metadata.uid).expect("a set");
                    let set = Arc::make_mut(set);
                    set.annotations_mut().extend(update.annotations);
                    if let Some(size) = update.replicas {
                        self.log.push(format!("{} to {size}", image(set)));
                        set.spec.as_mut().expect("a spec").replicas = Some(size);
                    }
                }
                Action::Delete(set) => {
                    self.log.push(format!("delete {}", image(&set)));
                    self.sets.retain(|s| s.metadata.uid != set.metadata.uid);
                }
                Action::Annotate(revision) => {
                    self.deployment.annotations_mut().insert(template::REVISION.to_owned(), revision.to_string());
                }
            }
        }

        fn make_available(&mut self) {
            for set in &mut self.sets {
                let set = Arc::make_mut(set);
                let size = sizes::wanted(set);
                let status = set.status.get_or_insert_default();
                (status.replicas, status.ready_replicas, status.available_replicas) = (size, Some(size), Some(size));
            }
            let new = template::current(&self.deployment, &self.sets);
            let now = "2030-01-01T00:00:00Z".parse().expect("a time");
            let view = status::View {
                deployment: &self.deployment,
                all: &self.sets,
                new: new.as_ref(),
                rolling: true,
                note: None,
                now,
            };
            self.deployment.status = Some(status::status(&view).0);
        }

        fn set_image(&mut self, image: &str) {
            let spec = self.deployment.spec.as_mut().and_then(|s| s.template.spec.as_mut()).expect("a spec");
            spec.containers[0].image = Some(image.to_owned());
        }
    }

    fn image(set: &ReplicaSet) -> String {
        let spec = set.spec.as_ref().and_then(|s| s.template.as_ref()).and_then(|t| t.spec.as_ref());
        spec.and_then(|s| s.containers[0].image.clone()).unwrap_or_default()
    }

    #[test]
    fn a_rolling_update_replaces_pods_one_by_one() {
        let mut world = World::new(deployment(3, "v1", rolling()));
        world.settle();
        assert_eq!(world.log, ["create 3"]);
        world.log.clear();
        world.set_image("v2");
        world.settle();
        assert_eq!(world.log, ["create 1", "v1 to 2", "v2 to 2", "v1 to 1", "v2 to 3", "v1 to 0"]);
        assert_eq!(template::revision(&world.deployment.metadata), 2);
    }

    #[test]
    fn going_back_reuses_the_old_set_under_a_new_revision() {
        let mut world = World::new(deployment(2, "v1", rolling()));
        world.settle();
        world.set_image("v2");
        world.settle();
        world.set_image("v1");
        world.settle();
        assert_eq!(world.sets.len(), 2);
        assert_eq!(template::revision(&world.deployment.metadata), 3);
        let back = world.sets.iter().find(|s| image(s) == "v1").expect("the first set");
        assert_eq!(back.annotations().get(template::REVISION_HISTORY).map(String::as_str), Some("1"));
        assert_eq!(back.annotations().get("kubernetes.io/change-cause").map(String::as_str), Some("why"));
    }

    #[test]
    fn recreate_ends_all_old_pods_before_it_makes_new_ones() {
        let mut world = World::new(deployment(3, "v1", json!({"type": "Recreate"})));
        world.settle();
        world.log.clear();
        world.set_image("v2");
        world.settle();
        assert_eq!(world.log, ["v1 to 0", "create 3"]);
    }

    #[test]
    fn history_beyond_the_limit_is_deleted() {
        let mut world = World::new(deployment(1, "v1", rolling()));
        for image in ["v1", "v2", "v3"] {
            world.set_image(image);
            world.settle();
        }
        let images: Vec<_> = world.sets.iter().map(|set| image(set)).collect();
        assert_eq!(images, ["v2", "v3"]);
    }

    #[test]
    fn a_paused_deployment_is_resized_but_not_rolled_out() {
        let mut world = World::new(deployment(2, "v1", rolling()));
        world.settle();
        world.log.clear();
        world.set_image("v2");
        let spec = world.deployment.spec.as_mut().expect("a spec");
        (spec.paused, spec.replicas) = (Some(true), Some(5));
        world.settle();
        assert_eq!(world.log, ["v1 to 5"]);
    }
}
