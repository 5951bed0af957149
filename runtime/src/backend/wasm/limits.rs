//! A container's memory limit, across all its instances, and how many of the process's descriptors it may hold.
//!
//! Each instance has a [`Limiter`] on its store; all of a container share one [`Usage`]. A growth over the limit is denied,
//! as a failing `memory.grow`; whether the guest then dies decides if the container is OOMKilled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// Bytes of a table's element on the host.
const ELEMENT: usize = size_of::<usize>();

/// Core instances, tables and memories of one component; Go components have about five.
const PER_STORE: usize = 256;

/// Sockets that a container's guests have open at once, all instances together, connections of outgoing requests among them: as many
/// descriptors as a process has by default.
pub(super) const SOCKETS: usize = 1024;

/// What a container uses now and may use.
#[derive(Debug)]
pub(super) struct Usage {
    bytes: AtomicU64,
    limit: u64,
}

impl Usage {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), limit })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    fn take(&self, bytes: u64) -> bool {
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                now.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One instance's share of its container's memory. Dropping it gives the share back.
#[derive(Debug)]
pub(super) struct Limiter {
    usage: Arc<Usage>,
    held: u64,
    /// Set when a growth was denied; outlives the store, which is gone when the trap is judged.
    denied: Arc<AtomicBool>,
}

impl Limiter {
    pub(super) fn new(usage: Arc<Usage>) -> Self {
        Self { usage, held: 0, denied: Arc::new(AtomicBool::new(false)) }
    }

    /// Takes what the host holds for the instance from its start; `false` if there is not so much left.
    #[must_use]
    pub(super) fn charge(&mut self, bytes: u64) -> bool {
        let taken = self.usage.take(bytes);
        self.held += if taken { bytes } else { 0 };
        taken
    }

    /// Whether a growth over the limit was denied.
    pub(super) fn denied(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.denied)
    }

    fn grow(&mut self, current: usize, desired: usize, unit: usize) -> bool {
        let bytes = desired.saturating_sub(current).saturating_mul(unit) as u64;
        let taken = self.charge(bytes);
        if !taken {
            self.denied.store(true, Ordering::Relaxed);
        }
        taken
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.usage.give_back(self.held);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|most| desired <= most) && self.grow(current, desired, 1))
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|most| desired <= most) && self.grow(current, desired, ELEMENT))
    }

    fn instances(&self) -> usize {
        PER_STORE
    }

    fn tables(&self) -> usize {
        PER_STORE
    }

    fn memories(&self) -> usize {
        PER_STORE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_across_instances_and_is_given_back() {
        let usage = Usage::new(100);
        let mut first = Limiter::new(Arc::clone(&usage));
        let mut second = Limiter::new(Arc::clone(&usage));
        assert!(first.memory_growing(0, 60, None).unwrap());
        assert!(!second.memory_growing(0, 60, None).unwrap());
        assert!(second.denied().load(Ordering::Relaxed));
        assert!(!first.denied().load(Ordering::Relaxed));
        drop(first);
        assert!(second.memory_growing(0, 60, None).unwrap());
        assert_eq!(usage.bytes(), 60);
    }

    #[test]
    fn a_growth_over_the_memory_s_own_maximum_is_not_the_limit_s_fault() {
        let usage = Usage::new(100);
        let mut limiter = Limiter::new(usage);
        assert!(!limiter.memory_growing(0, 60, Some(50)).unwrap());
        assert!(!limiter.denied().load(Ordering::Relaxed));
    }
}
