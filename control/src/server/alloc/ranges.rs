//! The ranges that addresses come from: those of the stored ServiceCIDRs.
//!
//! They are brought up to date before they are asked, so that an allocation sees every acknowledged write of a ServiceCIDR;
//! that it still holds is a precondition of the write that takes the address.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::ServiceCIDR;
use parking_lot::Mutex;
use wherry_api::resource::GroupResource;

use crate::cache::{Cache, Entry, Follow};
use crate::cidr::Cidr;
use crate::store::{Key, Precondition, Revision};

/// The API group of ServiceCIDRs and IPAddresses.
pub(crate) const GROUP: &str = "networking.k8s.io";
/// The ServiceCIDR of the server's own range.
pub(crate) const DEFAULT: &str = "kubernetes";

fn resource() -> GroupResource {
    GroupResource::new(GROUP, "servicecidrs")
}

/// A ServiceCIDR that addresses may be taken from.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    key: Key,
    revision: Revision,
    /// Whether it is the server's own, whose first address is left to the Service `kubernetes`.
    pub(super) own: bool,
    pub(super) cidrs: Vec<Cidr>,
}

impl Ready {
    /// What must hold when an address of it is taken.
    pub(super) fn holds(&self) -> (Key, Precondition) {
        (self.key.clone(), Precondition::At(self.revision))
    }

    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(address))
    }

    #[cfg(test)]
    pub(super) fn of(cidrs: &[&str]) -> Self {
        let cidrs = cidrs.iter().map(|text| text.parse().unwrap()).collect();
        Self { key: Key::new(&resource(), "", "test"), revision: 1, own: true, cidrs }
    }
}

/// Follows the stored ServiceCIDRs.
#[derive(Debug)]
pub(super) struct Ranges {
    cache: Cache,
    followed: Mutex<Followed>,
}

#[derive(Debug)]
struct Followed {
    follow: Follow,
    known: BTreeMap<Key, Ready>,
    ready: Arc<[Ready]>,
}

impl Ranges {
    pub(super) fn new(cache: Cache) -> Self {
        let followed = Followed { follow: Follow::new(&resource()), known: BTreeMap::new(), ready: Arc::default() };
        Self { cache, followed: Mutex::new(followed) }
    }

    /// Those that are ready now, the server's own before the others by their names.
    pub(super) fn ready(&self) -> Arc<[Ready]> {
        let mut followed = self.followed.lock();
        let since = self.cache.since(&mut followed.follow);
        if since.is_empty() {
            return Arc::clone(&followed.ready);
        }
        since.read_into(&mut followed.known, |key| key, read);
        let (own, others): (Vec<_>, Vec<_>) = followed.known.values().cloned().partition(|ready| ready.own);
        followed.ready = own.into_iter().chain(others).collect();
        Arc::clone(&followed.ready)
    }
}

/// A ServiceCIDR as it is used; `None` if no address may be taken from it. As in Kubernetes, one that nobody has judged yet
/// is ready.
fn read(entry: &Entry) -> Option<Ready> {
    if entry.meta.deleting {
        return None;
    }
    let object: ServiceCIDR = entry.read().ok()?;
    let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
    if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status != "True") {
        return None;
    }
    let cidrs = object.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    let cidrs: Vec<Cidr> = cidrs.iter().filter_map(|text| Cidr::parse(text)).collect();
    let own = &*entry.meta.name == DEFAULT;
    (!cidrs.is_empty()).then(|| Ready { key: entry.key.clone(), revision: entry.revision, own, cidrs })
}
