//! Kubernetes' `service-cidrs-controller`: gives ServiceCIDRs their finalizer and their condition, and lets one go when every
//! address of it is in another one too.
//!
//! What must stay true: before a range is let go the server is asked, not only the caches. No address is taken from a range
//! that is being deleted: that it is not is a precondition of the write that takes one.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::Api;
use kube::api::{ListParams, ObjectList};
use serde_json::json;
use wherry_api::lenient::Lenient;

use super::plan::{self, Action};
use crate::controllers::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::{Controller, Error, Key, Queue, Shared, Step};
use crate::server::alloc::{ALLOCATOR, MANAGED_BY};

#[derive(Debug)]
pub struct ServiceCidrs {
    shared: Arc<Shared>,
}

impl FromContext for ServiceCidrs {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

impl ServiceCidrs {
    fn api(&self) -> Api<ServiceCIDR> {
        Api::all(self.shared.client.clone())
    }

    /// Whether an address would be in no range any more.
    async fn is_needed(&self, name: &str) -> Result<bool, Error> {
        let (ranges, addresses) = (self.shared.service_cidrs.list(), self.shared.ip_addresses.list());
        let managed = addresses.iter().filter(|address| plan::is_managed(address));
        if plan::is_needed(name, ranges.iter().map(AsRef::as_ref), managed.map(AsRef::as_ref)) {
            return Ok(true);
        }
        // Of what cannot be read nobody knows where it is; it must not keep every range.
        let ranges: Api<Lenient<ServiceCIDR>> = Api::all(self.shared.client.clone());
        let ranges = readable(ranges.list(&ListParams::default()).await.step("list ServiceCIDRs")?);
        let of_services = ListParams::default().labels(&format!("{MANAGED_BY}={ALLOCATOR}"));
        let addresses: Api<Lenient<IPAddress>> = Api::all(self.shared.client.clone());
        let addresses = readable(addresses.list(&of_services).await.step("list the addresses of Services")?);
        Ok(plan::is_needed(name, &ranges, &addresses))
    }
}

fn readable<K: Clone>(list: ObjectList<Lenient<K>>) -> Vec<K> {
    let read = |one| match one {
        Lenient::Read(object) => Some(object),
        Lenient::Unreadable(_) => None,
    };
    list.items.into_iter().filter_map(read).collect()
}

impl Controller for ServiceCidrs {
    type Key = Key;
    const NAME: &'static str = "service-cidrs";
    /// One after the other: of two that have the same addresses, one stays.
    const WORKERS: usize = 1;

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        let (to, shared) = (queue.clone(), self.shared.clone());
        let waiting = move || {
            let all = shared.service_cidrs.list();
            all.into_iter().filter(|range| range.metadata.deletion_timestamp.is_some()).map(|range| Key::of(&*range))
        };
        let also = waiting.clone();
        self.shared.service_cidrs.subscribe(itself(queue));
        self.shared.service_cidrs.subscribe(move |change| {
            // Those that wait may have a range beside them now.
            let held = |range: Option<&Arc<ServiceCIDR>>| range.is_some_and(|range| plan::is_held(range));
            if held(change.new) && !held(change.old) {
                also().for_each(|key| to.add(key));
            }
        });
        let to = queue.clone();
        self.shared.ip_addresses.subscribe(move |change| {
            if change.new.is_none() {
                waiting().for_each(|key| to.add(key));
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.service_cidrs.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let store = &self.shared.service_cidrs;
        let Some(range) = store.get(key) else { return Ok(None) };
        let needed = plan::asks(&range) && self.is_needed(&key.name).await?;
        match plan::range(&range, needed, Timestamp::now()) {
            Action::Leave => {}
            Action::Finalizers(finalizers) => {
                write::merge(&self.api(), store, &*range, json!({"metadata": {"finalizers": finalizers}})).await?;
            }
            Action::Status(new) => {
                let old = range.status.clone().unwrap_or_default();
                write::status(&self.api(), store, &*range, &old, &new).await?;
            }
        }
        Ok(None)
    }
}
