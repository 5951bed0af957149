//! Where an instance receives its requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Context;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::{Job, next_wanted};

/// What an instance takes next. Requests are promised and given under its pool's lock only; what is read without it may
/// have changed.
#[derive(Default)]
pub(super) struct Slot {
    /// Given, and not taken yet.
    jobs: Mutex<VecDeque<Box<Job>>>,
    /// How many more it may be given.
    room: AtomicUsize,
    /// The guest has answered all requests, and was given no other: written with `jobs` locked.
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

    /// Its instance sees the request at its next poll; the caller wakes it.
    pub(super) fn give(&self, job: Box<Job>) {
        let mut jobs = self.jobs.lock();
        jobs.push_back(job);
        self.idle.store(false, Ordering::Relaxed);
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// The next request that somebody still waits for, or a wake-up when there is one. `idle`: there is nothing else to do.
    pub(super) fn poll_take(&self, cx: &Context<'_>, idle: bool) -> Option<Box<Job>> {
        self.waker.register(cx.waker());
        let mut jobs = self.jobs.lock();
        let job = next_wanted(&mut jobs);
        self.idle.store(idle && job.is_none(), Ordering::Relaxed);
        job
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
    use futures::channel::oneshot;
    use http_body_util::{BodyExt, Empty};

    use super::super::ticket::{Ticket, Wanted};
    use super::*;

    fn job() -> (Box<Job>, Wanted) {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let ticket = Arc::new(Ticket::default());
        let wanted = Wanted::new(Arc::clone(&ticket));
        (Box::new(Job { request: http::Request::new(body), reply: oneshot::channel().0, ticket }), wanted)
    }

    fn poll_take(slot: &Slot, idle: bool) -> bool {
        slot.poll_take(&Context::from_waker(std::task::Waker::noop()), idle).is_some()
    }

    #[test]
    fn an_instance_takes_what_somebody_waits_for_and_is_idle_without_it() {
        let slot = Slot::default();
        let ((first, given_up), (second, _wanted)) = (job(), job());
        slot.give(first);
        slot.give(second);
        drop(given_up);
        assert_eq!(slot.promised(), 2);
        assert!(poll_take(&slot, true) && !slot.is_idle());
        assert_eq!(slot.promised(), 0);
        assert!(!poll_take(&slot, false) && !slot.is_idle());
        assert!(!poll_take(&slot, true) && slot.is_idle());
        slot.give(job().0);
        assert!(!slot.is_idle());
    }

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
        assert!(!poll_take(&slots[0], true) && !poll_take(&slots[2], true));
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
