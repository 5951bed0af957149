//! Cluster addresses and node ports of Services, handed out in the same path that writes them.
//!
//! What must stay true: no address or port has two owners, also with many writers of one Service; what a failed or dry-run
//! write took is free again, unless another write of the same Service has it. The state is one map in memory, bounded by the
//! address range and the port range; it is rebuilt from the stored Services at start.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use wherry_api::field::{ErrorList, Path};
use wherry_api::object;
use wherry_api::resource::Descriptor;
use wherry_api::status::ApiError;

use crate::store::Key;

/// An IPv4 range in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    bits: u8,
}

/// A text that is not an IPv4 range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range in CIDR notation, such as 10.96.0.0/16")]
pub struct BadCidr(String);

impl FromStr for Cidr {
    type Err = BadCidr;
    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().ok().filter(|b| (8..=30).contains(b)).ok_or_else(bad)?;
        let mask = u32::MAX << (32 - u32::from(bits));
        Ok(Self { base: u32::from(address) & mask, bits })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

impl Cidr {
    /// How many addresses can be handed out: all but the first and the last.
    fn size(self) -> u32 {
        (1_u32 << (32 - u32::from(self.bits))) - 2
    }

    /// The `index`th address, counted from 0, that can be handed out.
    fn nth(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1 + index)
    }

    /// The address of the `kubernetes` Service.
    pub fn first(self) -> Ipv4Addr {
        self.nth(0)
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        (self.base + 1..=self.base + self.size()).contains(&u32::from(address))
    }

    /// How many of the first addresses are left to those who ask for one: Kubernetes' rule.
    fn reserved(self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
    }
}

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

fn spec_text<'a>(service: &'a Value, field: &str) -> &'a str {
    service.get("spec").and_then(|s| s.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn service_type(service: &Value) -> &str {
    match spec_text(service, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

fn cluster_ip(service: &Value) -> &str {
    match spec_text(service, "clusterIP") {
        "" => service.pointer("/spec/clusterIPs/0").and_then(Value::as_str).unwrap_or_default(),
        address => address,
    }
}

/// Whether the Service has an address of its own: it is neither a name only nor headless.
fn needs_address(service: &Value) -> bool {
    service_type(service) != "ExternalName" && cluster_ip(service) != "None"
}

fn needs_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn node_port(port: &Value) -> Option<i64> {
    port.get("nodePort").and_then(Value::as_i64).filter(|p| *p != 0)
}

fn items(service: &Value) -> Vec<Item> {
    let address = needs_address(service).then(|| cluster_ip(service).parse().ok()).flatten().map(Item::Address);
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let ports = ports.filter_map(node_port).filter_map(|p| u16::try_from(p).ok()).map(Item::Port);
    address.into_iter().chain(ports).collect()
}

/// What an update leaves out stays as it was; what the new type has no use for goes.
fn carry_over(new: &mut Value, old: &Value) {
    if service_type(new) == "ExternalName" {
        if cluster_ip(new) == cluster_ip(old) {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
                object::set_at(new, &format!("spec.{field}"), Value::Null);
            }
        }
    } else if service_type(old) != "ExternalName" && cluster_ip(new).is_empty() {
        object::set_at(new, "spec.clusterIP", cluster_ip(old));
        object::set_at(new, "spec.clusterIPs", json!([cluster_ip(old)]));
    }
    let (had, needs) = (needs_node_ports(old), needs_node_ports(new));
    let old_ports = old.pointer("/spec/ports").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(ports) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
    let same = |a: &Value, b: &Value| a.get("port") == b.get("port") && a.get("protocol") == b.get("protocol");
    for port in ports {
        let before = old_ports.iter().find(|p| same(p, port)).and_then(node_port);
        if had && needs && node_port(port).is_none() {
            if let Some(before) = before {
                object::set_at(port, "nodePort", before);
            }
        } else if had && !needs && node_port(port) == before {
            object::set_at(port, "nodePort", Value::Null);
        }
    }
}

/// IP families: this cluster has IPv4.
fn families(service: &mut Value, errors: &mut ErrorList) {
    if service_type(service) == "ExternalName" {
        return;
    }
    let spec = Path::new("spec");
    if spec_text(service, "ipFamilyPolicy") == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(&spec.child("ipFamilyPolicy"), &json!("RequireDualStack"), detail);
    }
    let asked = service.pointer("/spec/ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
    for (index, family) in asked.iter().enumerate().filter(|(_, f)| **f != json!("IPv4")) {
        errors.invalid(&spec.child("ipFamilies").index(index), family, "not configured on this cluster");
    }
    if asked.is_empty() {
        object::set_at(service, "spec.ipFamilies", json!(["IPv4"]));
    }
    if spec_text(service, "ipFamilyPolicy").is_empty() {
        object::set_at(service, "spec.ipFamilyPolicy", "SingleStack");
    }
    if cluster_ip(service) == "None" {
        object::set_at(service, "spec.clusterIP", "None");
        object::set_at(service, "spec.clusterIPs", json!(["None"]));
    }
}

#[cfg(test)]
mod tests {
    use wherry_api::registry::Registry;

    use super::*;

    fn allocators(cidr: &str) -> Allocators {
        Allocators::new(cidr.parse().unwrap(), 30000..=30003)
    }

    fn begin(allocators: &Allocators, name: &str, spec: Value, old: Option<&Value>) -> Result<(Value, Hold), String> {
        let registry = Registry::builtin();
        let resource = registry.by_plural("", "v1", "services").unwrap();
        let mut service = json!({"metadata": {"name": name, "namespace": "a"}, "spec": spec});
        let key = Key::new(&resource.group_resource(), "a", name);
        let hold = allocators.begin(resource, &key, &mut service, old).map_err(|e| e.message)?;
        Ok((service, hold))
    }

    #[test]
    fn an_address_has_one_owner_until_it_is_released() {
        let all = allocators("10.0.0.0/24");
        let (service, hold) = begin(&all, "one", json!({"clusterIP": "10.0.0.7"}), None).unwrap();
        assert_eq!(service.pointer("/spec/clusterIPs/0"), Some(&json!("10.0.0.7")));
        hold.keep();
        let refused = begin(&all, "two", json!({"clusterIP": "10.0.0.7"}), None).unwrap_err();
        assert!(refused.contains("failed to allocate IP 10.0.0.7: provided IP is already allocated"), "{refused}");
        let refused = begin(&all, "two", json!({"clusterIP": "10.0.1.7"}), None).unwrap_err();
        assert!(refused.contains("is not in the valid range. The range of valid IPs is 10.0.0.0/24"), "{refused}");
        all.release(&Key::from_stored("core/services/a/one"), "");
        assert!(begin(&all, "two", json!({"clusterIP": "10.0.0.7"}), None).is_ok());
    }

    #[test]
    fn a_write_that_does_not_happen_takes_nothing() {
        let all = allocators("10.0.0.0/24");
        drop(begin(&all, "one", json!({"type": "NodePort", "ports": [{"port": 80}]}), None).unwrap());
        assert!(all.taken.lock().is_empty());
    }

    #[test]
    fn a_write_that_fails_leaves_what_another_write_of_the_same_service_took() {
        let all = allocators("10.0.0.0/24");
        let spec = json!({"type": "NodePort", "clusterIP": "10.0.0.7", "ports": [{"port": 80, "nodePort": 30001}]});
        let (_, slower) = begin(&all, "one", spec.clone(), None).unwrap();
        let (_, faster) = begin(&all, "one", spec.clone(), None).unwrap();
        faster.keep();
        drop(slower);
        assert!(begin(&all, "two", spec, None).unwrap_err().contains("already allocated"));
        all.release(&Key::from_stored("core/services/a/one"), "");
        assert!(all.taken.lock().is_empty());
    }

    #[test]
    fn the_end_of_a_service_frees_nothing_of_the_next_one_of_its_name() {
        let all = allocators("10.0.0.0/24");
        let (_, hold) = begin(&all, "one", json!({"type": "NodePort", "ports": [{"port": 80}]}), None).unwrap();
        hold.keep();
        all.release(&Key::from_stored("core/services/a/one"), "an older uid");
        assert_eq!(all.taken.lock().len(), 2);
    }

    #[test]
    fn a_full_range_is_said_and_no_address_is_given_twice() {
        let all = allocators("10.0.0.0/27");
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..29 {
            let (service, hold) = begin(&all, &format!("s{n}"), json!({}), None).unwrap();
            assert!(seen.insert(cluster_ip(&service).to_owned()));
            hold.keep();
        }
        assert!(!seen.contains("10.0.0.1"), "the first address is the kubernetes Service's");
        assert!(begin(&all, "more", json!({}), None).unwrap_err().contains("range is full"));
    }

    #[test]
    fn node_ports_are_kept_by_an_update_and_freed_by_a_change_of_type() {
        let all = allocators("10.0.0.0/24");
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30001}]});
        let (first, hold) = begin(&all, "one", spec.clone(), None).unwrap();
        hold.keep();
        let (again, hold) = begin(&all, "one", spec, Some(&first)).unwrap();
        assert_eq!(first, again);
        hold.keep();
        let ports = json!([{"port": 80}, {"port": 81, "nodePort": 30001}]);
        let (plain, hold) = begin(&all, "one", json!({"type": "ClusterIP", "ports": ports}), Some(&first)).unwrap();
        hold.keep();
        assert_eq!(plain.pointer("/spec/ports/1/nodePort"), None);
        assert_eq!(items(&plain).len(), 1);
        assert_eq!(all.taken.lock().len(), 1);
        let refused = begin(&all, "two", json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}), None);
        assert!(refused.unwrap_err().contains("The range of valid ports is 30000-30003"));
    }

    #[test]
    fn headless_and_named_services_have_no_address() {
        let all = allocators("10.0.0.0/24");
        let (headless, _hold) = begin(&all, "one", json!({"clusterIP": "None"}), None).unwrap();
        assert_eq!(headless.pointer("/spec/clusterIPs"), Some(&json!(["None"])));
        let (named, _hold) = begin(&all, "two", json!({"type": "ExternalName", "externalName": "x.y"}), None).unwrap();
        assert_eq!(named.pointer("/spec/clusterIP"), None);
        assert!(all.taken.lock().is_empty());
    }
}
