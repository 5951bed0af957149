//! Aggregated ClusterRoles: their rules are written here, whenever a role that they may choose changes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use serde_json::json;

use super::write;
use crate::auth::rbac::aggregate;
use crate::controllers::{Context, FromContext};
use crate::reconcile::{Controller, Error, Key, Queue, Shared};

#[derive(Debug)]
pub struct ClusterRoleAggregation {
    shared: Arc<Shared>,
}

impl FromContext for ClusterRoleAggregation {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

/// The one key: roles choose each other, so all are looked at together.
fn all() -> Key {
    Key::new("", "")
}

impl Controller for ClusterRoleAggregation {
    type Key = Key;
    const NAME: &'static str = "clusterrole-aggregation";
    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        let to = queue.clone();
        self.shared.cluster_roles.subscribe(move |_| to.add(all()));
    }

    fn keys(&self) -> Vec<Key> {
        vec![all()]
    }

    /// A change brings the next look, so that what aggregates aggregated roles comes to rest.
    async fn reconcile(&self, _all: &Key) -> Result<Option<Duration>, Error> {
        let api: Api<ClusterRole> = Api::all(self.shared.client.clone());
        let roles = self.shared.cluster_roles.list();
        for role in &roles {
            match aggregate::rules(role, roles.iter().map(|role| &**role)) {
                Some(rules) if role.rules.as_deref().unwrap_or_default() != rules => {
                    write::merge(&api, &self.shared.cluster_roles, role, json!({ "rules": rules })).await?;
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
