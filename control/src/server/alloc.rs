//! Cluster addresses and node ports of Services, handed out in the same path that writes them.
//!
//! What must stay true: no address or port has two owners, also with many writers of one Service; what a failed or dry-run
//! write took is free again, unless another write of the same Service has it. The state is one map in memory, bounded by the
//! address range and the port range; it is rebuilt from the stored Services at start.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

pub use self::cidr::{BadCidr, Cidr};
use self::service::{carry_over, cluster_ip, families, items, needs_address, needs_node_ports, node_port};
use crate::store::Key;

mod cidr;
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
    range: Cidr,
    ports: RangeInclusive<u16>,
    taken: Arc<Mutex<Taken>>,
}

/// What a write has taken: freed again unless it is kept.
#[derive(Debug, Default)]
pub struct Hold {
    allocators: Option<Allocators>,
    owner: Owner,
    took: Vec<Item>,
    /// What the object no longer has; freed when the write has happened.
    frees: Vec<Item>,
}

impl Hold {
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
        let Some(allocators) = self.allocators.as_ref().filter(|_| !items.is_empty()) else { return };
        let mut taken = allocators.taken.lock();
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

/// What went wrong with one item.
enum Refused {
    OutOfRange,
    Taken,
    Full,
}

impl Allocators {
    pub fn new(range: Cidr, ports: RangeInclusive<u16>) -> Self {
        Self { range, ports, taken: Arc::default() }
    }

    pub fn range(&self) -> Cidr {
        self.range
    }

    /// Marks what a stored Service has.
    pub fn restore(&self, key: &Key, service: &Value) {
        let mut taken = self.taken.lock();
        for item in items(service) {
            let owner = Owner::new(key, object::uid(service));
            taken.entry(item).or_insert(Claim { owner, holds: 0, stored: true });
        }
    }

    /// Frees all that an object has, which is gone.
    pub fn release(&self, key: &Key, uid: &str) {
        if !key.as_str().starts_with("core/services/") {
            return;
        }
        let owner = Owner::new(key, uid);
        self.taken.lock().retain(|_, claim| {
            claim.stored &= claim.owner != owner;
            claim.stored || claim.holds > 0
        });
    }

    /// Fills in and takes what an object that is about to be written needs. Objects other than Services need nothing.
    pub fn begin(
        &self,
        resource: &Descriptor,
        key: &Key,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Hold, ApiError> {
        if !resource.group.is_empty() || resource.plural != "services" {
            return Ok(Hold::default());
        }
        if let Some(old) = old {
            carry_over(object, old);
        }
        let mut errors = ErrorList::default();
        families(object, &mut errors);
        let owner = Owner::new(key, object::uid(object));
        let mut hold = Hold { allocators: Some(self.clone()), owner, took: Vec::new(), frees: Vec::new() };
        if errors.is_empty() {
            self.address(object, &mut hold, &mut errors);
            self.node_ports(object, &mut hold, &mut errors);
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(resource, object::name(object), &errors));
        }
        if let Some(old) = old {
            let has = items(object);
            hold.frees = items(old).into_iter().filter(|item| !has.contains(item)).collect();
        }
        Ok(hold)
    }

    fn address(&self, object: &mut Value, hold: &mut Hold, errors: &mut ErrorList) {
        if !needs_address(object) {
            return;
        }
        let path = Path::new("spec").child("clusterIPs");
        let asked = cluster_ip(object).to_owned();
        let got = if asked.is_empty() {
            self.any_address(&hold.owner).map_err(|_| "failed to allocate a serviceIP: range is full".to_owned())
        } else {
            self.this_address(&hold.owner, &asked)
        };
        match got {
            Ok(address) => {
                hold.took.push(Item::Address(address));
                object::set_at(object, "spec.clusterIP", address.to_string());
                object::set_at(object, "spec.clusterIPs", json!([address.to_string()]));
            }
            Err(detail) => errors.invalid(&path, &json!([asked]), &detail),
        }
    }

    fn this_address(&self, owner: &Owner, asked: &str) -> Result<Ipv4Addr, String> {
        let address: Ipv4Addr =
            asked.parse().map_err(|_| "must be a valid IPv4 address of this cluster's service range".to_owned())?;
        if !self.range.contains(address) {
            return Err(format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of \
                 valid IPs is {}",
                self.range
            ));
        }
        self.take(Item::Address(address), owner)
            .map_err(|_| format!("failed to allocate IP {address}: provided IP is already allocated"))?;
        Ok(address)
    }

    /// A free address, at first from beyond those that are left for requests.
    fn any_address(&self, owner: &Owner) -> Result<Ipv4Addr, Refused> {
        let (size, reserved) = (self.range.size(), self.range.reserved());
        let start = rand::random_range(reserved..size);
        let order = (start..size).chain(reserved..start).chain(1..reserved);
        let mut taken = self.taken.lock();
        let free = |address: &Ipv4Addr| claim_free(&mut taken, Item::Address(*address), owner);
        order.map(|n| self.range.nth(n)).find(free).ok_or(Refused::Full)
    }

    fn node_ports(&self, object: &mut Value, hold: &mut Hold, errors: &mut ErrorList) {
        if !needs_node_ports(object) {
            return;
        }
        let path = Path::new("spec").child("ports");
        let Some(ports) = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
        // Ports that are asked for come first: a chosen one must not take them.
        for (index, port) in ports.iter().enumerate() {
            let Some(asked) = node_port(port) else { continue };
            let path = path.index(index).child("nodePort");
            match self.this_port(&hold.owner, asked) {
                Ok(port) => hold.took.push(Item::Port(port)),
                Err(Refused::OutOfRange) => {
                    let range = format!("{}-{}", self.ports.start(), self.ports.end());
                    let detail =
                        format!("provided port is not in the valid range. The range of valid ports is {range}");
                    errors.invalid(&path, &json!(asked), &detail);
                }
                Err(_) => errors.invalid(&path, &json!(asked), "provided port is already allocated"),
            }
        }
        for (index, port) in ports.iter_mut().enumerate().filter(|(_, p)| node_port(p).is_none()) {
            match self.any_port(&hold.owner) {
                Ok(chosen) => {
                    hold.took.push(Item::Port(chosen));
                    object::set_at(port, "nodePort", chosen);
                }
                Err(_) => {
                    let path = path.index(index).child("nodePort");
                    errors.invalid(&path, &json!(0), "failed to allocate a nodePort: range is full");
                }
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

    fn any_port(&self, owner: &Owner) -> Result<u16, Refused> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        let start = rand::random_range(first..=last);
        let mut taken = self.taken.lock();
        let free = |port: &u16| claim_free(&mut taken, Item::Port(*port), owner);
        (start..=last).chain(first..start).find(free).ok_or(Refused::Full)
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
