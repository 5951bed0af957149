//! Mirrors Endpoints that somebody wrote for a Service without selector into EndpointSlices, which is what everybody reads.
//!
//! One slice per address family and set of ports; a slice belongs to its Endpoints and goes with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::api::ObjectMeta;
use kube::{Api, ResourceExt};

use super::addresses::Port;
use super::classic;
use super::slices::{Group, MANAGED_BY, Plan, endpoints_of, family_of, group_of, write_port};
use super::write_plan;
use crate::controllers::claim::reference;
use crate::controllers::{Context, FromContext};
use crate::reconcile::driver::itself;
use crate::reconcile::kinds::{LAST_APPLIED, SERVICE_NAME};
use crate::reconcile::{Change, Controller, Error, Key, Queue, Shared};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// On Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that were a lock of leaders, once.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Addresses of a family that are mirrored with one set of ports.
const CAPACITY: usize = 1000;

#[derive(Debug)]
pub struct Mirror {
    shared: Arc<Shared>,
}

impl FromContext for Mirror {
    fn new(context: &Context) -> Self {
        Self { shared: context.shared.clone() }
    }
}

impl Controller for Mirror {
    /// Of the Endpoints, which have the name of their Service.
    type Key = Key;
    const NAME: &'static str = "endpointslicemirroring";

    fn watch(self: &Arc<Self>, queue: &Queue<Key>) {
        self.shared.endpoints.subscribe(itself(queue));
        self.shared.services.subscribe(itself(queue));
        let to = queue.clone();
        self.shared.endpoint_slices.subscribe(move |change: &Change<'_, EndpointSlice>| {
            let Some(slice) = change.latest().filter(|slice| is_own(slice)) else { return };
            if let Some(service) = slice.labels().get(SERVICE_NAME) {
                to.add(Key::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service));
            }
        });
    }

    fn keys(&self) -> Vec<Key> {
        self.shared.endpoints.keys()
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let mut present = self.shared.endpoint_slices.grouped_by(&key.name);
        present.retain(|slice| {
            is_own(slice)
                && slice.metadata.namespace.as_deref() == Some(&key.namespace)
                && slice.metadata.deletion_timestamp.is_none()
        });
        let (endpoints, service) = (self.shared.endpoints.get(key), self.shared.services.get(key));
        let mirrored = endpoints.filter(|endpoints| service.is_some_and(|service| is_mirrored(endpoints, &service)));
        let plan = match mirrored {
            Some(endpoints) => plan(&endpoints, &present),
            None => Plan { delete: present, ..Plan::default() },
        };
        let api = Api::namespaced(self.shared.client.clone(), &key.namespace);
        write_plan(&api, &self.shared.endpoint_slices, &plan).await?;
        Ok(None)
    }
}

fn is_own(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(BTreeMap::is_empty)
        && endpoints.labels().get(SKIP).is_none_or(|skip| skip != "true")
        && !endpoints.annotations().contains_key(LEADER)
        && endpoints.metadata.deletion_timestamp.is_none()
}

/// `present`: the slices that mirror these Endpoints now.
fn plan(endpoints: &Endpoints, present: &[Arc<EndpointSlice>]) -> Plan {
    let mut groups = groups(endpoints);
    let mut plan = Plan::default();
    for now in present {
        let group = group_of(now);
        let Some(wanted) = groups.remove(&group) else {
            plan.delete.push(now.clone());
            continue;
        };
        let wanted = slice(endpoints, &group, wanted);
        let same = endpoints_of(now) == endpoints_of(&wanted)
            && now.labels() == wanted.labels()
            && now.annotations() == wanted.annotations();
        if !same {
            let mut next = (**now).clone();
            next.endpoints = wanted.endpoints;
            next.metadata.labels = wanted.metadata.labels;
            next.metadata.annotations = wanted.metadata.annotations;
            plan.update.push(next);
        }
    }
    plan.create.extend(groups.into_iter().map(|(group, wanted)| slice(endpoints, &group, wanted)));
    plan
}

fn groups(endpoints: &Endpoints) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    // Who says twice of an address whether it is ready, says no if it says so once.
    let subsets = classic::repacked(endpoints.subsets.as_deref().unwrap_or_default());
    for subset in &subsets {
        let ports = ports(subset);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        for (address, ready) in ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)))
        {
            let Some(family) = family_of(&address.ip) else { continue };
            let group = groups.entry((family, ports.clone())).or_default();
            if group.len() < CAPACITY && !group.iter().any(|known| known.addresses.contains(&address.ip)) {
                group.push(endpoint(address, ready));
            }
        }
    }
    groups
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        number: port.port,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    };
    let mut ports: Vec<Port> = subset.ports.iter().flatten().map(port).collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(endpoints: &Endpoints, (family, ports): &Group, wanted: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.annotations().clone();
    annotations.retain(|name, _| name != TRIGGERED && name != LAST_APPLIED);
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: endpoints.namespace(),
            generate_name: Some(format!("{}-", endpoints.name_any())),
            labels: Some(labels),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            owner_references: Some(vec![reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: (*family).to_owned(),
        endpoints: Some(wanted),
        ports: Some(ports.iter().map(write_port).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(subsets: &Value) -> Endpoints {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"a": "b"}},
            "subsets": subsets}))
        .expect("endpoints")
    }

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).expect("a service")
    }

    #[test]
    fn a_slice_per_family_and_ports_follows_what_is_written() {
        let port = json!([{"name": "web", "port": 80}]);
        let first = endpoints(&json!([
            {"ports": port, "addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}]},
            {"ports": port, "addresses": [{"ip": "fd00::1"}]}]));
        let made = plan(&first, &[]);
        assert_eq!((made.create.len(), made.update.len(), made.delete.len()), (2, 0, 0));
        let ready: Vec<_> =
            endpoints_of(&made.create[0]).iter().map(|e| e.conditions.as_ref().and_then(|c| c.ready)).collect();
        assert_eq!(ready, [Some(true), Some(false)]);
        assert_eq!(made.create[0].labels().len(), 3);
        let present: Vec<_> = made.create.into_iter().map(Arc::new).collect();
        let again = plan(&first, &present);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
        let next = endpoints(&json!([{"ports": port, "addresses": [{"ip": "10.0.0.3"}]}]));
        let changed = plan(&next, &present);
        assert_eq!((changed.create.len(), changed.update.len(), changed.delete.len()), (0, 1, 1));
    }

    #[test]
    fn an_address_that_is_written_twice_is_ready_only_if_both_say_so() {
        let port = json!([{"name": "web", "port": 80}]);
        let made = plan(
            &endpoints(&json!([{"ports": port, "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]},
                {"ports": port, "notReadyAddresses": [{"ip": "10.0.0.1"}]}])),
            &[],
        );
        assert_eq!(made.create.len(), 1);
        let ready = |e: &Endpoint| (e.addresses[0].clone(), e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
        let mut told: Vec<_> = endpoints_of(&made.create[0]).iter().map(ready).collect();
        told.sort();
        assert_eq!(told, [("10.0.0.1".to_owned(), false), ("10.0.0.2".to_owned(), true)]);
    }

    #[test]
    fn only_what_nobody_else_keeps_is_mirrored() {
        let mut written = endpoints(&json!([]));
        assert!(is_mirrored(&written, &service(&json!({}))));
        assert!(!is_mirrored(&written, &service(&json!({"selector": {"app": "a"}}))));
        written.labels_mut().insert(SKIP.into(), "true".into());
        assert!(!is_mirrored(&written, &service(&json!({}))));
    }
}
