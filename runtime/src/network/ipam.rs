//! Addresses in `local` mode: which part of 127.0.0.0/8 this cluster uses, and which pod has which address.
//!
//! A *slot* gives a cluster three ranges of 65,536 addresses that share their low half: pods, their private localhosts
//! and Services. Several clusters on one machine take different slots; a slot is claimed with an abstract Unix socket,
//! which the kernel frees with the process. 127.0.0.0/16 is never used: it is the host's own.

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use parking_lot::Mutex;

/// Slots there are.
const SLOTS: u8 = 63;
/// Second octet of the first slot's Services, pods and private localhosts.
const SERVICES: u8 = 1;
const PODS: u8 = 64;
const LOCALHOSTS: u8 = 128;

/// Ranges with addresses of this host, of pods, of their private localhosts and of the Services of clusters beside this one,
/// in CIDR notation. A cluster's own Services are in one of them.
pub const KEPT: [&str; 3] = ["127.0.0.0/9", "127.128.0.0/10", "127.192.0.0/16"];

/// A range of 65,536 addresses, `127.N.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(u8);

impl Range {
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.octets().starts_with(&[127, self.0])
    }

    fn address(self, low: u16) -> Ipv4Addr {
        let [high, low] = low.to_be_bytes();
        Ipv4Addr::new(127, self.0, high, low)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "127.{}.0.0/16", self.0)
    }
}

/// Whether an address is in the range of any cluster's pods.
pub fn is_pod(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 127 && (PODS..PODS + SLOTS).contains(&second)
}

/// A cluster's share of 127.0.0.0/8, held while this lives.
#[derive(Debug)]
pub struct Slot {
    index: u8,
    _claim: UnixListener,
}

impl Slot {
    /// Claims the preferred slot (the one that this cluster's Services already have addresses from), or any.
    /// The error of a preferred slot that another process holds is [`io::ErrorKind::AddrInUse`].
    pub fn claim(preferred: Option<u8>) -> io::Result<Self> {
        if let Some(index) = preferred {
            return Self::try_claim(index % SLOTS);
        }
        let first = rand::random::<u8>() % SLOTS;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for offset in 0..SLOTS {
            match Self::try_claim((first + offset) % SLOTS) {
                Ok(slot) => return Ok(slot),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn try_claim(index: u8) -> io::Result<Self> {
        let name = SocketAddr::from_abstract_name(format!("wherry/local-network/{index}"))?;
        Ok(Self { index, _claim: UnixListener::bind_addr(&name)? })
    }

    pub fn index(&self) -> u8 {
        self.index
    }

    /// Where Service addresses are taken from.
    pub fn services(&self) -> Range {
        Range(SERVICES + self.index)
    }

    pub fn pods(&self) -> Range {
        Range(PODS + self.index)
    }

    pub fn localhosts(&self) -> Range {
        Range(LOCALHOSTS + self.index)
    }
}

/// Hands out pod addresses of one range. A freed address is used again as late as possible.
#[derive(Debug)]
pub struct Ipam {
    pods: Range,
    localhosts: Range,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: HashSet<u16>,
    last: u16,
}

/// A pod's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub pod: Ipv4Addr,
    pub localhost: Ipv4Addr,
}

impl Ipam {
    pub fn new(pods: Range, localhosts: Range) -> Self {
        Self { pods, localhosts, state: Mutex::default() }
    }

    pub fn range(&self) -> Range {
        self.pods
    }

    /// `previous` again if it can be had, else the next free pair; `None` if all are taken.
    pub fn allocate(&self, previous: Option<Ipv4Addr>) -> Option<Addresses> {
        let mut state = self.state.lock();
        if let Some(low) = previous.filter(|address| self.pods.contains(*address)).map(low_half)
            && usable(low)
            && state.taken.insert(low)
        {
            return Some(self.addresses(low));
        }
        for _ in 0..=u16::MAX {
            state.last = state.last.wrapping_add(1);
            let low = state.last;
            if usable(low) && state.taken.insert(low) {
                return Some(self.addresses(low));
            }
        }
        None
    }

    pub fn free(&self, address: Ipv4Addr) {
        self.state.lock().taken.remove(&low_half(address));
    }

    pub fn is_allocated(&self, address: Ipv4Addr) -> bool {
        self.pods.contains(address) && self.state.lock().taken.contains(&low_half(address))
    }

    fn addresses(&self, low: u16) -> Addresses {
        Addresses { pod: self.pods.address(low), localhost: self.localhosts.address(low) }
    }
}

fn low_half(address: Ipv4Addr) -> u16 {
    let [_, _, high, low] = address.octets();
    u16::from_be_bytes([high, low])
}

/// The first and last address of a range look like a network and its broadcast to other programs.
fn usable(low: u16) -> bool {
    low != 0 && low != u16::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam() -> Ipam {
        Ipam::new(Range(64), Range(128))
    }

    #[test]
    fn a_pod_gets_its_previous_address_again_unless_it_is_taken() {
        let ipam = ipam();
        let previous = Some(Ipv4Addr::new(127, 64, 3, 4));
        assert_eq!(ipam.allocate(previous).unwrap().pod, Ipv4Addr::new(127, 64, 3, 4));
        assert_ne!(ipam.allocate(previous).unwrap().pod, Ipv4Addr::new(127, 64, 3, 4));
        assert_eq!(ipam.allocate(Some(Ipv4Addr::new(10, 0, 0, 1))).unwrap().pod, Ipv4Addr::new(127, 64, 0, 2));
    }

    #[test]
    fn a_freed_address_is_not_the_next_one_given() {
        let ipam = ipam();
        let first = ipam.allocate(None).unwrap();
        ipam.free(first.pod);
        assert_ne!(ipam.allocate(None).unwrap(), first);
    }

    #[test]
    fn every_address_is_given_once_and_then_none() {
        let ipam = ipam();
        let all: HashSet<_> = std::iter::from_fn(|| ipam.allocate(None)).map(|a| a.pod).collect();
        assert_eq!(all.len(), 65_534);
    }

    #[test]
    fn two_clusters_never_share_a_slot() {
        let first = Slot::claim(None).unwrap();
        let second = Slot::claim(None).unwrap();
        assert_ne!(first.index(), second.index());
        assert_eq!(Slot::claim(Some(first.index())).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let index = first.index();
        drop(first);
        assert_eq!(Slot::claim(Some(index)).unwrap().index(), index);
    }

    #[test]
    fn no_range_is_the_hosts_own_or_overlaps_another_kind() {
        for index in 0..SLOTS {
            assert!(SERVICES + index > 0 && SERVICES + index < PODS && PODS + index < LOCALHOSTS);
            // What is kept ends with 127.192.0.0/16.
            assert!(LOCALHOSTS + index < 192);
        }
    }
}
