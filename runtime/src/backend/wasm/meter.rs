//! Every poll of a guest passes here: it is timed (that is the container's CPU time), and a guest that computes without
//! rest, or floods its log, is sent to the lane.
//!
//! A computing guest yields at each tick of the clock. One that ends a poll by itself waits for something, and has not
//! computed without rest: it goes to the front. So do requests that take less than [`HEAVY`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::guests::Place;
use super::ticker::TICK;

/// Turns of a computation, of a tick each, after which its guest is heavy. Turns are counted and not the time they take,
/// which on a busy machine is mostly waiting for a core.
const HEAVY: u32 = 5;

/// A turn in the lane that takes this long had no core for most of it: others than guests keep the machine busy.
const STARVED: Duration = Duration::from_millis(20);

/// A guest that had to wait for its log stays heavy for so long.
const PENANCE: Duration = Duration::from_millis(100);

/// Such a guest is given this part of the time in front, one guest at a time: heavy guests are not starved by a machine
/// without an idle core, and are in nobody's way there.
const SHARE: u32 = 10;

/// What the one heavy guest has that takes turns in front.
#[derive(Clone, Debug, Default)]
pub(super) struct Favour(Arc<AtomicBool>);

impl Favour {
    /// For so many turns; `None` if another guest has it.
    fn take(&self, turns: u32) -> Option<Favoured> {
        let taken = turns > 0 && !self.0.swap(true, Ordering::Relaxed);
        taken.then(|| Favoured { favour: self.clone(), turns })
    }
}

/// Some turns in front. Dropping it lets the next guest have some.
struct Favoured {
    favour: Favour,
    turns: u32,
}

impl Favoured {
    fn less_one(mut self) -> Option<Self> {
        self.turns = self.turns.saturating_sub(1);
        (self.turns > 0).then_some(self)
    }
}

impl Drop for Favoured {
    fn drop(&mut self) {
        self.favour.0.store(false, Ordering::Relaxed);
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
    place: Arc<Place>,
    cpu: Arc<Cpu>,
    /// Turns since it last waited for something.
    turns: u32,
    /// The clock ended the last poll.
    ticked: bool,
    /// When it last waited for its log.
    flooded: Option<Instant>,
    favour: Favour,
    favoured: Option<Favoured>,
}

impl Meter {
    pub(super) fn new(place: Arc<Place>, cpu: Arc<Cpu>, favour: Favour) -> Self {
        place.set_heavy(false);
        Self { place, cpu, turns: 0, ticked: false, flooded: None, favour, favoured: None }
    }

    /// Whether the clock ended the last poll: the guest has more to compute.
    pub(super) fn computes(&self) -> bool {
        self.ticked
    }

    /// Polls the guest, and decides where it is polled next.
    pub(super) fn poll<F: Future>(&mut self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let clock = Clock::start(self.place.in_lane());
        let result = future.poll(cx);
        let turn = clock.stop();
        self.cpu.add(turn.cpu);
        let (tick, flood) = (self.place.take_tick(), self.place.take_flood());
        let heavy = self.is_heavy(&turn, tick, flood);
        self.place.set_heavy(heavy);
        result
    }

    /// Where it belongs after this turn. `tick`: the clock ended it, not the guest. `flood`: the guest waited for its log.
    fn is_heavy(&mut self, turn: &Turn, tick: bool, flood: bool) -> bool {
        self.ticked = tick;
        if flood {
            self.flooded = Some(turn.end);
        }
        let floods = self.flooded.is_some_and(|at| turn.end.duration_since(at) < PENANCE);
        if !tick && !floods {
            self.turns = 0;
            self.favoured = None;
            return false;
        }
        self.turns = self.turns.saturating_add(1);
        if turn.in_lane && turn.wall > STARVED {
            let owed = (turn.wall / SHARE).as_millis() / TICK.as_millis();
            self.favoured = self.favour.take(u32::try_from(owed).unwrap_or(u32::MAX));
        } else if !turn.in_lane {
            self.favoured = self.favoured.take().and_then(Favoured::less_one);
        }
        (floods || self.turns > HEAVY) && self.favoured.is_none()
    }
}

/// One poll.
struct Turn {
    in_lane: bool,
    end: Instant,
    wall: Duration,
    /// CPU time, as well as it is known.
    cpu: Duration,
}

/// The time that a poll takes.
struct Clock {
    start: Instant,
    /// In the lane, where threads wait for a core, the kernel is asked what the thread had. In front that would cost more
    /// than it tells.
    cpu: Option<Duration>,
}

impl Clock {
    fn start(in_lane: bool) -> Self {
        Self { cpu: in_lane.then(thread_time), start: Instant::now() }
    }

    fn stop(&self) -> Turn {
        let end = Instant::now();
        let wall = end.duration_since(self.start);
        let cpu = self.cpu.map_or(wall, |before| thread_time().saturating_sub(before));
        Turn { in_lane: self.cpu.is_some(), end, wall, cpu }
    }
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn meter() -> Meter {
        meters(Favour::default())
    }

    fn meters(favour: Favour) -> Meter {
        Meter::new(Arc::default(), Arc::default(), favour)
    }

    fn front(wall: Duration) -> Turn {
        Turn { in_lane: false, end: Instant::now(), wall, cpu: wall }
    }

    fn lane(wall: Duration) -> Turn {
        Turn { in_lane: true, cpu: MILLISECOND, ..front(wall) }
    }

    #[test]
    fn a_guest_that_computes_through_its_ticks_becomes_heavy_and_light_again_when_it_waits() {
        let mut meter = meter();
        let turns: Vec<bool> = (0..7).map(|_| meter.is_heavy(&front(MILLISECOND), true, false)).collect();
        assert_eq!(turns, [false, false, false, false, false, true, true]);
        assert!(!meter.is_heavy(&front(MILLISECOND / 2), false, false));
        assert!(!meter.is_heavy(&front(MILLISECOND), true, false));
    }

    #[test]
    fn requests_that_compute_for_a_moment_stay_in_front_however_many_they_are_and_wait_for_a_core() {
        let mut meter = meter();
        for _ in 0..1000 {
            assert!(!(0..4).any(|_| meter.is_heavy(&front(30 * MILLISECOND), true, false)));
            assert!(!meter.is_heavy(&front(MILLISECOND), false, false));
        }
    }

    #[test]
    fn a_heavy_guest_that_gets_no_core_has_a_tenth_of_the_time_in_front_and_no_other_beside_it() {
        let favour = Favour::default();
        let (mut meter, mut other) = (meters(favour.clone()), meters(favour));
        assert!((0..6).map(|_| meter.is_heavy(&front(MILLISECOND), true, false)).last().unwrap());
        assert!(meter.is_heavy(&lane(3 * MILLISECOND), true, false));
        let starved = lane(50 * MILLISECOND);
        assert!(!meter.is_heavy(&starved, true, false));
        assert!((0..6).map(|_| other.is_heavy(&starved, true, false)).last().unwrap());
        let turns: Vec<bool> = (0..5).map(|_| meter.is_heavy(&front(MILLISECOND), true, false)).collect();
        assert_eq!(turns, [false, false, false, false, true]);
    }

    #[test]
    fn a_guest_that_waits_for_its_log_is_heavy_until_it_has_not_for_a_while() {
        let mut meter = meter();
        let start = Instant::now();
        let at = |millis: u32| Turn { end: start + millis * MILLISECOND, ..front(MILLISECOND) };
        assert!(meter.is_heavy(&at(0), false, true));
        assert!(!meter.computes());
        assert!(meter.is_heavy(&at(99), false, false));
        assert!(!meter.is_heavy(&at(100), false, false));
    }

    #[test]
    fn a_poll_is_charged_to_its_container() {
        let mut meter = meter();
        let mut work = std::pin::pin!(async { std::thread::sleep(2 * MILLISECOND) });
        let done = meter.poll(work.as_mut(), &mut Context::from_waker(std::task::Waker::noop()));
        assert!(done.is_ready() && meter.cpu.total() >= 2 * MILLISECOND);
    }
}
