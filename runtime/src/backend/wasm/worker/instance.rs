//! One instance: its requests run inside its event loop; what becomes of it is decided outside.
//!
//! What must stay true: an answer leaves when its guest has nothing more to do at once, so that head, body and end are one
//! write where they can be; requests that were given to an instance which is held up, or broke, are given back.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use wasmtime::component::Accessor;
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{Prepared as Call, Proxy, ProxyPre, Request, Response};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;

use super::slot::Slot;
use super::ticket::Tickets;
use super::wakes::Wakes;
use super::{Bounds, Job, Pool, Reply};
use crate::backend::wasm::guests::Place;
use crate::backend::wasm::meter::Meter;
use crate::backend::wasm::state::GuestState;

/// How often an instance looks whether anybody used it: without work it is kept once this long for the next request.
const IDLE: Duration = Duration::from_secs(1);

/// What a guest may still do after its last response was delivered.
const LINGER: Duration = Duration::from_secs(30);

/// Polls in a row of a guest that answered and has more to do at once: the rest of a small body is there by then.
const ROUNDS: usize = 8;

/// Makes an instance in `store` and serves with it; returns when it is used up, idle or broken.
pub(super) async fn live(
    pool: &Arc<Pool>,
    place: &Arc<Place>,
    pre: &ProxyPre<GuestState>,
    store: &mut Store<GuestState>,
    first: Box<Job>,
) -> wasmtime::Result<()> {
    let mut meter = pool.guest.meter(place);
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
    let shared = Instance::new(pool.bounds);
    let mut outside = Outside { pool, shared: &shared, retired: false, timer: None, used: true, idle: Duration::ZERO };
    let mut inside = pin!(store.run_concurrent(async |accessor| shared.run(accessor, &proxy, first).await));
    let wakes = Arc::new(Wakes::default());
    let waker = wakes.waker();
    poll_fn(|task| {
        wakes.begin(task);
        let cx = &mut Context::from_waker(&waker);
        let polled = loop {
            if let Poll::Ready(result) = shared.poll(&mut meter, inside.as_mut(), &wakes, cx) {
                break Poll::Ready(result.and_then(|r| r));
            }
            match outside.poll(shared.is_held_up(&meter), cx) {
                Next::Wait => break Poll::Pending,
                Next::Again => {}
                Next::Drop => break Poll::Ready(Ok(())),
            }
        };
        wakes.end();
        polled
    })
    .await
}

/// What the inside of an instance (polled by its event loop) and the outside (polled always) share.
struct Instance {
    slot: Arc<Slot>,
    /// At most `bounds.concurrent` and those whose body is under way.
    tickets: Tickets,
    /// Answers of the poll that runs; at most `bounds.concurrent`.
    answers: Mutex<Vec<(Reply, wasmtime::Result<Response>)>>,
    /// Requests that it could take now, those among them that it was promised.
    open: AtomicUsize,
    /// The last poll came by its requests: the event loop goes round.
    reached: AtomicBool,
    /// A call failed, other than by the guest's own answer: no more requests.
    broken: AtomicBool,
    bounds: Bounds,
}

impl Instance {
    fn new(bounds: Bounds) -> Self {
        Self {
            slot: Arc::default(),
            tickets: Tickets::default(),
            answers: Mutex::default(),
            open: AtomicUsize::new(0),
            reached: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            bounds,
        }
    }

    /// Polls the inside, and delivers what it answered: after as many turns as the rest of the answers takes, if it is there
    /// at once. The event loop ends a turn with each response's head.
    fn poll<F: Future>(
        &self,
        meter: &mut Meter,
        mut inside: Pin<&mut F>,
        wakes: &Wakes,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        let mut polled = self.turn(meter, inside.as_mut(), cx);
        for _ in 1..ROUNDS {
            if polled.is_ready() || self.is_held_up(meter) || !self.has_answers() || !wakes.take() {
                break;
            }
            polled = self.turn(meter, inside.as_mut(), cx);
        }
        self.deliver();
        polled
    }

    fn turn<F: Future>(&self, meter: &mut Meter, inside: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.reached.store(false, Ordering::Relaxed);
        meter.poll(inside, cx)
    }

    /// Whether the guest computes, or waits in a call of the host that nothing else runs beside: its event loop takes no
    /// requests.
    fn is_held_up(&self, meter: &Meter) -> bool {
        meter.computes() || !self.reached.load(Ordering::Relaxed)
    }

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
    async fn run(&self, accessor: &Accessor<GuestState>, proxy: &Proxy, first: Box<Job>) -> wasmtime::Result<()> {
        let entry = match proxy {
            Proxy::P2(guest) => *guest.wasi_http_incoming_handler().func_handle().func(),
            Proxy::P3(guest) => *guest.wasi_http_handler().func_handle().func(),
        };
        let mut calls = FuturesUnordered::new();
        let mut taken = 1;
        calls.push(self.call(accessor, proxy, first));
        poll_fn(|cx| {
            self.reached.store(true, Ordering::Relaxed);
            loop {
                match calls.poll_next_unpin(cx) {
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(Some(Ok(()))) => continue,
                    Poll::Ready(None) | Poll::Pending => {}
                }
                let (left, places) = (self.bounds.reuse.saturating_sub(taken), self.bounds.concurrent);
                let open = left.min(places.saturating_sub(calls.len()));
                let ready = open > 0 && accessor.poll_ready_for_concurrent_call(entry, cx).is_ready();
                self.open.store(if ready { open } else { 0 }, Ordering::Release);
                if let Some(job) = self.slot.poll_take(cx, calls.is_empty()) {
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

    async fn call(&self, accessor: &Accessor<GuestState>, proxy: &Proxy, job: Box<Job>) -> wasmtime::Result<()> {
        let Job { request, reply, ticket } = *job;
        self.tickets.add(ticket);
        if matches!(proxy, Proxy::P2(_)) {
            // Answers while it still runs: straight to the requester.
            begin(accessor, proxy, request, reply)?.run(accessor, std::future::pending()).await?;
            return Ok(());
        }
        let (inner, answer) = oneshot::channel();
        let result = match begin(accessor, proxy, request, inner) {
            Ok(call) => {
                call.run(accessor, std::future::pending()).await?;
                answer.await?
            }
            Err(error) => Err(error),
        };
        if result.as_ref().is_err_and(|error| !error.is::<ErrorCode>()) {
            self.broken.store(true, Ordering::Release);
        }
        self.answers.lock().push((reply, result));
        Ok(())
    }
}

/// Gives the guest a request; an error is that request's, as when the instance has no place in its table for it.
fn begin<'a>(
    accessor: &Accessor<GuestState>,
    proxy: &'a Proxy,
    request: Request,
    reply: Reply,
) -> wasmtime::Result<Call<'a, GuestState>> {
    accessor.with(|mut access| Call::new(access.as_context_mut(), proxy, request, GuestState::http, reply))
}

/// What is decided outside the instance's event loop, which a guest can hold up. Dropping it, however the instance ends,
/// gives back what the instance did not take.
struct Outside<'a> {
    pool: &'a Arc<Pool>,
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
    /// `held_up`: its event loop takes no requests.
    fn poll(&mut self, held_up: bool, cx: &mut Context<'_>) -> Next {
        let slot = &self.shared.slot;
        let alone = self.shared.bounds.concurrent == 1;
        self.retired |= self.shared.broken.load(Ordering::Acquire);
        let busy = self.still_wanted(cx, alone || self.retired);
        if (self.retired || held_up) && slot.promised() > 0 {
            self.pool.reclaim(slot);
        }
        if self.retired {
            return if busy { Next::Wait } else { Next::Drop };
        }
        if held_up {
            return if self.unused(busy, cx) { Next::Drop } else { Next::Wait };
        }
        let open = if alone && busy { 0 } else { self.shared.open.load(Ordering::Acquire) };
        if open > slot.promised() {
            self.pool.offer(slot, open);
        }
        if slot.has_jobs() {
            return Next::Again;
        }
        if self.unused(busy, cx) {
            return if self.pool.withdraw(slot) { Next::Drop } else { Next::Again };
        }
        Next::Wait
    }

    /// Whether somebody waits for an answer. `awaited`: the next delivery is to wake this instance.
    fn still_wanted(&mut self, cx: &Context<'_>, awaited: bool) -> bool {
        let polled = self.shared.tickets.poll(cx, awaited);
        self.used |= polled.before > 0;
        self.retired |= polled.abandoned;
        polled.left > 0
    }

    /// Whether the instance has had no requester for its time.
    fn unused(&mut self, busy: bool, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(IDLE)));
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + IDLE);
            self.idle = if self.used { Duration::ZERO } else { self.idle + IDLE };
            self.used = busy;
        }
        let patience = if self.shared.slot.room() > 0 { IDLE } else { LINGER };
        !busy && self.idle >= patience
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        self.pool.reclaim(&self.shared.slot);
    }
}
