//! Cluster addresses and node ports of Services, handed out in the same path that writes them.
//!
//! What must stay true: no address or port has two owners, also with many writers of one Service; what a failed or dry-run
//! write took is free again, unless another write of the same Service has it. What Services have is one map in memory,
//! bounded by the address ranges and the port range, and rebuilt from the stored Services at start; besides, an address is
//! taken while there is an IPAddress of its name, which is written and removed with its Service in one transaction.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::registry::Registry;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use self::addresses::Addresses;
pub(crate) use self::addresses::{ALLOCATOR, FAMILY, MANAGED_BY, Writes, address, family};
pub(crate) use self::ranges::DEFAULT;
use self::ranges::{GROUP, Ranges, Ready};
use self::service::{
    Shared, cluster_ip, families, has_node_ports, health_port, items, needs_address, needs_health_check,
    needs_node_ports, node_port, ports,
};
use crate::cache::Cache;
use crate::store::Key;

mod addresses;
mod ranges;
mod service;
#[cfg(test)]
mod tests;

/// What is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Address(Ipv4Addr),
    Port(u16),
}

/// The Service that has an item. One that is made again under the same name is another one: its items must not go with the
/// end of the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Owner {
    key: String,
    uid: String,
}

impl Owner {
    fn new(key: &Key, uid: &str) -> Self {
        Self { key: key.as_str().to_owned(), uid: uid.to_owned() }
    }
}

/// Why an item is taken: free again when nothing of it holds.
#[derive(Debug)]
struct Claim {
    owner: Owner,
    /// Writes of the owner in flight that have it.
    holds: u32,
    /// Whether the stored owner has it.
    stored: bool,
}

type Taken = BTreeMap<Item, Claim>;

/// The allocators of one server.
#[derive(Clone, Debug)]
pub struct Allocators {
    ranges: Arc<Ranges>,
    addresses: Addresses,
    pool: Pool,
}

/// Who has what.
#[derive(Clone, Debug)]
struct Pool {
    ports: RangeInclusive<u16>,
    taken: Arc<Mutex<Taken>>,
}

/// What the store says of addresses.
struct Stored<'a> {
    ready: &'a [Ready],
    /// Whether somebody has an address who is no Service that is known here.
    taken: &'a dyn Fn(Ipv4Addr) -> bool,
}

/// What a write has taken: freed again unless it is kept.
#[derive(Debug, Default)]
pub struct Hold {
    pool: Option<Pool>,
    owner: Owner,
    took: Vec<Item>,
    /// What the object no longer has; freed when the write has happened.
    frees: Vec<Item>,
    /// The address that the object did not have before, and of which range.
    new: Option<(Ipv4Addr, Ready)>,
    writes: Writes,
}

impl Hold {
    /// What must be written together with the object.
    pub(crate) fn take_writes(&mut self) -> Writes {
        std::mem::take(&mut self.writes)
    }

    /// The write happened.
    pub fn keep(mut self) {
        let (took, frees) = (std::mem::take(&mut self.took), std::mem::take(&mut self.frees));
        self.settle(&took, |claim| {
            claim.holds = claim.holds.saturating_sub(1);
            claim.stored = true;
        });
        self.settle(&frees, |claim| claim.stored = false);
    }

    /// Changes claims, and frees what nothing claims any more.
    fn settle(&self, items: &[Item], change: impl Fn(&mut Claim)) {
        let Some(pool) = self.pool.as_ref().filter(|_| !items.is_empty()) else { return };
        let mut taken = pool.taken.lock();
        for item in items {
            let Some(claim) = taken.get_mut(item).filter(|claim| claim.owner == self.owner) else { continue };
            change(claim);
            if claim.holds == 0 && !claim.stored {
                taken.remove(item);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let took = std::mem::take(&mut self.took);
        self.settle(&took, |claim| claim.holds = claim.holds.saturating_sub(1));
    }
}

impl Item {
    fn address(self) -> Option<Ipv4Addr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Port(_) => None,
        }
    }

    fn port(self) -> Option<u16> {
        match self {
            Self::Port(port) => Some(port),
            Self::Address(_) => None,
        }
    }
}

/// What is wrong with an item that is asked for.
enum Refused {
    OutOfRange,
    Taken,
}

fn full(what: &str) -> ApiError {
    ApiError::internal(format!("failed to allocate {what}: range is full"))
}

/// Kubernetes' words for an address that is in no range.
const OUTSIDE: &str = "the provided network does not match the current range";
const TAKEN: &str = "provided IP is already allocated";

fn is_service(resource: &Descriptor) -> bool {
    resource.is("", "services")
}

impl Allocators {
    pub fn new(registry: &Registry, cache: &Cache, ports: RangeInclusive<u16>) -> Self {
        let kind = registry.by_plural(GROUP, "v1", "ipaddresses").cloned();
        Self {
            ranges: Arc::new(Ranges::new(cache.clone())),
            addresses: Addresses::new(cache.clone(), kind),
            pool: Pool::new(ports),
        }
    }

    /// Marks what a stored Service has.
    pub fn restore(&self, key: &Key, service: &Value) {
        let mut taken = self.pool.taken.lock();
        for item in items(service) {
            let owner = Owner::new(key, object::uid(service));
            taken.entry(item).or_insert(Claim { owner, holds: 0, stored: true });
        }
    }

    /// Frees all that an object has, which is gone.
    pub fn release(&self, key: &Key, uid: &str) {
        self.pool.release(key, uid);
    }

    /// What must be removed together with an object.
    pub(crate) fn ending(&self, resource: &Descriptor, old: &Value) -> Writes {
        let mut writes = Writes::default();
        if is_service(resource) {
            for address in items(old).into_iter().filter_map(Item::address) {
                writes.add(self.addresses.remove(address, old));
            }
        }
        writes
    }

    /// Fills in and takes what an object that is about to be written needs. Objects other than Services need nothing.
    pub fn begin(
        &self,
        resource: &Descriptor,
        key: &Key,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Hold, ApiError> {
        if !is_service(resource) {
            return Ok(Hold::default());
        }
        let ready = self.ranges.ready();
        let stored = Stored { ready: &ready, taken: &|address| self.addresses.has(address) };
        let mut hold = self.pool.begin(resource, key, object, old, &stored)?;
        if let Some((address, range)) = hold.new.take() {
            hold.writes.preconditions.push(range.holds());
            hold.writes.add(self.addresses.make(address, object));
        }
        if let Some(old) = old {
            for address in hold.frees.iter().copied().filter_map(Item::address) {
                hold.writes.add(self.addresses.remove(address, old));
            }
        }
        Ok(hold)
    }
}

impl Pool {
    fn new(ports: RangeInclusive<u16>) -> Self {
        Self { ports, taken: Arc::default() }
    }

    fn release(&self, key: &Key, uid: &str) {
        if !key.as_str().starts_with("core/services/") {
            return;
        }
        let owner = Owner::new(key, uid);
        self.taken.lock().retain(|_, claim| {
            claim.stored &= claim.owner != owner;
            claim.stored || claim.holds > 0
        });
    }

    fn begin(
        &self,
        resource: &Descriptor,
        key: &Key,
        object: &mut Value,
        old: Option<&Value>,
        stored: &Stored<'_>,
    ) -> Result<Hold, ApiError> {
        let mut errors = ErrorList::default();
        families(object, &mut errors);
        let owner = Owner::new(key, object::uid(object));
        let mut hold = Hold::default();
        (hold.pool, hold.owner) = (Some(self.clone()), owner);
        let had = old.map(items).unwrap_or_default();
        if errors.is_empty() {
            self.address(object, &had, stored, &mut hold, &mut errors)?;
            // What is asked for comes first: what is chosen must not take it.
            self.asked_ports(object, &had, &mut hold, &mut errors)?;
        }
        if errors.is_empty() {
            self.chosen_ports(object, &mut hold)?;
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource, object::name(object), &errors));
        }
        let has = items(object);
        hold.frees = had.into_iter().filter(|item| !has.contains(item)).collect();
        Ok(hold)
    }

    /// Error: 500 if no address is free, as in Kubernetes.
    fn address(
        &self,
        object: &mut Value,
        had: &[Item],
        stored: &Stored<'_>,
        hold: &mut Hold,
        errors: &mut ErrorList,
    ) -> Result<(), ApiError> {
        if !needs_address(object) {
            return Ok(());
        }
        let path = Path::new("spec").child("clusterIPs");
        let asked = cluster_ip(object).to_owned();
        let got = if asked.is_empty() {
            Ok(self.any_address(&hold.owner, stored).ok_or_else(|| full("a serviceIP"))?)
        } else {
            self.this_address(&hold.owner, had, stored, &asked)
                .map_err(|why| format!("failed to allocate IP {asked}: {why}"))
        };
        match got {
            Ok((address, range)) => {
                hold.took.push(Item::Address(address));
                hold.new = range.map(|range| (address, range));
                object::set_at(object, "spec.clusterIP", address.to_string());
                object::set_at(object, "spec.clusterIPs", json!([address.to_string()]));
            }
            Err(detail) => errors.invalid(&path, &json!([asked]), &detail),
        }
        Ok(())
    }

    /// Takes an address that is asked for. What the Service has already it keeps, also if its range is gone.
    fn this_address(
        &self,
        owner: &Owner,
        had: &[Item],
        stored: &Stored<'_>,
        asked: &str,
    ) -> Result<(Ipv4Addr, Option<Ready>), &'static str> {
        let address: Ipv4Addr = asked.parse().map_err(|_| OUTSIDE)?;
        let item = Item::Address(address);
        let range = if had.contains(&item) {
            None
        } else {
            let range = stored.ready.iter().find(|range| range.contains(address)).ok_or(OUTSIDE)?;
            if (stored.taken)(address) {
                return Err(TAKEN);
            }
            Some(range.clone())
        };
        self.take(item, owner).map_err(|_| TAKEN)?;
        Ok((address, range))
    }

    /// A free address, in each range at first from beyond those that are left for requests.
    fn any_address(&self, owner: &Owner, stored: &Stored<'_>) -> Option<(Ipv4Addr, Option<Ready>)> {
        let mut taken = self.taken.lock();
        for range in stored.ready {
            for cidr in range.cidrs.iter().filter(|cidr| cidr.size() > 0) {
                let (size, reserved) = (cidr.size(), cidr.reserved());
                let start = rand::random_range(reserved..size);
                let first = u32::from(range.own);
                let mut order = (start..size).chain(reserved..start).chain(first..reserved).map(|n| cidr.nth(n));
                let free = |address: &Ipv4Addr| {
                    let item = Item::Address(*address);
                    !taken.contains_key(&item) && !(stored.taken)(*address) && claim_free(&mut taken, item, owner)
                };
                if let Some(address) = order.find(free) {
                    return Some((address, Some(range.clone())));
                }
            }
        }
        None
    }

    /// Takes the ports that are named. Error: 500 for the one where health is asked, as in Kubernetes.
    fn asked_ports(
        &self,
        object: &Value,
        had: &[Item],
        hold: &mut Hold,
        errors: &mut ErrorList,
    ) -> Result<(), ApiError> {
        let health = health_port(object).filter(|_| needs_health_check(object));
        let path = Path::new("spec").child("ports");
        for (index, port) in ports(object).iter().enumerate().filter(|_| has_node_ports(object)) {
            let Some(asked) = node_port(port) else { continue };
            // One owner may have a port for one thing only.
            let kept = health == Some(asked) && had.iter().any(|item| item.port().map(i64::from) == health);
            let got = if kept { Err(Refused::Taken) } else { self.this_port(&hold.owner, asked) };
            match got {
                Ok(port) => hold.took.push(Item::Port(port)),
                Err(why) => errors.invalid(&path.index(index).child("nodePort"), &json!(asked), &self.says(&why)),
            }
        }
        let Some(asked) = health.filter(|_| errors.is_empty()) else { return Ok(()) };
        let own = ports(object).iter().any(|port| node_port(port) == Some(asked));
        let got = if own { Err(Refused::Taken) } else { self.this_port(&hold.owner, asked) };
        let refused = |why: Refused| {
            let why = self.says(&why);
            ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
        };
        hold.took.push(Item::Port(got.map_err(refused)?));
        Ok(())
    }

    /// Chooses the ports that are not named, one for all protocols of a port. Error: 500 if none is free, as in Kubernetes.
    fn chosen_ports(&self, object: &mut Value, hold: &mut Hold) -> Result<(), ApiError> {
        let chooses = needs_node_ports(object);
        let missing = |(_, port): &(usize, &Value)| chooses && node_port(port).is_none();
        let missing: Vec<usize> = ports(object).iter().enumerate().filter(missing).map(|(index, _)| index).collect();
        let mut known = Shared::of(ports(object));
        for index in missing {
            let Some(of) = object.pointer(&format!("/spec/ports/{index}")) else { continue };
            let shared = known.find(of).and_then(|port| u16::try_from(port).ok());
            let port = shared.or_else(|| self.any_port(hold)).ok_or_else(|| full("a nodePort"))?;
            known.add(of, i64::from(port));
            if let Some(of) = object.pointer_mut(&format!("/spec/ports/{index}")) {
                object::set_at(of, "nodePort", port);
            }
        }
        if needs_health_check(object) && health_port(object).is_none() {
            let port = self.any_port(hold).ok_or_else(|| full("a HealthCheck NodePort"))?;
            object::set_at(object, "spec.healthCheckNodePort", port);
        }
        Ok(())
    }

    fn says(&self, why: &Refused) -> String {
        match why {
            Refused::Taken => "provided port is already allocated".to_owned(),
            Refused::OutOfRange => {
                let (first, last) = (self.ports.start(), self.ports.end());
                format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
            }
        }
    }

    fn this_port(&self, owner: &Owner, asked: i64) -> Result<u16, Refused> {
        let port = u16::try_from(asked).map_err(|_| Refused::OutOfRange)?;
        if !self.ports.contains(&port) {
            return Err(Refused::OutOfRange);
        }
        self.take(Item::Port(port), owner)?;
        Ok(port)
    }

    /// Takes any free port; `None`: there is none.
    fn any_port(&self, hold: &mut Hold) -> Option<u16> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        let start = rand::random_range(first..=last);
        let mut taken = self.taken.lock();
        let free = |port: &u16| claim_free(&mut taken, Item::Port(*port), &hold.owner);
        let port = (start..=last).chain(first..start).find(free)?;
        drop(taken);
        hold.took.push(Item::Port(port));
        Some(port)
    }

    /// Takes one item, which may be the owner's already.
    fn take(&self, item: Item, owner: &Owner) -> Result<(), Refused> {
        let mut taken = self.taken.lock();
        if claim_free(&mut taken, item, owner) {
            return Ok(());
        }
        let claim = taken.get_mut(&item).filter(|claim| claim.owner == *owner).ok_or(Refused::Taken)?;
        claim.holds += 1;
        Ok(())
    }
}

/// Takes an item for a write if nobody has it.
fn claim_free(taken: &mut Taken, item: Item, owner: &Owner) -> bool {
    let Entry::Vacant(free) = taken.entry(item) else { return false };
    free.insert(Claim { owner: owner.clone(), holds: 1, stored: false });
    true
}
