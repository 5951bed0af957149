//! Keeps the Endpoints and EndpointSlices of every Service with a selector, and mirrors Endpoints of those without.
//!
//! Changes of one Service's pods are gathered before they are written: a tenth of a second, a second where there are many,
//! or a thousand pods that become ready would write as many lists of a thousand addresses.

pub mod addresses;
pub mod classic;
mod mirror;
pub mod slices;

pub use mirror::Mirror;

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Endpoints as Classic, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, ResourceExt};

use super::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::kinds::SERVICE_NAME;
use crate::reconcile::{Change, Controller, Error, Key, Queue, Shared, Step, Store, namespace_is_terminating};

/// Changes are gathered for this long.
const FEW: Duration = Duration::from_millis(100);
/// The same for a Service with more than [`MANY_FROM`] endpoints.
const MANY: Duration = Duration::from_secs(1);
const MANY_FROM: usize = 500;
const ZONE: &str = "topology.kubernetes.io/zone";

#[derive(Debug)]
pub struct Endpoints {
    shared: Arc<Shared>,
}

impl FromContext for Endpoints {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

impl Controller for Endpoints {
    type Key = Key;
    const NAME: &'static str = "endpoints";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.services.subscribe(itself(queue));
        let (to, controller) = (queue.clone(), self.clone());
        self.shared.pods.subscribe(move |change| controller.pod_changed(change, &to));
        // Somebody else may have changed or deleted what this controller wrote.
        let to = queue.clone();
        self.shared.endpoint_slices.subscribe(move |change: &Change<'_, EndpointSlice>| {
            let Some(slice) = change.latest().filter(|slice| slices::is_own(slice)) else { return };
            if let Some(service) = slice.labels().get(SERVICE_NAME) {
                to.add_after(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service), MANY);
            }
        });
        let to = queue.clone();
        self.shared.endpoints.subscribe(move |change: &Change<'_, Classic>| {
            if let Some(object) = change.latest().filter(|object| is_own(object)) {
                to.add_after(Key::of(&**object), MANY);
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        let left = self.shared.endpoints.list();
        let mut keys: Vec<Key> = left.iter().filter(|object| is_own(object)).map(|object| Key::of(&**object)).collect();
        keys.extend(self.shared.services.keys());
        keys
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.shared.services.get(key) else { return self.clear(key).await.map(|()| None) };
        if addresses::is_foreign(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let candidates = self.shared.pods.namespace(&key.namespace, |pod| addresses::selects(&service, pod.labels()));
        let backends = addresses::backends(&service, &candidates);
        self.write_slices(key, &service, &backends).await?;
        self.write_classic(key, &service, &backends).await?;
        Ok(None)
    }
}

fn is_own(object: &Classic) -> bool {
    object.labels().get(classic::MANAGED_BY).is_some_and(|manager| manager == classic::MANAGER)
}

impl Endpoints {
    fn pod_changed(&self, change: &Change<'_, Pod>, queue: &Queue<Key>) {
        if let (Some(old), Some(new)) = (change.old, change.new)
            && !addresses::matters(old, new)
        {
            return;
        }
        for pod in change.sides() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for service in self.shared.services.namespace(namespace, |s| addresses::selects(s, pod.labels())) {
                let key = Key::of(&*service);
                let delay = self.patience(&key);
                queue.add_after(key, delay);
            }
        }
    }

    /// How long changes of this Service are gathered.
    fn patience(&self, key: &Key) -> Duration {
        let slices = self.shared.endpoint_slices.grouped_by(&key.name);
        let own = slices.iter().filter(|slice| slice.metadata.namespace.as_deref() == Some(&key.namespace));
        let endpoints: usize = own.map(|slice| slices::endpoints_of(slice).len()).sum();
        if endpoints > MANY_FROM { MANY } else { FEW }
    }

    /// Of a Service that is gone, the Endpoints go as well; the slices are the garbage collector's.
    async fn clear(&self, key: &Key) -> Result<(), Error> {
        let Some(object) = self.shared.endpoints.get(key) else { return Ok(()) };
        let api: Api<Classic> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        write::delete(&api, &self.shared.endpoints, &*object, "delete the endpoints of a service").await
    }

    async fn write_slices(&self, key: &Key, service: &Service, backends: &[addresses::Backend]) -> Result<(), Error> {
        let mut present = self.shared.endpoint_slices.grouped_by(&key.name);
        present.retain(|slice| {
            slices::is_own(slice)
                && slice.metadata.namespace.as_deref() == Some(&key.namespace)
                && slice.metadata.deletion_timestamp.is_none()
        });
        let zone = |node: &str| self.shared.nodes.get(&Key::new("", node))?.labels().get(ZONE).cloned();
        let plan = slices::plan(service, backends, &present, zone);
        let api = Api::namespaced(self.shared.client.clone(), &key.namespace);
        write_plan(&api, &self.shared.endpoint_slices, &plan).await
    }

    async fn write_classic(&self, key: &Key, service: &Service, backends: &[addresses::Backend]) -> Result<(), Error> {
        let desired = classic::desired(service, backends);
        let api: Api<Classic> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        let answer = match self.shared.endpoints.get(key) {
            Some(present) if classic::is_current(&present, &desired) => return Ok(()),
            Some(present) => api.replace(&key.name, &write::post(), &classic::updated(&present, desired)).await,
            None => api.create(&write::post(), &desired).await,
        };
        if let Some(written) = unless_terminating(answer)? {
            self.shared.endpoints.observe(written);
        }
        Ok(())
    }
}

async fn write_plan(api: &Api<EndpointSlice>, store: &Store<EndpointSlice>, plan: &slices::Plan) -> Result<(), Error> {
    let params = write::post();
    let creates = plan.create.iter().map(|slice| api.create(&params, slice));
    for created in unless_terminating(try_join_all(creates).await)?.into_iter().flatten() {
        store.observe(created);
    }
    for slice in &plan.update {
        let answer = api.replace(&slice.name_any(), &params, slice).await;
        store.observe(answer.step("update an endpoint slice")?);
    }
    for slice in &plan.delete {
        write::delete(api, store, &**slice, "delete an endpoint slice").await?;
    }
    Ok(())
}

/// A namespace that goes away needs no endpoints.
fn unless_terminating<T>(answer: kube::Result<T>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if namespace_is_terminating(&error) => Ok(None),
        Err(error) => Err(error).step("write the endpoints of a service"),
    }
}
