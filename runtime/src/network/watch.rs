//! Keeps the node's table of Services true: follows Services and EndpointSlices at the API server and rebuilds a Service's
//! entry when either changes. The last known state is kept while the server is away.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::watch::Sender;
use wherry_api::lenient::{Lenient, Told};

use super::local::Shared;
use super::services;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and Service name.
type Key = (String, String);

struct Follower {
    shared: Arc<Shared>,
    node: String,
    services: HashMap<Key, Service>,
    slices: HashMap<Key, HashMap<String, EndpointSlice>>,
    /// Keys seen since a list began; what is missing at its end is gone.
    listing_services: Vec<Key>,
    listing_slices: Vec<(Key, String)>,
    told_services: Told,
    told_slices: Told,
}

/// Runs until it is dropped; says on `changed` that the table changed.
pub(super) async fn follow(shared: Arc<Shared>, client: kube::Client, node: String, changed: Sender<()>) {
    let services = watcher::watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff();
    let slices = watcher::watcher(Api::all(client), watcher::Config::default()).default_backoff();
    let mut events = pin!(futures::stream::select(services.map_ok(Seen::Service), slices.map_ok(Seen::Slice)));
    let mut follower = Follower {
        shared,
        node,
        services: HashMap::new(),
        slices: HashMap::new(),
        listing_services: Vec::new(),
        listing_slices: Vec::new(),
        told_services: Told::default(),
        told_slices: Told::default(),
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Seen::Service(event)) => follower.service(event),
            Ok(Seen::Slice(event)) => follower.slice(event),
            Err(error) => {
                tracing::debug!(%error, "the watch of Services was interrupted");
                continue;
            }
        }
        changed.send_replace(());
    }
}

#[expect(clippy::large_enum_variant, reason = "events pass one at a time and are not kept")]
enum Seen {
    Service(Event<Lenient<Service>>),
    Slice(Event<Lenient<EndpointSlice>>),
}

fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Says once of an object that it cannot be read; what was known of it stays.
fn tell<K: Resource<DynamicType = ()>>(told: &mut Told, object: &Lenient<K>) {
    if let Some((object, why)) = told.news(object) {
        tracing::warn!(kind = %K::kind(&()), object, why, "an object cannot be read and is left as it was");
    }
}

/// The Service that a slice belongs to.
fn owner(slice: &impl ResourceExt) -> Option<Key> {
    Some((slice.namespace().unwrap_or_default(), slice.labels().get(SERVICE_NAME)?.clone()))
}

impl Follower {
    fn service(&mut self, event: Event<Lenient<Service>>) {
        match event {
            Event::Init => self.listing_services.clear(),
            Event::InitApply(service) => {
                self.listing_services.push(key(&service));
                self.put_service(service);
            }
            Event::Apply(service) => self.put_service(service),
            Event::Delete(service) => {
                self.told_services.forget(&service);
                self.drop_service(&key(&service));
            }
            Event::InitDone => {
                let seen = std::mem::take(&mut self.listing_services);
                let gone: Vec<Key> = self.services.keys().filter(|key| !seen.contains(key)).cloned().collect();
                for key in &gone {
                    self.drop_service(key);
                }
            }
        }
    }

    fn put_service(&mut self, service: Lenient<Service>) {
        tell(&mut self.told_services, &service);
        let Lenient::Read(service) = service else { return };
        let key = key(&service);
        self.services.insert(key.clone(), service);
        self.rebuild(&key);
    }

    fn drop_service(&mut self, key: &Key) {
        self.services.remove(key);
        self.rebuild(key);
    }

    fn slice(&mut self, event: Event<Lenient<EndpointSlice>>) {
        match event {
            Event::Init => self.listing_slices.clear(),
            Event::InitApply(slice) => {
                if let Some(owner) = owner(&slice) {
                    self.listing_slices.push((owner, slice.name_any()));
                }
                self.put_slice(slice);
            }
            Event::Apply(slice) => self.put_slice(slice),
            Event::Delete(slice) => {
                self.told_slices.forget(&slice);
                if let Some(owner) = owner(&slice) {
                    self.drop_slice(&owner, &slice.name_any());
                }
            }
            Event::InitDone => {
                let seen = std::mem::take(&mut self.listing_slices);
                let all =
                    self.slices.iter().flat_map(|(key, named)| named.keys().map(|name| (key.clone(), name.clone())));
                let gone: Vec<_> = all.filter(|one| !seen.contains(one)).collect();
                for (key, name) in &gone {
                    self.drop_slice(key, name);
                }
            }
        }
    }

    fn put_slice(&mut self, slice: Lenient<EndpointSlice>) {
        tell(&mut self.told_slices, &slice);
        let Lenient::Read(slice) = slice else { return };
        let Some(owner) = owner(&slice) else { return };
        self.slices.entry(owner.clone()).or_default().insert(slice.name_any(), slice);
        self.rebuild(&owner);
    }

    fn drop_slice(&mut self, owner: &Key, name: &str) {
        if let Some(slices) = self.slices.get_mut(owner) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(owner);
            }
        }
        self.rebuild(owner);
    }

    fn rebuild(&self, key: &Key) {
        let (namespace, name) = key;
        let slices: Vec<EndpointSlice> =
            self.slices.get(key).into_iter().flat_map(|named| named.values().cloned()).collect();
        let old = self.shared.services.named(namespace, name);
        let new = self.services.get(key).map(|service| services::build(service, &slices, &self.node, old.as_ref()));
        self.shared.services.replace(namespace, name, new);
    }
}
