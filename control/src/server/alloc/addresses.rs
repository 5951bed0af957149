//! The IPAddress objects of Services: each is written, and removed, in the transaction that writes its Service.
//!
//! An address is taken if there is an IPAddress of its name, whoever made it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::patch::apply::{self, Writer};
use wherry_api::resource::{Descriptor, GroupResource};
use wherry_api::strategy::Part;

use super::ranges::GROUP;
use crate::cache::{Cache, Entry};
use crate::server::metadata;
use crate::store::{Encoded, Key, Op, Precondition};

/// On an IPAddress: of which family it is.
pub(crate) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// On an IPAddress: who made it.
pub(crate) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Who makes those of Services.
pub(crate) const ALLOCATOR: &str = "ipallocator.k8s.io";
/// As whom their fields are recorded, as in Kubernetes.
const MANAGER: &str = "kube-apiserver";

/// What is written with a Service.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) preconditions: Vec<(Key, Precondition)>,
    pub(crate) ops: Vec<Op>,
}

impl Writes {
    pub(super) fn add(&mut self, other: Self) {
        self.preconditions.extend(other.preconditions);
        self.ops.extend(other.ops);
    }
}

/// The IPAddresses that are stored.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    cache: Cache,
    /// `None`: the kind is not served, and none is written.
    kind: Option<Arc<Descriptor>>,
}

fn resource() -> GroupResource {
    GroupResource::new(GROUP, "ipaddresses")
}

impl Addresses {
    pub(super) fn new(cache: Cache, kind: Option<Arc<Descriptor>>) -> Self {
        Self { cache, kind }
    }

    fn find(&self, address: Ipv4Addr) -> Option<Arc<Entry>> {
        self.cache.get(&resource(), "", &address.to_string())
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        self.find(address).is_some()
    }

    /// Makes the one of a Service, if there still is none.
    pub(super) fn make(&self, address: Ipv4Addr, service: &Value) -> Writes {
        let Some(kind) = &self.kind else { return Writes::default() };
        let key = Key::new(&resource(), "", &address.to_string());
        let (bytes, splice) = object::encode(&of(kind, address, service));
        Writes {
            preconditions: vec![(key.clone(), Precondition::Absent)],
            ops: vec![Op::Put { key, value: Encoded { bytes, splice } }],
        }
    }

    /// Removes the one of a Service that no longer has the address, if it still is as it is now. One that somebody else made,
    /// or that waits for a finalizer, stays.
    pub(super) fn remove(&self, address: Ipv4Addr, service: &Value) -> Writes {
        let Some(entry) = self.find(address) else {
            let key = Key::new(&resource(), "", &address.to_string());
            return Writes { preconditions: vec![(key, Precondition::Absent)], ops: Vec::new() };
        };
        let goes = |found: &Value| belongs(found, service) && object::finalizers(found).is_empty();
        let goes = entry.read::<Value>().is_ok_and(|found| goes(&found));
        let own = goes.then(|| Op::Delete { key: entry.key.clone() });
        Writes {
            preconditions: vec![(entry.key.clone(), Precondition::At(entry.revision))],
            ops: own.into_iter().collect(),
        }
    }
}

fn belongs(address: &Value, service: &Value) -> bool {
    let part = |field: &str| object::text_at(address, &format!("spec.parentRef.{field}"));
    (part("group").as_str(), part("resource").as_str()) == ("", "services")
        && part("namespace") == object::namespace(service)
        && part("name") == object::name(service)
}

/// As labels name the family of an address.
pub(crate) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The IPAddress of a Service's address.
pub(crate) fn address(ip: IpAddr, namespace: &str, name: &str) -> IPAddress {
    let labels = [(FAMILY, family(ip)), (MANAGED_BY, ALLOCATOR)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let parent_ref = ParentReference {
        group: None,
        resource: "services".to_owned(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    };
    IPAddress {
        metadata: ObjectMeta { name: Some(ip.to_string()), labels: Some(labels), ..ObjectMeta::default() },
        spec: IPAddressSpec { parent_ref },
    }
}

/// The same, as it is stored.
fn of(kind: &Descriptor, ip: Ipv4Addr, service: &Value) -> Value {
    let now = Timestamp::now();
    let mut new = json!(address(ip.into(), object::namespace(service), object::name(service)));
    object::set_type(&mut new, kind);
    metadata::prepare_create(kind, &mut new, now);
    let writer = Writer { resource: kind, manager: MANAGER, subresource: "", part: Part::Main, now };
    apply::record(writer, None, &mut new, None, &|_, _| None);
    new
}
