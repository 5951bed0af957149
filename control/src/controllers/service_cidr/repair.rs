//! Kubernetes' `ipallocator-repair-controller`: every cluster address of a Service has its IPAddress, and every IPAddress
//! that the server made has its Service.
//!
//! The server writes and removes the two together, so there is something to do only where somebody changed one by hand, or
//! the data are from before there were IPAddresses. Before anything is said or done the server is asked: the caches of the
//! two kinds are not of one moment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::Api;

use super::plan::{self, Fix, Leak, Verdict};
use crate::controllers::write;
use crate::controllers::{Context, FromContext};
use crate::reconcile::events::Type;
use crate::reconcile::{Controller, Error, EventRecorder, Key, Queue, Shared, Step, absent_is_fine};

#[derive(Debug)]
pub struct Repair {
    shared: Arc<Shared>,
    events: EventRecorder,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Service(Key),
    Address(Key),
}

impl FromContext for Repair {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone(), events: context.events("ipallocator-repair-controller") }
    }
}

impl Repair {
    fn services(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.shared.client.clone(), namespace)
    }

    fn addresses(&self) -> Api<IPAddress> {
        Api::all(self.shared.client.clone())
    }

    async fn ask_service(&self, key: &Key) -> Result<Option<Service>, Error> {
        self.services(&key.namespace).get_opt(&key.name).await.step("ask for a Service")
    }

    async fn service(&self, key: &Key) -> Result<(), Error> {
        let Some(service) = self.shared.services.get(key) else { return Ok(()) };
        for text in plan::cluster_ips(&service) {
            let Ok(ip) = text.parse::<IpAddr>() else {
                let what = format!("Cluster IP {text} is not a valid IP; please recreate Service");
                self.events.event(&*service, Type::Warning, "ClusterIPNotValid", what);
                continue;
            };
            let ranges = self.shared.service_cidrs.list();
            if !plan::in_a_range(ip, ranges.iter().map(AsRef::as_ref)) {
                let (reason, what) = plan::out_of_range(ip);
                self.events.event(&*service, Type::Warning, reason, what);
                continue;
            }
            let cached = self.shared.ip_addresses.get(&Key::new("", &ip.to_string()));
            if plan::of_service(&service, ip, cached.as_deref(), |_| true) != Verdict::Good {
                self.mend_service(key, ip).await?;
            }
        }
        Ok(())
    }

    /// The caches say that something is wrong with an address of this Service.
    async fn mend_service(&self, key: &Key, ip: IpAddr) -> Result<(), Error> {
        let address = self.addresses().get_opt(&ip.to_string()).await.step("ask for an IPAddress")?;
        let other = match address.as_ref().and_then(plan::parent) {
            Some(parent) if parent != *key => self.ask_service(&parent).await?,
            _ => None,
        };
        let Some(service) = self.ask_service(key).await? else { return Ok(()) };
        if !plan::has(&service, ip) {
            return Ok(());
        }
        let owns = |_: &Key| other.as_ref().is_some_and(|other| plan::has(other, ip));
        let Verdict::Bad(told, fix) = plan::of_service(&service, ip, address.as_ref(), owns) else { return Ok(()) };
        if let Some((reason, what)) = told {
            self.events.event(&service, Type::Warning, reason, what);
        }
        if fix == Fix::Leave {
            return Ok(());
        }
        if let Some(wrong) = &address {
            let gone = self.addresses().delete(&ip.to_string(), &write::delete_exactly(wrong)).await;
            absent_is_fine(gone).step("remove a wrong IPAddress")?;
        }
        let made = self.addresses().create(&write::post(), &plan::address(&service, ip)).await;
        self.shared.ip_addresses.observe(made.step("make an IPAddress")?);
        Ok(())
    }

    async fn address(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(address) = self.shared.ip_addresses.get(key) else { return Ok(None) };
        let parent = plan::parent(&address).and_then(|parent| self.shared.services.get(&parent));
        if plan::of_address(&address, parent.as_deref(), Timestamp::now()) == Leak::None {
            return Ok(None);
        }
        let Some(address) = self.addresses().get_opt(&key.name).await.step("ask for an IPAddress")? else {
            return Ok(None);
        };
        let parent = match plan::parent(&address) {
            Some(parent) => self.ask_service(&parent).await?,
            None => None,
        };
        match plan::of_address(&address, parent.as_ref(), Timestamp::now()) {
            Leak::None => Ok(None),
            Leak::Wait(time) => Ok(Some(time)),
            Leak::Remove(reason, what) => {
                self.events.event(&address, Type::Warning, reason, what);
                let store = &self.shared.ip_addresses;
                write::delete(&self.addresses(), store, &address, "remove an IPAddress of no Service").await?;
                Ok(None)
            }
        }
    }
}

impl Controller for Repair {
    type Key = Place;
    const NAME: &'static str = "ipallocator-repair";

    fn watch(self: &Arc<Self>, queue: &Queue<Place>) {
        let to = queue.clone();
        self.shared.services.subscribe(move |change| {
            let now = change.new.map(|service| plan::cluster_ips(service)).unwrap_or_default();
            let before = change.old.map(|service| plan::cluster_ips(service)).unwrap_or_default();
            // What it has no more may have been made anew while it was going.
            for address in before.iter().filter(|address| !now.contains(address)) {
                to.add(Place::Address(Key::new("", address)));
            }
            if let Some(service) = change.new.filter(|_| !now.is_empty()) {
                to.add(Place::Service(Key::of(&**service)));
            }
        });
        let to = queue.clone();
        self.shared.ip_addresses.subscribe(move |change| {
            if let Some(address) = change.new {
                to.add(Place::Address(Key::of(&**address)));
            }
            // One that is new came with its Service.
            if let Some(parent) = change.old.and_then(|address| plan::parent(address)) {
                to.add(Place::Service(parent));
            }
        });
    }

    fn keys(&self) -> Vec<Place> {
        let services = self.shared.services.keys().into_iter().map(Place::Service);
        services.chain(self.shared.ip_addresses.keys().into_iter().map(Place::Address)).collect()
    }

    async fn reconcile(&self, key: &Place) -> Result<Option<Duration>, Error> {
        match key {
            Place::Service(key) => self.service(key).await.map(|()| None),
            Place::Address(key) => self.address(key).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::controllers::fixture;

    fn service(version: &str, ips: &[&str]) -> Service {
        let metadata = json!({"name": "web", "namespace": "a", "uid": "u", "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"clusterIPs": ips}})).unwrap()
    }

    fn address(version: &str, labels: &Value) -> IPAddress {
        let metadata = json!({"name": "10.0.0.8", "uid": "v", "resourceVersion": version, "labels": labels});
        let parent = json!({"resource": "services", "namespace": "a", "name": "web"});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"parentRef": parent}})).unwrap()
    }

    #[tokio::test]
    async fn what_a_change_concerns_on_either_side_is_looked_at() {
        let context = fixture::context(|_, _, _| None);
        let (repair, queue) = (Arc::new(Repair::new(&context)), Queue::default());
        repair.watch(&queue);
        let queued = || -> Vec<Place> {
            let taken = std::iter::from_fn(|| queue.next().now_or_never()).collect::<Vec<_>>();
            for place in &taken {
                queue.done(place, true);
            }
            taken
        };
        let (services, addresses) = (&context.shared.services, &context.shared.ip_addresses);
        let (web, of) = (Place::Service(Key::new("a", "web")), |ip: &str| Place::Address(Key::new("", ip)));

        services.observe(service("1", &["10.0.0.7"]));
        assert_eq!(queued(), std::slice::from_ref(&web));
        services.observe(service("2", &["10.0.0.8"]));
        assert_eq!(queued(), [of("10.0.0.7"), web.clone()], "what it has no more may be there");
        addresses.observe(address("3", &json!({})));
        assert_eq!(queued(), [of("10.0.0.8")], "one that is new came with its Service");
        addresses.observe(address("4", &json!({"a": "b"})));
        assert_eq!(queued(), [of("10.0.0.8"), web.clone()]);
        addresses.forget_now(&address("4", &json!({})));
        assert_eq!(queued(), [web]);
        services.forget_now(&service("2", &[]));
        assert_eq!(queued(), [of("10.0.0.8")], "made anew while the Service was going");
    }
}
