//! A container's instances: they are made when requests arrive, reused as far as the guest's world allows, and dropped when
//! nobody needs them.
//!
//! What must stay true: the number of instances and of waiting requests is bounded, per container and per node; a job is
//! either taken by an instance, waiting in the queue or refused; nobody who gave up keeps an instance busy; an answer
//! leaves when its guest has nothing more to do at once, so that head, body and end are one write where they can be.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use wasmtime::component::Accessor;
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{Prepared as Call, Proxy, ProxyPre, Request, Response};

use super::guests::Place;
use super::life::{Life, out_of_memory};
use super::linker::Prepared;
use super::state::{Guest, GuestState};

/// How often an instance looks whether anybody used it: without work it is kept once this long for the next request.
const IDLE: Duration = Duration::from_secs(1);

/// What a guest may still do after its last response was delivered.
const LINGER: Duration = Duration::from_secs(30);

/// What becomes of a request; the worker learns from it when nobody needs its work any more.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    stage: AtomicU8,
    /// Its instance waits for the delivery; otherwise it learns of it when it looks the next time.
    awaited: AtomicBool,
    waker: AtomicWaker,
}

const ALIVE: u8 = 0;
const DELIVERED: u8 = 1;
const ABANDONED: u8 = 2;

impl Ticket {
    fn settle(&self, stage: u8) {
        self.stage.store(stage, Ordering::SeqCst);
        if stage == ABANDONED || self.awaited.load(Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>, awaited: bool) -> u8 {
        let stage = self.stage.load(Ordering::Acquire);
        if stage != ALIVE {
            return stage;
        }
        self.waker.register(cx.waker());
        self.awaited.store(awaited, Ordering::SeqCst);
        self.stage.load(Ordering::SeqCst)
    }
}

/// Held by who wants the response; dropping it without [`Wanted::delivered`] gives up.
#[derive(Debug)]
pub(super) struct Wanted(Option<Arc<Ticket>>);

impl Wanted {
    pub(super) fn delivered(mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.settle(DELIVERED);
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.settle(ABANDONED);
        }
    }
}

type Reply = oneshot::Sender<wasmtime::Result<Response>>;

/// One request on its way to an instance.
pub(super) struct Job {
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
    /// Instances of all servers of the node.
    node: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Instances that would take another request, the last used at the end. At most `bounds.instances`.
    free: Vec<Arc<Slot>>,
    /// At most `bounds.queue`.
    queue: VecDeque<Job>,
    workers: usize,
}

/// Where an instance receives its next request.
#[derive(Default)]
struct Slot {
    job: Mutex<Option<Job>>,
    waker: AtomicWaker,
    /// The instance could take another request.
    open: AtomicBool,
    /// It is among the container's free ones, or a request is on its way.
    offered: AtomicBool,
    /// The guest trapped: no more requests.
    broken: AtomicBool,
}

impl Slot {
    fn give(&self, job: Job) {
        *self.job.lock() = Some(job);
        self.waker.wake();
    }

    fn poll_take(&self, cx: &Context<'_>) -> Option<Job> {
        self.waker.register(cx.waker());
        let job = self.job.lock().take();
        if job.is_some() {
            self.offered.store(false, Ordering::Release);
        }
        job
    }
}

impl Pool {
    pub(super) fn new(guest: Arc<Guest>, life: Arc<Life>, bounds: Bounds, node: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { guest, life, bounds, node, state: Mutex::new(State::default()) })
    }

    /// Hands a request to an instance, a new one if need be and allowed, else to the queue.
    pub(super) fn submit(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<(Wanted, oneshot::Receiver<wasmtime::Result<Response>>), Busy> {
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let wanted = Wanted(Some(Arc::clone(&ticket)));
        let job = Job { request, reply, ticket };
        let mut state = self.state.lock();
        if let Some(slot) = state.free.pop() {
            drop(state);
            slot.give(job);
        } else if state.workers < self.bounds.instances {
            state.workers += 1;
            drop(state);
            let seat = Seat { pool: Arc::clone(self), place: Arc::default(), left: false };
            self.life.spawn_guest(Arc::clone(&seat.place), async move { seat.work(job).await });
        } else if state.queue.len() < self.bounds.queue {
            state.queue.push_back(job);
        } else {
            return Err(Busy);
        }
        Ok((wanted, answer))
    }

    /// The instance in `slot` can take a request: one that waits, or the next to come.
    fn offer(&self, slot: &Arc<Slot>) {
        let mut state = self.state.lock();
        match next_wanted(&mut state.queue) {
            Some(job) => {
                drop(state);
                slot.give(job);
            }
            None => state.free.push(Arc::clone(slot)),
        }
    }

    /// Takes an offer back; `false`: a request is already on its way.
    fn withdraw(&self, slot: &Arc<Slot>) -> bool {
        let mut state = self.state.lock();
        let before = state.free.len();
        state.free.retain(|other| !Arc::ptr_eq(other, slot));
        state.free.len() < before
    }
}

/// The next request that somebody still waits for.
fn next_wanted(queue: &mut VecDeque<Job>) -> Option<Job> {
    std::iter::from_fn(|| queue.pop_front()).find(|job| job.ticket.stage.load(Ordering::Acquire) == ALIVE)
}

/// A worker's place among its container's: left when it ends, however it ends.
struct Seat {
    pool: Arc<Pool>,
    place: Arc<Place>,
    left: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            self.pool.state.lock().workers -= 1;
        }
    }
}

impl Seat {
    /// Serves `first` and then what waits, one instance after the other.
    async fn work(mut self, first: Job) {
        let pool = Arc::clone(&self.pool);
        // The node's instances are never all taken for good: servers return them after each request or second of idling.
        let Ok(_permit) = pool.node.acquire().await else { return };
        let mut next = Some(first);
        while let Some(job) = next.take() {
            pool.serve(&self.place, job).await;
            next = self.next();
        }
    }

    /// What waits, or the end of this worker: nothing can be queued between the two.
    fn next(&mut self) -> Option<Job> {
        let mut state = self.pool.state.lock();
        let job = next_wanted(&mut state.queue);
        if job.is_none() {
            state.workers -= 1;
            self.left = true;
        }
        job
    }
}

impl Pool {
    /// Makes an instance and serves with it until it is used up, idle or broken.
    async fn serve(&self, place: &Arc<Place>, first: Job) {
        let Prepared::Http { pre, .. } = &*self.guest.prepared else { return };
        let (mut store, denied) = match self.guest.store(self.bounds.instances, place) {
            Ok(store) => store,
            Err(error) => {
                let _ = first.reply.send(Err(error));
                return;
            }
        };
        let (stdout, stderr) = (store.data().stdout.clone(), store.data().stderr.clone());
        let result = self.live(place, pre, &mut store, first).await;
        drop(store);
        stdout.drained().await;
        stderr.drained().await;
        if let Err(error) = result {
            self.guest.complain(&format!("Error: {error:?}")).await;
        }
        if denied.load(Ordering::Relaxed) {
            self.life.end(out_of_memory(self.guest.usage.limit()));
        }
    }

    async fn live(
        &self,
        place: &Arc<Place>,
        pre: &ProxyPre<GuestState>,
        store: &mut Store<GuestState>,
        first: Job,
    ) -> wasmtime::Result<()> {
        let mut meter = self.guest.meter(place);
        let made = {
            let mut making = pin!(pre.instantiate_async(&mut *store));
            poll_fn(|cx| meter.poll(making.as_mut(), cx)).await
        };
        let proxy = match made {
            Ok(proxy) => proxy,
            Err(error) => {
                let _ = first.reply.send(Err(error));
                return Ok(());
            }
        };
        let shared = Instance {
            slot: Arc::new(Slot::default()),
            tickets: Mutex::default(),
            answers: Mutex::default(),
            bounds: self.bounds,
        };
        let mut outside =
            Outside { pool: self, shared: &shared, retired: false, timer: None, used: true, idle: Duration::ZERO };
        let mut inside = pin!(store.run_concurrent(async |accessor| shared.run(accessor, &proxy, first).await));
        poll_fn(|cx| {
            loop {
                let mut polled = meter.poll(inside.as_mut(), cx);
                if polled.is_pending() && shared.has_answers() {
                    // The event loop comes back after a response's head; the body is often there with the next turn.
                    polled = meter.poll(inside.as_mut(), cx);
                }
                shared.deliver();
                if let Poll::Ready(result) = polled {
                    return Poll::Ready(result.and_then(|r| r));
                }
                match outside.poll(cx) {
                    Next::Wait => return Poll::Pending,
                    Next::Again => {}
                    Next::Drop => return Poll::Ready(Ok(())),
                }
            }
        })
        .await
    }
}

/// What the inside of an instance (polled by its event loop) and the outside (polled always) share.
struct Instance {
    slot: Arc<Slot>,
    /// Requests taken and not settled. At most `bounds.concurrent` and those whose body is under way.
    tickets: Mutex<Vec<Arc<Ticket>>>,
    /// Answers of the poll that runs; at most `bounds.concurrent`.
    answers: Mutex<Vec<(Reply, wasmtime::Result<Response>)>>,
    bounds: Bounds,
}

impl Instance {
    fn has_answers(&self) -> bool {
        !self.answers.lock().is_empty()
    }

    /// Sends what was answered. A requester that gave up is seen by its ticket.
    fn deliver(&self) {
        for (reply, answer) in self.answers.lock().drain(..) {
            let _ = reply.send(answer);
        }
    }

    /// Takes and runs requests until the instance is used up.
    async fn run(&self, accessor: &Accessor<GuestState>, proxy: &Proxy, first: Job) -> wasmtime::Result<()> {
        let entry = match proxy {
            Proxy::P2(guest) => *guest.wasi_http_incoming_handler().func_handle().func(),
            Proxy::P3(guest) => *guest.wasi_http_handler().func_handle().func(),
        };
        let mut calls = FuturesUnordered::new();
        let mut taken = 1;
        calls.push(self.call(accessor, proxy, first));
        poll_fn(|cx| {
            loop {
                match calls.poll_next_unpin(cx) {
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(Some(Ok(()))) => continue,
                    Poll::Ready(None) | Poll::Pending => {}
                }
                let open = taken < self.bounds.reuse
                    && calls.len() < self.bounds.concurrent
                    && accessor.poll_ready_for_concurrent_call(entry, cx).is_ready();
                self.slot.open.store(open, Ordering::Release);
                if let Some(job) = self.slot.poll_take(cx) {
                    taken += 1;
                    calls.push(self.call(accessor, proxy, job));
                    continue;
                }
                if !calls.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() || taken < self.bounds.reuse
                {
                    return Poll::Pending;
                }
                return Poll::Ready(Ok(()));
            }
        })
        .await
    }

    async fn call(&self, accessor: &Accessor<GuestState>, proxy: &Proxy, job: Job) -> wasmtime::Result<()> {
        self.tickets.lock().push(job.ticket);
        let (reply, answer) = match proxy {
            // Answers while it still runs: straight to the requester.
            Proxy::P2(_) => (job.reply, None),
            Proxy::P3(_) => {
                let (reply, answer) = oneshot::channel();
                (reply, Some((answer, job.reply)))
            }
        };
        let call = accessor
            .with(|mut access| Call::new(access.as_context_mut(), proxy, job.request, GuestState::http, reply))?;
        call.run(accessor, std::future::pending()).await?;
        if let Some((answer, reply)) = answer {
            let result = answer.await?;
            self.slot.broken.fetch_or(result.is_err(), Ordering::AcqRel);
            self.answers.lock().push((reply, result));
        }
        Ok(())
    }
}

/// What is decided outside the instance's event loop, which a computing guest holds up.
struct Outside<'a> {
    pool: &'a Pool,
    shared: &'a Instance,
    /// Somebody gave up on this instance: it takes no more requests.
    retired: bool,
    /// Rings every [`IDLE`].
    timer: Option<Pin<Box<Sleep>>>,
    /// Somebody used the instance since the timer was set.
    used: bool,
    /// How long nobody did.
    idle: Duration,
}

enum Next {
    Wait,
    Again,
    Drop,
}

impl Outside<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Next {
        let slot = &self.shared.slot;
        let alone = self.shared.bounds.concurrent == 1;
        let mut busy = self.still_wanted(cx, alone || self.retired);
        self.retired |= slot.broken.load(Ordering::Acquire);
        if self.retired {
            busy = busy && self.still_wanted(cx, true);
            return self.retire(busy);
        }
        let free = slot.open.load(Ordering::Acquire) && !(alone && busy);
        if free && !slot.offered.swap(true, Ordering::AcqRel) {
            self.pool.offer(slot);
        }
        if slot.job.lock().is_some() {
            return Next::Again;
        }
        if self.unused(busy, cx) && (!slot.offered.load(Ordering::Acquire) || self.pool.withdraw(slot)) {
            return Next::Drop;
        }
        Next::Wait
    }

    /// Forgets requests that are settled; whether any is left. `awaited`: the next delivery is to wake this instance.
    fn still_wanted(&mut self, cx: &Context<'_>, awaited: bool) -> bool {
        let mut tickets = self.shared.tickets.lock();
        self.used |= !tickets.is_empty();
        tickets.retain(|ticket| {
            let stage = ticket.poll(cx, awaited);
            self.retired |= stage == ABANDONED;
            stage == ALIVE
        });
        !tickets.is_empty()
    }

    /// Somebody gave up: the instance goes as soon as nobody else needs it.
    fn retire(&mut self, busy: bool) -> Next {
        let slot = &self.shared.slot;
        if slot.offered.load(Ordering::Acquire) {
            if !self.pool.withdraw(slot) {
                // A request is on its way already.
                return if slot.job.lock().is_some() { Next::Again } else { Next::Wait };
            }
            // Never offered again: `retired` stays.
            slot.offered.store(false, Ordering::Release);
        }
        if busy { Next::Wait } else { Next::Drop }
    }

    /// Whether the instance has had no requester for its time.
    fn unused(&mut self, busy: bool, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE)));
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + IDLE);
            self.idle = if self.used { Duration::ZERO } else { self.idle + IDLE };
            self.used = busy;
        }
        let patience = if self.shared.slot.offered.load(Ordering::Acquire) { IDLE } else { LINGER };
        !busy && self.idle >= patience
    }
}
