//! Where an instance receives its requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Context;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::Job;

/// What an instance takes next. Requests are promised and given under its pool's lock only.
#[derive(Default)]
pub(super) struct Slot {
    /// Given, and not taken yet.
    jobs: Mutex<VecDeque<Box<Job>>>,
    /// How many more it may be given.
    room: AtomicUsize,
    /// The guest has answered all requests.
    idle: AtomicBool,
    waker: AtomicWaker,
}

impl Slot {
    /// Requests that are on their way or may come.
    pub(super) fn promised(&self) -> usize {
        self.room() + self.jobs.lock().len()
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.lock().is_empty()
    }

    pub(super) fn room(&self) -> usize {
        self.room.load(Ordering::Acquire)
    }

    pub(super) fn set_room(&self, room: usize) {
        self.room.store(room, Ordering::Release);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    pub(super) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Its instance sees the request at its next poll; the caller wakes it.
    pub(super) fn give(&self, job: Box<Job>) {
        self.set_idle(false);
        self.jobs.lock().push_back(job);
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// The next request, or a wake-up when there is one.
    pub(super) fn poll_take(&self, cx: &Context<'_>) -> Option<Box<Job>> {
        self.waker.register(cx.waker());
        self.jobs.lock().pop_front()
    }

    /// Requests that were given, for others.
    pub(super) fn take_back(&self) -> VecDeque<Box<Job>> {
        std::mem::take(&mut *self.jobs.lock())
    }
}

/// The slots of a container's instances that may be given a request.
#[derive(Default)]
pub(super) struct Free(Vec<Arc<Slot>>);

impl Free {
    /// Adds room for so many requests.
    pub(super) fn add(&mut self, slot: &Arc<Slot>, room: usize) {
        let before = slot.room();
        slot.set_room(before + room);
        if before == 0 && room > 0 {
            self.0.push(Arc::clone(slot));
        }
    }

    /// No more requests for this one.
    pub(super) fn remove(&mut self, slot: &Arc<Slot>) {
        slot.set_room(0);
        self.0.retain(|other| !Arc::ptr_eq(other, slot));
    }

    /// A place with an instance that has nothing to do, the last used first.
    pub(super) fn idle(&mut self) -> Option<Arc<Slot>> {
        let at = self.0.iter().rposition(|slot| slot.is_idle())?;
        self.take(at)
    }

    /// A place with the instance that has the most room.
    pub(super) fn any(&mut self) -> Option<Arc<Slot>> {
        let (at, _) = self.0.iter().enumerate().max_by_key(|(_, slot)| slot.room())?;
        self.take(at)
    }

    fn take(&mut self, at: usize) -> Option<Arc<Slot>> {
        let slot = self.0.get(at).map(Arc::clone)?;
        let left = slot.room().saturating_sub(1);
        slot.set_room(left);
        if left == 0 {
            self.0.remove(at);
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(free: &mut Free, rooms: &[usize]) -> Vec<Arc<Slot>> {
        let slots: Vec<Arc<Slot>> = rooms.iter().map(|_| Arc::default()).collect();
        slots.iter().zip(rooms).for_each(|(slot, room)| free.add(slot, *room));
        slots
    }

    #[test]
    fn the_last_idle_instance_is_first_and_the_roomiest_is_next() {
        let mut free = Free::default();
        let slots = slots(&mut free, &[2, 3, 1, 0]);
        assert!(free.idle().is_none());
        slots[0].set_idle(true);
        slots[2].set_idle(true);
        assert!(Arc::ptr_eq(&free.idle().unwrap(), &slots[2]));
        assert!(Arc::ptr_eq(&free.idle().unwrap(), &slots[0]));
        let order: Vec<usize> = std::iter::from_fn(|| free.any())
            .map(|slot| slots.iter().position(|other| Arc::ptr_eq(other, &slot)).unwrap())
            .collect();
        assert_eq!(order.len(), 4, "{order:?}");
        assert_eq!((order.iter().filter(|at| **at == 1).count(), order[0], order[1]), (3, 1, 1));
        assert!(slots.iter().all(|slot| slot.promised() == 0));
    }

    #[test]
    fn a_slot_that_was_removed_gets_nothing_until_it_has_room_again() {
        let mut free = Free::default();
        let slots = slots(&mut free, &[5]);
        free.remove(&slots[0]);
        assert!(free.any().is_none() && slots[0].room() == 0);
        free.add(&slots[0], 1);
        assert!(free.any().is_some() && free.any().is_none());
    }
}
