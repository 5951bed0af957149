//! A queue of keys: each is in it once, is worked on by one worker at a time, and is retried later and later while it fails.
//!
//! Bounded by the number of objects: a key that is added again before it was taken is the same entry. A key that is added
//! while it is being worked on is handed out again afterwards.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first retry's delay; each further failure doubles it.
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// No retry waits longer than this (before the overall limit).
const LAST_RETRY: Duration = Duration::from_mins(1);
/// Retries of one queue: at most ten per second on average, after a burst of a hundred.
const RETRY_EVERY: Duration = Duration::from_millis(100);
const RETRY_BURST: u32 = 100;

/// What a queue can hold.
pub trait Item: Clone + Eq + Hash + Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Debug + Send + Sync + 'static> Item for T {}

/// Clones share the queue.
#[derive(Clone, Debug)]
pub struct Queue<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

type Due = (Instant, u64);

#[derive(Debug)]
struct State<T> {
    ready: VecDeque<T>,
    /// In `ready`, or waiting for its worker to finish.
    dirty: HashSet<T>,
    busy: HashSet<T>,
    delayed: BTreeMap<Due, T>,
    due: HashMap<T, Due>,
    failures: HashMap<T, u32>,
    sequence: u64,
    /// When the next retry may run, were there no burst.
    next_retry: Instant,
    closed: bool,
}

impl<T: Item> Default for Queue<T> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            busy: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            next_retry: Instant::now(),
            closed: false,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), wake: Notify::new() }))
    }
}

impl<T: Item> Queue<T> {
    /// Has the key worked on as soon as a worker is free.
    pub fn add(&self, key: T) {
        if self.0.state.lock().add(key) {
            self.0.wake.notify_one();
        }
    }

    /// Has the key worked on after `delay`; an earlier appointment stays.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.0.state.lock().add_at(key, Instant::now() + delay) {
            self.0.wake.notify_one();
        }
    }

    /// The next key; it stays busy until [`Queue::done`]. For one consumer. Never returns after [`Queue::close`].
    pub async fn next(&self) -> T {
        loop {
            let wait = {
                let mut state = self.0.state.lock();
                state.ripen(Instant::now());
                if let Some(key) = state.take() {
                    return key;
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match wait {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.0.wake.notified() => {}
                },
                None => self.0.wake.notified().await,
            }
        }
    }

    /// The worker is done with the key; a failure schedules a retry.
    pub fn done(&self, key: &T, succeeded: bool) {
        let mut state = self.0.state.lock();
        state.busy.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
        }
        if succeeded {
            state.failures.remove(key);
        } else {
            let delay = state.retry_delay(key, Instant::now());
            state.add_at(key.clone(), Instant::now() + delay);
        }
        drop(state);
        self.0.wake.notify_one();
    }

    /// How many keys wait for a worker.
    pub fn depth(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    /// Nothing is accepted or handed out any more.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.ready.clear();
        state.dirty.clear();
        state.delayed.clear();
        state.due.clear();
    }
}

impl<T: Item> State<T> {
    fn add(&mut self, key: T) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) || self.busy.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn add_at(&mut self, key: T, at: Instant) -> bool {
        if self.closed {
            return false;
        }
        if let Some(present) = self.due.get(&key).copied() {
            if present.0 <= at {
                return false;
            }
            self.delayed.remove(&present);
        }
        self.sequence += 1;
        let due = (at, self.sequence);
        self.due.insert(key.clone(), due);
        self.delayed.insert(due, key);
        true
    }

    /// Moves what has become due to `ready`.
    fn ripen(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    /// The larger of the key's own backoff and what the overall limit asks for.
    fn retry_delay(&mut self, key: &T, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let backoff = FIRST_RETRY.saturating_mul(1 << (*failures).min(20)).min(LAST_RETRY);
        *failures = failures.saturating_add(1);
        self.next_retry = self.next_retry.max(now) + RETRY_EVERY;
        let queue = (self.next_retry - now).saturating_sub(RETRY_EVERY * RETRY_BURST);
        backoff.max(queue)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn taken(queue: &Queue<&'static str>) -> Option<&'static str> {
        queue.next().now_or_never()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_never_worked_on_twice_at_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(taken(&queue), Some("a"));
        queue.add("a");
        assert_eq!(taken(&queue), None);
        queue.done(&"a", true);
        assert_eq!(taken(&queue), Some("a"));
        queue.done(&"a", true);
        assert_eq!(taken(&queue), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_appointment_stays_and_later_ones_merge_with_it() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_millis(100));
        queue.add_after("a", Duration::from_millis(900));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_millis(), 100);
        queue.done(&"a", true);
        assert!(tokio::time::timeout(Duration::from_secs(5), queue.next()).await.is_err());
    }

    /// The clock is the test's, and goes in steps of a millisecond.
    fn is_about(took: Duration, wanted: Duration) -> bool {
        (wanted..=wanted + Duration::from_millis(2)).contains(&took)
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_doubles_the_wait_up_to_a_minute_and_a_success_resets_it() {
        let queue = Queue::default();
        queue.add("a");
        queue.next().await;
        let failing = async || {
            let start = Instant::now();
            queue.done(&"a", false);
            queue.next().await;
            start.elapsed()
        };
        for failures in 0..16 {
            let (took, wanted) = (failing().await, (FIRST_RETRY * (1 << failures)).min(LAST_RETRY));
            assert!(is_about(took, wanted), "{failures}: {took:?}, not {wanted:?}");
        }
        queue.done(&"a", true);
        queue.add("a");
        queue.next().await;
        assert!(is_about(failing().await, FIRST_RETRY));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_of_all_keys_together_are_ten_a_second_after_the_burst() {
        let (queue, more) = (Queue::default(), 20);
        let all = RETRY_BURST + more;
        for key in 0..all {
            queue.add(key);
            queue.done(&queue.next().await, false);
        }
        let start = Instant::now();
        for retry in 0..all {
            queue.next().await;
            let wanted = FIRST_RETRY.max(RETRY_EVERY * (retry + 1).saturating_sub(RETRY_BURST));
            assert!(is_about(start.elapsed(), wanted), "{retry}: {:?}, not {wanted:?}", start.elapsed());
        }
    }
}
