//! The guests' own threads, in two groups, so that a busy guest cannot delay the API, the store or heartbeats, nor other
//! guests.
//!
//! In front are guests that answer, and all connections. Guests that compute without rest are polled in the lane: on
//! threads of the kernel's idle class, which leave their core at once to anybody else who wants it. [`Place`] says where a
//! guest belongs; its task moves there between two polls.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use tokio::runtime::{Builder, Handle, Runtime};

use super::engine::Engine;
use super::ticker::Working;

/// The name of threads that access files for guests.
const FILES: &str = "wasm-files";

/// Worker threads for guests. Dropping it stops them without waiting: a guest that computes is dropped when its turn ends.
#[derive(Debug)]
pub struct GuestRuntime {
    runtimes: Vec<Runtime>,
    threads: Threads,
}

/// The way to both groups.
#[derive(Clone, Debug)]
pub(super) struct Threads {
    pub(super) front: Handle,
    lane: Handle,
    clock: Working,
}

impl GuestRuntime {
    /// `threads`: how many guests compute at once; at least one.
    pub fn new(engine: &Engine, threads: usize) -> io::Result<Self> {
        let (clock, threads) = (engine.ticker().threads(), threads.max(1));
        let front = builder("wasm-guest", threads, &clock, || ()).build()?;
        let lane = builder("wasm-lane", threads, &clock, give_way).build()?;
        let handles = Threads { front: front.handle().clone(), lane: lane.handle().clone(), clock };
        Ok(Self { runtimes: vec![front, lane], threads: handles })
    }

    pub(super) fn threads(&self) -> &Threads {
        &self.threads
    }
}

thread_local! {
    /// Whether the clock counts this thread.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// Tells the clock that this thread works, unless it knows.
fn works(clock: &Working) {
    if !COUNTED.replace(true) {
        clock.add();
    }
}

/// Tells the clock that this thread waits or ends, unless it knows.
fn waits(clock: &Working) {
    if COUNTED.replace(false) {
        clock.remove();
    }
}

/// `start` is run by each thread first.
fn builder(name: &'static str, threads: usize, clock: &Working, start: fn()) -> Builder {
    let mut builder = Builder::new_multi_thread();
    let [unparked, parked, stopping] = [(); 3].map(|()| clock.clone());
    let named = AtomicUsize::new(0);
    builder
        .worker_threads(threads)
        // For people to tell them apart: the first are the workers.
        .thread_name_fn(move || if named.fetch_add(1, Ordering::Relaxed) < threads { name } else { FILES }.to_owned())
        .on_thread_start(start)
        .on_thread_unpark(move || works(&unparked))
        .on_thread_park(move || waits(&parked))
        .on_thread_stop(move || waits(&stopping))
        // Look for new connections often: a tick of a computing guest lasts a millisecond.
        .event_interval(13)
        // Bounds what guests' file access may occupy.
        .max_blocking_threads(8)
        .enable_all();
    builder
}

/// Puts the thread into the kernel's idle class. Anybody may; there is no way back, and none is needed.
fn give_way() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        tracing::debug!(%error, "a lane's thread keeps the priority of the process");
    }
}

impl Drop for GuestRuntime {
    fn drop(&mut self) {
        // Each thread counts for the clock until it ends.
        for runtime in self.runtimes.drain(..) {
            runtime.shutdown_background();
        }
    }
}

/// Where a guest's task is, and where it belongs.
#[derive(Debug, Default)]
pub(super) struct Place {
    heavy: AtomicBool,
    in_lane: AtomicBool,
    ticked: AtomicBool,
    flooded: AtomicBool,
}

impl Place {
    /// Says where the task goes after this poll.
    pub(super) fn set_heavy(&self, heavy: bool) {
        self.heavy.store(heavy, Ordering::Relaxed);
    }

    /// The clock ends the guest's turn.
    pub(super) fn tick(&self) {
        self.ticked.store(true, Ordering::Relaxed);
    }

    /// Whether the clock ended the turn.
    pub(super) fn take_tick(&self) -> bool {
        self.ticked.load(Ordering::Relaxed) && self.ticked.swap(false, Ordering::Relaxed)
    }

    /// The guest waits for its log, which holds as much as it may.
    pub(super) fn flood(&self) {
        self.flooded.store(true, Ordering::Relaxed);
    }

    /// Whether the guest waited for its log.
    pub(super) fn take_flood(&self) -> bool {
        self.flooded.load(Ordering::Relaxed) && self.flooded.swap(false, Ordering::Relaxed)
    }

    pub(super) fn in_lane(&self) -> bool {
        self.in_lane.load(Ordering::Relaxed)
    }
}

/// A guest's task, which goes where its place is.
pub(super) struct Placed {
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    place: Arc<Place>,
    threads: Threads,
}

impl Placed {
    /// Starts the task. Its owner ends it: nobody holds a handle to it.
    pub(super) fn start(task: Pin<Box<dyn Future<Output = ()> + Send>>, place: Arc<Place>, threads: Threads) {
        let heavy = place.heavy.load(Ordering::Relaxed);
        place.in_lane.store(heavy, Ordering::Relaxed);
        let group = if heavy { threads.lane.clone() } else { threads.front.clone() };
        group.spawn(Self { task: Some(task), place, threads });
    }
}

impl Future for Placed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut task) = self.task.take() else { return Poll::Ready(()) };
        // A thread may find its first guest before it has ever waited.
        works(&self.threads.clock);
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if self.place.heavy.load(Ordering::Relaxed) == self.place.in_lane() {
            self.task = Some(task);
            return Poll::Pending;
        }
        // It is polled there first of all, so that no event is missed on the way.
        Self::start(task, Arc::clone(&self.place), self.threads.clone());
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_guest_that_computes_has_a_clock_until_its_thread_ends() {
        let engine = Engine::new().unwrap();
        let (clock, guests) = (engine.ticker().threads(), GuestRuntime::new(&engine, 1).unwrap());
        let (begun, begins) = mpsc::channel();
        let leave: Vec<_> = [false, true]
            .map(|heavy| {
                let ((leave, left), begun) = (mpsc::channel::<()>(), begun.clone());
                let place = Arc::new(Place::default());
                place.set_heavy(heavy);
                let task = async move {
                    begun.send(()).unwrap();
                    let _ = left.recv();
                };
                Placed::start(Box::pin(task), place, guests.threads.clone());
                leave
            })
            .into();
        for _ in &leave {
            begins.recv().unwrap();
        }
        // A thread that accesses files is none of a guest's.
        let files = guests.threads.front.spawn_blocking({
            let clock = clock.clone();
            move || clock.count()
        });
        assert_eq!(futures::executor::block_on(files).unwrap(), 2);
        drop(guests);
        assert_eq!(clock.count(), 2);
        drop(leave);
        let end = Instant::now() + Duration::from_secs(60);
        while clock.count() != 0 {
            assert!(Instant::now() < end, "{}", clock.count());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_task_goes_where_its_place_is() {
        let guests = GuestRuntime::new(&Engine::new().unwrap(), 1).unwrap();
        let (place, (done, names)) = (Arc::new(Place::default()), oneshot::channel());
        let mut seen = Vec::new();
        let mut polls = [true, false].into_iter();
        let at = Arc::clone(&place);
        let task = async move {
            poll_fn(|cx| {
                seen.push(std::thread::current().name().unwrap().to_owned());
                let Some(heavy) = polls.next() else { return Poll::Ready(()) };
                at.set_heavy(heavy);
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            done.send(seen).unwrap();
        };
        Placed::start(Box::pin(task), place, guests.threads().clone());
        assert_eq!(names.blocking_recv().unwrap(), ["wasm-guest", "wasm-lane", "wasm-guest"]);
    }
}
