//! A container's instances: they are made when requests arrive, reused as far as the guest's world allows, and dropped when
//! nobody needs them.
//!
//! What must stay true: the number of instances and of waiting requests is bounded, per container, namespace and node; a job is
//! either given to an instance, waiting in the queue or refused, and comes back from an instance that cannot take it;
//! nobody who gave up keeps an instance busy.

mod instance;
mod slot;
mod ticket;
mod wakes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::channel::oneshot;
use parking_lot::Mutex;
use wasmtime_wasi_http::handler::{Request, Response};

use self::slot::{Free, Slot};
use self::ticket::Ticket;
pub(super) use self::ticket::Wanted;
#[cfg(test)]
pub(super) use self::wakes::tests::Count;
use super::failure;
use super::guests::Place;
use super::instances::Share;
use super::life::{Life, out_of_memory};
use super::linker::Entry;
use super::state::Guest;

type Reply = oneshot::Sender<wasmtime::Result<Response>>;

/// One request on its way to an instance.
struct Job {
    request: Request,
    reply: Reply,
    ticket: Arc<Ticket>,
}

/// How instances are shared and bounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Requests that one instance serves in its life.
    pub(super) reuse: usize,
    /// Requests that one instance serves at once.
    pub(super) concurrent: usize,
    /// Instances of the container.
    pub(super) instances: usize,
    /// Requests that wait for one.
    pub(super) queue: usize,
}

/// The container has all the requests it may have.
#[derive(Debug)]
pub(super) struct Busy;

/// A container's instances.
pub(super) struct Pool {
    guest: Arc<Guest>,
    life: Arc<Life>,
    bounds: Bounds,
    /// Instances that the node's cores can poll at once: so many are made before any serves two requests at once.
    cores: usize,
    /// Instances of all servers of its namespace.
    share: Share,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Free,
    /// At most `bounds.queue`, and what instances gave back.
    queue: VecDeque<Box<Job>>,
    /// At most `bounds.instances`.
    workers: usize,
}

/// Where a job goes.
enum Way {
    Slot(Arc<Slot>),
    New(Box<Job>),
}

impl Pool {
    pub(super) fn new(guest: Arc<Guest>, life: Arc<Life>, bounds: Bounds, share: Share) -> Arc<Self> {
        let cores = life.handle().metrics().num_workers();
        Arc::new(Self { guest, life, bounds, cores, share, state: Mutex::default() })
    }

    /// Hands a request to an instance, a new one if need be and allowed, else to the queue.
    pub(super) fn submit(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<(Wanted, oneshot::Receiver<wasmtime::Result<Response>>), Busy> {
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let wanted = Wanted::new(Arc::clone(&ticket));
        let mut state = self.state.lock();
        match self.way(&mut state, Box::new(Job { request, reply, ticket })) {
            Ok(way) => {
                drop(state);
                self.go(way);
            }
            Err(job) if state.queue.len() < self.bounds.queue => state.queue.push_back(job),
            Err(_) => return Err(Busy),
        }
        Ok((wanted, answer))
    }

    /// An instance without work; a new one, as long as there are cores for it; one with room; a new one.
    fn way(&self, state: &mut State, job: Box<Job>) -> Result<Way, Box<Job>> {
        let spare = state.workers < self.bounds.instances;
        let slot = match state.free.idle() {
            None if spare && state.workers < self.cores => None,
            None => state.free.any(),
            idle => idle,
        };
        if let Some(slot) = slot {
            // Under the pool's lock: who takes an instance's jobs back misses none.
            slot.give(job);
            return Ok(Way::Slot(slot));
        }
        if !spare {
            return Err(job);
        }
        state.workers += 1;
        Ok(Way::New(job))
    }

    fn go(self: &Arc<Self>, way: Way) {
        match way {
            Way::Slot(slot) => slot.wake(),
            Way::New(job) => {
                let seat = Seat { pool: Arc::clone(self), place: Arc::default(), left: false };
                self.life.spawn_guest(Arc::clone(&seat.place), async move { seat.work(job).await });
            }
        }
    }

    /// The instance in `slot` can take so many requests now, those that it is promised among them: those that wait, and the
    /// next to come.
    fn offer(&self, slot: &Arc<Slot>, open: usize) {
        let mut state = self.state.lock();
        let mut room = open.saturating_sub(slot.promised());
        while room > 0
            && let Some(job) = next_wanted(&mut state.queue)
        {
            slot.give(job);
            room -= 1;
        }
        state.free.add(slot, room);
    }

    /// The instance in `slot` is given no more requests; `false`: some are on their way, and it still is.
    fn withdraw(&self, slot: &Arc<Slot>) -> bool {
        let mut state = self.state.lock();
        let unused = !slot.has_jobs();
        if unused {
            state.free.remove(slot);
        }
        unused
    }

    /// The instance in `slot` is given no more requests; others serve those that it did not take.
    fn reclaim(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut state = self.state.lock();
        state.free.remove(slot);
        let (mut ways, mut left) = (Vec::new(), VecDeque::new());
        for job in slot.take_back().into_iter().filter(|job| job.ticket.is_alive()) {
            match self.way(&mut state, job) {
                Ok(way) => ways.push(way),
                Err(job) => left.push_back(job),
            }
        }
        left.append(&mut state.queue);
        state.queue = left;
        drop(state);
        for way in ways {
            self.go(way);
        }
    }

    /// Makes an instance and serves with it until it is used up, idle or broken.
    async fn serve(self: &Arc<Self>, place: &Arc<Place>, first: Box<Job>) {
        let Entry::Http { pre, .. } = &self.guest.prepared.entry else { return };
        let (mut store, denied) = match self.guest.store(self.bounds.instances, place) {
            Ok(store) => store,
            Err(error) => {
                let _ = first.reply.send(Err(error));
                return;
            }
        };
        let (stdout, stderr) = (store.data().stdout.clone(), store.data().stderr.clone());
        let result = instance::live(self, place, pre, &mut store, first).await;
        drop(store);
        let told = result.err().map(|error| failure::told(&error));
        stdout.drained().await;
        stderr.drained().await;
        if let Some(told) = told {
            self.guest.complain(&told).await;
        }
        if denied.load(Ordering::Relaxed) {
            self.life.end(out_of_memory(self.guest.usage.limit()));
        }
    }
}

/// The next request that somebody still waits for.
fn next_wanted(queue: &mut VecDeque<Box<Job>>) -> Option<Box<Job>> {
    std::iter::from_fn(|| queue.pop_front()).find(|job| job.ticket.is_alive())
}

/// A worker's place among its container's: left when it ends, however it ends. One that is dropped at work was killed with
/// its container, and what waits is dropped too; if its instance panicked, another takes its place.
struct Seat {
    pool: Arc<Pool>,
    place: Arc<Place>,
    left: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let mut state = self.pool.state.lock();
        state.workers -= 1;
        let waiting = if std::thread::panicking() { None } else { Some(std::mem::take(&mut state.queue)) };
        let next = next_wanted(&mut state.queue);
        state.workers += usize::from(next.is_some());
        drop(state);
        drop(waiting);
        if let Some(job) = next {
            self.pool.go(Way::New(job));
        }
    }
}

impl Seat {
    /// Serves `first` and then what waits, one instance after the other.
    async fn work(mut self, first: Box<Job>) {
        let pool = Arc::clone(&self.pool);
        let (mut next, mut room) = (Some(first), None);
        while let Some(job) = next.take() {
            // Whose client left because of that makes room for none that waits.
            if pool.life.is_killed() {
                return;
            }
            // Instances are never all taken for good: containers that wait for one come first.
            if pool.share.is_taken() {
                room = None;
            }
            if room.is_none() {
                room = pool.share.place().await;
            }
            if job.ticket.is_alive() {
                pool.serve(&self.place, job).await;
            }
            next = self.next();
        }
    }

    /// What waits, or the end of this worker: nothing can be queued between the two.
    fn next(&mut self) -> Option<Box<Job>> {
        let mut state = self.pool.state.lock();
        let job = next_wanted(&mut state.queue);
        if job.is_none() {
            state.workers -= 1;
            self.left = true;
        }
        job
    }
}
