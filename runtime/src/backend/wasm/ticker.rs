//! The guests' clock: one thread that advances the engine's epoch every millisecond while a guest runs.
//!
//! A guest that computes yields at each tick. Without running guests the thread sleeps, so an idle node does not wake up a
//! thousand times a second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// How long a guest computes before it yields.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a running guest before the thread goes to sleep: steady load pays for no wake-ups.
const IDLE_TICKS: u32 = 50;

#[derive(Debug, Default)]
struct State {
    /// Guests being polled now.
    running: AtomicUsize,
    /// A guest was polled since the last tick.
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
        let state = Arc::new(State::default());
        let thread = std::thread::Builder::new().name("wasm-epoch".into()).spawn({
            let (state, engine) = (Arc::clone(&state), engine.clone());
            move || run(&state, &engine)
        })?;
        let handle = thread.thread().clone();
        Ok(Self { state, thread: Some(thread), handle })
    }

    /// Keeps the clock running while the guard lives: around one poll of a guest.
    pub(super) fn guest_runs(&self) -> Running<'_> {
        self.state.running.fetch_add(1, Ordering::SeqCst);
        self.state.seen.store(true, Ordering::Relaxed);
        if self.state.asleep.load(Ordering::SeqCst) {
            self.handle.unpark();
        }
        Running(&self.state.running)
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

/// One poll of a guest.
pub(super) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn run(state: &State, engine: &wasmtime::Engine) {
    let mut idle = 0;
    while !state.stop.load(Ordering::SeqCst) {
        if state.running.load(Ordering::SeqCst) > 0 || state.seen.swap(false, Ordering::Relaxed) {
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
        engine.increment_epoch();
    }
}

fn sleep_until_needed(state: &State) {
    state.asleep.store(true, Ordering::SeqCst);
    // A guest that began before `asleep` was visible did not wake this thread: look again after announcing the sleep.
    while state.running.load(Ordering::SeqCst) == 0 && !state.stop.load(Ordering::SeqCst) {
        std::thread::park();
    }
    state.asleep.store(false, Ordering::SeqCst);
}
