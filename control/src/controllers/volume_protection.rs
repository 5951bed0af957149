//! Claims and volumes that are in use outlive their deletion: the finalizer that admission gave them goes when no pod that
//! was scheduled uses the claim, and when the volume is bound to none.
//!
//! What must stay true: before a claim is let go the server is asked, not only the cache: a pod that it does not show yet
//! may be starting on it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Volume};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use serde::Deserialize;
use serde_json::{Value, json};

use super::write;
use crate::admission::storage_protection::{CLAIM, VOLUME};
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step};

/// Pods read at a time.
const PAGE: u32 = 500;

/// Kubernetes' `pvc-protection-controller`.
#[derive(Debug)]
pub struct Claims {
    shared: Arc<Shared>,
}

/// Kubernetes' `pv-protection-controller`.
#[derive(Debug)]
pub struct Volumes {
    shared: Arc<Shared>,
}

impl FromContext for Claims {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

impl FromContext for Volumes {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

impl Controller for Claims {
    type Key = Key;
    const NAME: &'static str = "pvc-protection";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.persistent_volume_claims.subscribe(itself(queue));
        let to = queue.clone();
        self.shared.pods.subscribe(move |change| {
            for pod in change.sides() {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                for claim in claims_of(pod) {
                    to.add(Key::new(namespace, &claim));
                }
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.persistent_volume_claims.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let store = &self.shared.persistent_volume_claims;
        let Some(claim) = store.get(key) else { return Ok(None) };
        let Some(finalizers) = write::finalizers(&claim.metadata, CLAIM) else { return Ok(None) };
        if claim.metadata.deletion_timestamp.is_some() && self.is_used(key).await? {
            return Ok(None);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        write::merge(&api, store, &*claim, json!({"metadata": {"finalizers": finalizers}})).await?;
        Ok(None)
    }
}

impl Claims {
    async fn is_used(&self, key: &Key) -> Result<bool, Error> {
        if !self.shared.pods.namespace(&key.namespace, |pod| uses(pod, &key.name)).is_empty() {
            return Ok(true);
        }
        // As JSON: one pod that does not have its type's shape must not keep every claim of its namespace.
        let pods = ApiResource::erase::<Pod>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.shared.client.clone(), &key.namespace, &pods);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let pods = api.list(&page).await.step("ask which pods use a claim")?;
            if pods.items.iter().any(|pod| uses(&outline(pod), &key.name)) {
                return Ok(true);
            }
            match pods.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(false),
            }
        }
    }
}

impl Controller for Volumes {
    type Key = Key;
    const NAME: &'static str = "pv-protection";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.persistent_volumes.subscribe(itself(queue));
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.persistent_volumes.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let store = &self.shared.persistent_volumes;
        let Some(volume) = store.get(key) else { return Ok(None) };
        let Some(finalizers) = write::finalizers(&volume.metadata, VOLUME) else { return Ok(None) };
        let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if volume.metadata.deletion_timestamp.is_some() && bound {
            return Ok(None);
        }
        let api: Api<PersistentVolume> = Api::all(self.shared.client.clone());
        write::merge(&api, store, &*volume, json!({"metadata": {"finalizers": finalizers}})).await?;
        Ok(None)
    }
}

/// The claims that a pod names, and those that are made for it.
fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(named), _) => Some(named.claim_name.clone()),
            (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// Of a pod what tells which claims it uses, as far as it can be read.
fn outline(pod: &DynamicObject) -> Pod {
    let volumes = pod.data.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let spec = PodSpec {
        node_name: pod.data.pointer("/spec/nodeName").and_then(Value::as_str).map(str::to_owned),
        volumes: Some(volumes.filter_map(|volume| Volume::deserialize(volume).ok()).collect()),
        ..PodSpec::default()
    };
    Pod { metadata: pod.metadata.clone(), spec: Some(spec), status: None }
}

/// Whether a pod uses a claim. One that is not scheduled does not: nodes do not start a pod on a claim that is going.
fn uses(pod: &Pod, claim: &str) -> bool {
    let scheduled = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    scheduled && claims_of(pod).iter().any(|used| used == claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_scheduled_pod_uses_the_claims_that_it_names_and_that_are_made_for_it() {
        let volumes = json!([{"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}, {"name": "c", "emptyDir": {}}]);
        let placed = pod(json!({"nodeName": "n", "containers": [], "volumes": volumes}));
        assert!(uses(&placed, "data") && uses(&placed, "p-b") && !uses(&placed, "c"));
        assert!(!uses(&pod(json!({"containers": [], "volumes": volumes})), "data"));
    }

    #[test]
    fn a_pod_without_its_type_s_shape_uses_what_it_says() {
        let volumes = json!([{"name": 5}, {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}]);
        let odd =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": "none", "volumes": volumes}});
        assert!(serde_json::from_value::<Pod>(odd.clone()).is_err());
        let odd = outline(&serde_json::from_value(odd).unwrap());
        assert!(uses(&odd, "data") && !uses(&odd, "a"));
    }
}
