//! The guests' clock: one thread that advances the engine's epoch every millisecond while a thread of the guests works.
//!
//! A guest that computes yields at each tick. While the guests' threads wait the clock sleeps, so an idle node does not wake
//! up a thousand times a second. It learns of that from the threads and not from each poll of a guest: those are many.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// How long a guest computes before it yields.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a working thread before the clock goes to sleep. However little each of many requests computes, one in so many
/// ticks is enough that none of them pays for a wake-up.
const IDLE_TICKS: u32 = 50;

#[derive(Debug, Default)]
struct State {
    /// Threads that work now.
    working: AtomicIsize,
    /// A thread worked since the last tick.
    seen: AtomicBool,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// The clock. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Ticker {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
    handle: Thread,
}

impl Ticker {
    pub(super) fn start(engine: &wasmtime::Engine) -> io::Result<Self> {
        let engine = engine.clone();
        Self::start_with(move || engine.increment_epoch())
    }

    fn start_with(tick: impl Fn() + Send + 'static) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let thread = std::thread::Builder::new().name("wasm-epoch".into()).spawn({
            let state = Arc::clone(&state);
            move || run(&state, tick)
        })?;
        let handle = thread.thread().clone();
        Ok(Self { state, thread: Some(thread), handle })
    }

    /// The count of threads that keep the clock running.
    pub(super) fn threads(&self) -> Working {
        Working { state: Arc::clone(&self.state), clock: self.handle.clone() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        self.handle.unpark();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the guests' clock panicked");
        }
    }
}

/// Where threads say that they work, or wait.
#[derive(Clone, Debug)]
pub(super) struct Working {
    state: Arc<State>,
    clock: Thread,
}

impl Working {
    /// A thread works from now on.
    pub(super) fn add(&self) {
        self.state.working.fetch_add(1, Ordering::SeqCst);
        self.state.seen.store(true, Ordering::Relaxed);
        if self.state.asleep.load(Ordering::SeqCst) {
            self.clock.unpark();
        }
    }

    /// One waits, or has ended.
    pub(super) fn remove(&self) {
        self.state.working.fetch_sub(1, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> isize {
        self.state.working.load(Ordering::SeqCst)
    }
}

fn run(state: &State, tick: impl Fn()) {
    let mut idle = 0;
    while !state.stop.load(Ordering::SeqCst) {
        if state.working.load(Ordering::SeqCst) > 0 || state.seen.swap(false, Ordering::Relaxed) {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle > IDLE_TICKS {
            sleep_until_needed(state);
            idle = 0;
        } else {
            std::thread::sleep(TICK);
        }
        tick();
    }
}

fn sleep_until_needed(state: &State) {
    state.asleep.store(true, Ordering::SeqCst);
    // Who began before `asleep` was visible did not wake this thread: look again after announcing the sleep.
    // Who worked is seen also if that is over: the next begins soon.
    let needed = || state.working.load(Ordering::SeqCst) > 0 || state.seen.load(Ordering::Relaxed);
    while !needed() && !state.stop.load(Ordering::SeqCst) {
        std::thread::park();
    }
    state.asleep.store(false, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_clock_runs_while_a_thread_works_and_sleeps_while_none_does() {
        let ticks = Arc::new(AtomicUsize::new(0));
        let ticker = Ticker::start_with({
            let ticks = Arc::clone(&ticks);
            move || {
                ticks.fetch_add(1, Ordering::SeqCst);
            }
        });
        let (ticker, ticks) = (ticker.unwrap(), || ticks.load(Ordering::SeqCst));
        let until = |reached: &dyn Fn() -> bool| {
            let end = Instant::now() + Duration::from_secs(60);
            while !reached() {
                assert!(Instant::now() < end);
                std::thread::yield_now();
            }
        };
        let asleep = || ticker.state.asleep.load(Ordering::SeqCst);
        until(&asleep);
        let threads = ticker.threads();
        threads.add();
        threads.add();
        until(&|| !asleep());
        threads.remove();
        // While it sleeps it does not tick.
        let seen = ticks();
        until(&|| ticks() > seen + 2 * IDLE_TICKS as usize);
        assert!(!asleep());
        threads.remove();
        until(&asleep);
    }

    #[test]
    fn work_that_is_over_before_the_clock_is_awake_wakes_it_all_the_same() {
        let (woke, wakes) = std::sync::mpsc::channel();
        let state = Arc::new(State { seen: AtomicBool::new(true), ..State::default() });
        let clock = std::thread::spawn({
            let state = Arc::clone(&state);
            move || {
                sleep_until_needed(&state);
                woke.send(()).unwrap();
            }
        });
        assert!(wakes.recv_timeout(Duration::from_secs(60)).is_ok());
        clock.join().unwrap();
    }
}
