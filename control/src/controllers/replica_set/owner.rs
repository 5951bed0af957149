//! What keeps replicas of one template: a ReplicaSet, and the ReplicationController that came before it.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition};
use kube::Resource;
use kube::core::Selector;

use crate::controllers::claim;
use crate::reconcile::kinds::Kind;
use crate::reconcile::{Error, Shared, Store};

/// An owner of replicas. Its status is read and written as a ReplicaSet's, which says all that any of them says.
pub trait Owner: Kind + Resource<Scope = NamespaceResourceScope> {
    /// How its controller is called in logs and metrics.
    const CONTROLLER: &'static str;
    /// How its controller is called in events.
    const COMPONENT: &'static str;
    /// Whether its status counts pods that are being deleted.
    const COUNTS_TERMINATING: bool;

    fn store(shared: &Shared) -> &Store<Self>;

    /// `None`: it selects nothing.
    fn selector(&self) -> Result<Option<Selector>, Error>;

    fn template(&self) -> Option<&PodTemplateSpec>;

    fn replicas(&self) -> i32;

    fn min_ready_seconds(&self) -> i32;

    fn shown(&self) -> ReplicaSetStatus;
}

impl Owner for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";
    const COMPONENT: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;

    fn store(shared: &Shared) -> &Store<Self> {
        &shared.replica_sets
    }

    fn selector(&self) -> Result<Option<Selector>, Error> {
        self.spec.as_ref().map_or(Ok(None), |spec| claim::selector(&spec.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }

    fn shown(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }
}

impl Owner for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";
    const COMPONENT: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;

    fn store(shared: &Shared) -> &Store<Self> {
        &shared.replication_controllers
    }

    fn selector(&self) -> Result<Option<Selector>, Error> {
        let labels: BTreeMap<String, String> =
            self.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        Ok(Some(Selector::from_iter(labels)).filter(|selector| !selector.selects_all()))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }

    fn shown(&self) -> ReplicaSetStatus {
        let Some(status) = self.status.clone() else { return ReplicaSetStatus::default() };
        let conditions = status.conditions.map(|all| all.into_iter().map(condition).collect());
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions,
        }
    }
}

fn condition(of: ReplicationControllerCondition) -> ReplicaSetCondition {
    ReplicaSetCondition {
        type_: of.type_,
        status: of.status,
        reason: of.reason,
        message: of.message,
        last_transition_time: of.last_transition_time,
    }
}
