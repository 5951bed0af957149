//! Every poll of a guest passes here: it is timed (that is the container's CPU time), it keeps the clock running, and a
//! guest that computes without rest waits in the heavy lane.
//!
//! A computing guest yields each millisecond, but with many of them everybody else would wait a millisecond for each. So
//! guests that have computed for [`HEAVY`] without a pause are polled at most [`Lane::new`]'s number at a time: one thread
//! always remains for those that answer quickly.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::PollSemaphore;

use super::engine::Engine;

/// Computing this long without a rest makes a guest heavy.
const HEAVY: Duration = Duration::from_millis(20);

/// A pause this long ends a computation.
const REST: Duration = Duration::from_millis(5);

/// Where heavy guests take turns.
#[derive(Clone, Debug)]
pub(super) struct Lane(Arc<Semaphore>);

impl Lane {
    /// All but one of the guests' threads may be busy with heavy guests.
    pub(super) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads.saturating_sub(1).max(1))))
    }
}

/// A container's CPU time.
#[derive(Debug, Default)]
pub(super) struct Cpu(AtomicU64);

impl Cpu {
    pub(super) fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The bookkeeping of one guest's polls.
pub(super) struct Meter {
    engine: Engine,
    lane: Lane,
    cpu: Arc<Cpu>,
    /// Computed since the last rest.
    burst: Duration,
    ended: Option<Instant>,
    turn: Option<PollSemaphore>,
}

impl Meter {
    pub(super) fn new(engine: Engine, lane: Lane, cpu: Arc<Cpu>) -> Self {
        Self { engine, lane, cpu, burst: Duration::ZERO, ended: None, turn: None }
    }

    /// Polls the guest, in its turn if it is heavy.
    pub(super) fn poll<F: Future>(&mut self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let permit = match &mut self.turn {
            Some(turn) => ready!(turn.poll_acquire(cx)),
            None => None,
        };
        let start = Instant::now();
        let result = {
            let _running = self.engine.ticker().guest_runs();
            future.poll(cx)
        };
        drop(permit);
        let end = Instant::now();
        self.account(start, end);
        if self.turn.is_some() {
            // Threads that wait for this core get it now, and not when the kernel's slice of some milliseconds is over.
            std::thread::yield_now();
        }
        result
    }

    fn account(&mut self, start: Instant, end: Instant) {
        let time = end - start;
        self.cpu.add(time);
        // The wait for a turn is no rest.
        let rested = self.turn.is_none() && self.ended.is_some_and(|ended| start - ended > REST);
        if rested || (self.turn.is_some() && time < REST / 10) {
            self.burst = Duration::ZERO;
            self.turn = None;
        }
        self.burst += time;
        self.ended = Some(end);
        if self.burst > HEAVY && self.turn.is_none() {
            self.turn = Some(PollSemaphore::new(Arc::clone(&self.lane.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        Meter::new(Engine::new().unwrap(), Lane::new(2), Arc::new(Cpu::default()))
    }

    #[test]
    fn a_guest_that_computes_without_rest_becomes_heavy_and_light_again_when_it_stops() {
        let mut meter = meter();
        let mut now = Instant::now();
        for _ in 0..25 {
            meter.account(now, now + Duration::from_millis(1));
            now += Duration::from_millis(1);
        }
        assert!(meter.turn.is_some());
        meter.account(now, now + Duration::from_micros(30));
        assert!(meter.turn.is_none());
        assert_eq!(meter.cpu.total(), Duration::from_micros(25_030));
    }

    #[test]
    fn short_answers_with_pauses_never_become_heavy() {
        let mut meter = meter();
        let mut now = Instant::now();
        for _ in 0..1000 {
            meter.account(now, now + Duration::from_millis(1));
            now += Duration::from_millis(10);
        }
        assert!(meter.turn.is_none());
    }
}
