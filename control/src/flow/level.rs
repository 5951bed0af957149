//! One priority level: seats, and queues of those who wait for one. Pure: the clock comes with each call, and whom to wake
//! is told, not done.
//!
//! A flow (one user of a FlowSchema, say) may use a few of the queues, its hand, and takes the least loaded of them.
//! Queues are served as if all of them progressed at once: each has a virtual time at which its next request would begin,
//! which moves on by the seats and the seconds that its requests take, and the queue whose request would end first is
//! next. What must stay true: no more seats are used than there are, but for one request that needs more than all; a
//! queue, and all of them together, are bounded; a queue that nobody uses takes no memory.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

/// Requests that wait in one level, however many queues it has: each is a connection's memory.
const MAX_WAITING: usize = 8192;
/// Seconds that a request is taken to last until it is known.
const GUESS: f64 = 0.003;

/// How requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queuing {
    pub(super) queues: u64,
    /// Queues that a flow may use.
    pub(super) hand: u64,
    /// Requests that may wait in a queue.
    pub(super) length: usize,
}

/// A request that is being served.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    queue: u64,
    seats: u32,
    since: Instant,
}

impl Place {
    pub(super) fn seats(&self) -> u32 {
        self.seats
    }
}

/// What became of a request that came.
#[derive(Debug, PartialEq)]
pub(super) enum Came {
    /// It is served at once.
    Served(Place),
    /// It waits, and is known by this number.
    Waits(u64),
    /// It is turned away.
    Refused(Why),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Why {
    /// All seats are taken, and nobody waits in this level.
    NoSeat,
    /// The flow's queues are full.
    QueueFull,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    seats: u32,
    who: T,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Seats of those that wait, and of those that are served.
    wanted: u32,
    used: u32,
    /// When, in virtual time, the next request begins.
    begins: f64,
}

impl<T> Queue<T> {
    fn load(&self) -> u32 {
        self.wanted.saturating_add(self.used)
    }
}

/// A level. `T` is who waits.
#[derive(Debug)]
pub(super) struct Level<T> {
    queuing: Option<Queuing>,
    /// Seats that may be used now.
    seats: u32,
    used: u32,
    wanted: u32,
    waiting: usize,
    /// Those that have requests.
    queues: HashMap<u64, Queue<T>>,
    virtual_now: f64,
    seen: Instant,
    next: u64,
    /// The most seats that were used and wanted at once since somebody asked.
    peak: u32,
}

impl<T> Level<T> {
    /// `None`: nobody waits.
    pub(super) fn new(queuing: Option<Queuing>, seats: u32, now: Instant) -> Self {
        Self {
            queuing,
            seats,
            used: 0,
            wanted: 0,
            waiting: 0,
            queues: HashMap::new(),
            virtual_now: 0.0,
            seen: now,
            next: 0,
            peak: 0,
        }
    }

    pub(super) fn queuing(&self) -> Option<Queuing> {
        self.queuing
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    #[cfg(test)]
    pub(super) fn seats(&self) -> u32 {
        self.seats
    }

    pub(super) fn set_seats(&mut self, seats: u32, now: Instant) {
        self.advance(now);
        self.seats = seats;
    }

    /// Seats that would have been enough for everybody since the last time this was asked.
    pub(super) fn take_demand(&mut self) -> u32 {
        let now = self.used.saturating_add(self.wanted);
        std::mem::replace(&mut self.peak, now).max(now)
    }

    /// A request of a flow comes that needs this many seats. `hand`: the queues that it may use.
    pub(super) fn come(&mut self, hand: impl Iterator<Item = u64>, seats: u32, who: T, now: Instant) -> Came {
        self.advance(now);
        let seats = seats.max(1);
        self.peak = self.peak.max(self.used.saturating_add(self.wanted).saturating_add(seats));
        let queue = self.least_loaded(hand);
        if self.waiting == 0 && self.fits(seats) {
            return Came::Served(self.serve(queue, seats, now));
        }
        let Some(queuing) = self.queuing else { return Came::Refused(Why::NoSeat) };
        let length = self.queues.get(&queue).map_or(0, |queue| queue.waiting.len());
        if length >= queuing.length || self.waiting >= MAX_WAITING {
            return Came::Refused(Why::QueueFull);
        }
        let number = self.next;
        self.next += 1;
        self.wanted = self.wanted.saturating_add(seats);
        self.waiting += 1;
        let queue = self.queue(queue);
        queue.wanted = queue.wanted.saturating_add(seats);
        queue.waiting.push_back(Waiting { number, seats, who });
        Came::Waits(number)
    }

    /// A request that waited goes away; whether it still waited.
    pub(super) fn leave(&mut self, number: u64, now: Instant) -> bool {
        self.advance(now);
        let place = |queue: &Queue<T>| queue.waiting.iter().position(|waiting| waiting.number == number);
        let found = self.queues.iter().find_map(|(key, queue)| Some((*key, place(queue)?)));
        let Some((key, at)) = found else { return false };
        if let Some(queue) = self.queues.get_mut(&key)
            && let Some(gone) = queue.waiting.remove(at)
        {
            queue.wanted = queue.wanted.saturating_sub(gone.seats);
            self.wanted = self.wanted.saturating_sub(gone.seats);
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.forget_idle(key);
        true
    }

    /// A request has been served.
    pub(super) fn end(&mut self, place: Place, now: Instant) {
        self.advance(now);
        self.used = self.used.saturating_sub(place.seats);
        if let Some(queue) = self.queues.get_mut(&place.queue) {
            queue.used = queue.used.saturating_sub(place.seats);
            let lasted = now.saturating_duration_since(place.since).as_secs_f64();
            queue.begins += (lasted - GUESS) * f64::from(place.seats);
        }
        self.forget_idle(place.queue);
    }

    /// Who is served next, while there are seats.
    pub(super) fn next(&mut self, now: Instant) -> Option<(T, Place)> {
        self.advance(now);
        let ends = |queue: &Queue<T>| {
            let first = queue.waiting.front()?;
            Some((queue.begins + GUESS * f64::from(first.seats), first.number, first.seats))
        };
        let candidates = self.queues.iter().filter_map(|(key, queue)| Some((ends(queue)?, *key)));
        let ((_, _, seats), key) =
            candidates.min_by(|((a, first, _), _), ((b, second, _), _)| a.total_cmp(b).then(first.cmp(second)))?;
        if !self.fits(seats) {
            return None;
        }
        let queue = self.queues.get_mut(&key)?;
        let Waiting { seats, who, .. } = queue.waiting.pop_front()?;
        queue.wanted = queue.wanted.saturating_sub(seats);
        self.wanted = self.wanted.saturating_sub(seats);
        self.waiting = self.waiting.saturating_sub(1);
        Some((who, self.serve(key, seats, now)))
    }

    fn fits(&self, seats: u32) -> bool {
        self.used.saturating_add(seats) <= self.seats || (self.used == 0 && self.seats > 0)
    }

    /// The queue of this number, which begins now if there is none.
    fn queue(&mut self, key: u64) -> &mut Queue<T> {
        let begins = self.virtual_now;
        self.queues.entry(key).or_insert_with(|| Queue { waiting: VecDeque::new(), wanted: 0, used: 0, begins })
    }

    fn serve(&mut self, key: u64, seats: u32, now: Instant) -> Place {
        let queue = self.queue(key);
        queue.begins += GUESS * f64::from(seats);
        queue.used = queue.used.saturating_add(seats);
        self.used = self.used.saturating_add(seats);
        Place { queue: key, seats, since: now }
    }

    fn least_loaded(&self, hand: impl Iterator<Item = u64>) -> u64 {
        let load = |key: &u64| self.queues.get(key).map_or(0, Queue::load);
        hand.min_by_key(load).unwrap_or_default()
    }

    fn forget_idle(&mut self, key: u64) {
        if self.queues.get(&key).is_some_and(|queue| queue.load() == 0) {
            self.queues.remove(&key);
        }
    }

    /// Virtual time passes as the seats in use are divided among the queues that have requests.
    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        self.seen = self.seen.max(now);
        let busy = self.used.saturating_add(self.wanted).min(self.seats);
        // Queues are few.
        #[allow(clippy::cast_precision_loss)]
        let queues = self.queues.len().max(1) as f64;
        self.virtual_now += passed * f64::from(busy) / queues;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Clock(Instant);

    impl Clock {
        fn pass(&mut self, milliseconds: u64) -> Instant {
            self.0 += Duration::from_millis(milliseconds);
            self.0
        }
    }

    fn level(seats: u32, length: usize) -> (Level<&'static str>, Clock) {
        let now = Instant::now();
        (Level::new(Some(Queuing { queues: 8, hand: 1, length }), seats, now), Clock(now))
    }

    fn served(came: Came) -> Place {
        match came {
            Came::Served(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn seats_are_taken_then_queues_then_nothing() {
        let (mut level, clock) = level(2, 1);
        let place = served(level.come([0].into_iter(), 1, "a", clock.0));
        served(level.come([1].into_iter(), 1, "b", clock.0));
        assert_eq!(level.come([2].into_iter(), 1, "c", clock.0), Came::Waits(0));
        assert_eq!(level.come([2].into_iter(), 1, "d", clock.0), Came::Refused(Why::QueueFull));
        assert!(level.next(clock.0).is_none());
        level.end(place, clock.0);
        assert_eq!(level.next(clock.0).unwrap().0, "c");
        assert_eq!((level.waiting(), level.take_demand()), (0, 4));
    }

    #[test]
    fn a_level_without_queues_refuses() {
        let now = Instant::now();
        let mut level = Level::new(None, 1, now);
        let place = served(level.come([0].into_iter(), 1, (), now));
        assert_eq!(level.come([0].into_iter(), 1, (), now), Came::Refused(Why::NoSeat));
        level.end(place, now);
        served(level.come([0].into_iter(), 1, (), now));
    }

    #[test]
    fn a_flow_with_a_long_queue_does_not_delay_one_with_a_short_queue() {
        let (mut level, mut clock) = level(1, 1000);
        let mut place = served(level.come([0].into_iter(), 1, "greedy", clock.0));
        for _ in 0..100 {
            level.come([0].into_iter(), 1, "greedy", clock.0);
        }
        for _ in 0..3 {
            level.come([1].into_iter(), 1, "modest", clock.0);
        }
        let mut order = Vec::new();
        for _ in 0..8 {
            let now = clock.pass(10);
            level.end(place, now);
            let (who, next) = level.next(now).unwrap();
            order.push(who);
            place = next;
        }
        let late = order.iter().rposition(|who| *who == "modest").unwrap();
        assert!(late <= 5, "{order:?}");
        assert_eq!(order.iter().filter(|who| **who == "modest").count(), 3, "{order:?}");
    }

    #[test]
    fn long_requests_count_for_what_they_took() {
        let (mut level, mut clock) = level(1, 1000);
        let mut place = served(level.come([0].into_iter(), 1, "long", clock.0));
        for _ in 0..40 {
            level.come([0].into_iter(), 1, "long", clock.0);
            level.come([1].into_iter(), 1, "short", clock.0);
        }
        let mut last = "long";
        let mut shorts = 0;
        for _ in 0..20 {
            let now = clock.pass(if last == "long" { 100 } else { 10 });
            level.end(place, now);
            let (who, next) = level.next(now).unwrap();
            (last, place) = (who, next);
            shorts += usize::from(who == "short");
        }
        assert!(shorts >= 14, "{shorts} of 20");
    }

    #[test]
    fn a_wide_request_waits_for_seats_and_a_wider_one_than_all_is_served_alone() {
        let (mut level, clock) = level(4, 10);
        let first = served(level.come([0].into_iter(), 3, "a", clock.0));
        assert_eq!(level.come([1].into_iter(), 2, "b", clock.0), Came::Waits(0));
        // Nobody overtakes.
        assert_eq!(level.come([2].into_iter(), 1, "c", clock.0), Came::Waits(1));
        level.end(first, clock.0);
        assert!(level.next(clock.0).is_some() && level.next(clock.0).is_some() && level.next(clock.0).is_none());
        let now = Instant::now();
        let mut small = Level::new(None, 2, now);
        served(small.come([0].into_iter(), 10, (), now));
        assert_eq!(small.come([0].into_iter(), 1, (), now), Came::Refused(Why::NoSeat));
    }

    #[test]
    fn who_leaves_is_forgotten_and_an_idle_level_holds_nothing() {
        let (mut level, clock) = level(1, 10);
        let place = served(level.come([0].into_iter(), 1, "a", clock.0));
        let Came::Waits(number) = level.come([5].into_iter(), 1, "b", clock.0) else { panic!() };
        assert!(level.leave(number, clock.0) && !level.leave(number, clock.0));
        level.end(place, clock.0);
        assert!(level.next(clock.0).is_none() && level.queues.is_empty());
        assert_eq!((level.used, level.wanted, level.waiting), (0, 0, 0));
    }

    #[test]
    fn a_flow_takes_the_least_loaded_queue_of_its_hand() {
        let (mut level, clock) = level(1, 10);
        served(level.come([3].into_iter(), 1, "a", clock.0));
        level.come([4].into_iter(), 1, "b", clock.0);
        level.come([3, 4, 6].into_iter(), 1, "c", clock.0);
        assert_eq!(level.queues.get(&6).unwrap().waiting.len(), 1);
    }
}
