//! The pods that wait for a node: ready to be tried, waiting out a backoff, or waiting for something that helps.
//!
//! Bounded by the number of pending pods. Higher priorities first, then the longest waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pod::PodInfo;
use crate::reconcile::Key;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// An unschedulable pod is tried again after this time even if nothing happened.
const FLUSH: Duration = Duration::from_mins(5);

/// Something that may let a pod be placed that could not be before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A node appeared, or its labels, taints or capacity changed.
    Node,
    /// A pod left a node.
    PodGone,
}

type Rank = (Reverse<i32>, u64);

#[derive(Debug)]
struct Entry {
    info: Arc<PodInfo>,
    place: Place,
    sequence: u64,
    /// Tries that found no node, or failed.
    attempts: u32,
    last: Instant,
}

#[derive(Debug)]
enum Place {
    Active(Rank),
    Backoff(Instant),
    /// Until one of these wakes; no entry: any does.
    Waiting(Vec<Wake>),
    /// Handed out.
    Tried,
}

#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<Key, Entry>,
    active: BTreeMap<Rank, Key>,
    backoff: BTreeSet<(Instant, Key)>,
    sequence: u64,
}

impl Queue {
    /// Adds a pod, or updates it. `changed`: in a way that may make a difference.
    pub fn add(&mut self, info: Arc<PodInfo>, changed: bool, now: Instant) {
        let key = info.key.clone();
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.info.uid() == info.uid()
        {
            entry.info = info;
            if changed && matches!(entry.place, Place::Waiting(_)) {
                self.activate(&key, now);
            }
            return;
        }
        self.remove(&key);
        self.sequence += 1;
        let entry = Entry { info, place: Place::Tried, sequence: self.sequence, attempts: 0, last: now };
        self.entries.insert(key.clone(), entry);
        self.activate(&key, now);
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.unlink(key, &entry.place);
        }
    }

    /// The next pod to try. It stays known until it is removed.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.ripen(now);
        let (_, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = Place::Tried;
        entry.last = now;
        Some(entry.info.clone())
    }

    /// No node fits: waits for one of `wakes`.
    pub fn wait(&mut self, key: &Key, wakes: Vec<Wake>) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.attempts += 1;
            entry.place = Place::Waiting(wakes);
        }
    }

    /// The binding failed: tried again after a backoff.
    pub fn retry(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.attempts += 1;
            entry.last = now;
            let until = now + backoff(entry.attempts);
            entry.place = Place::Backoff(until);
            self.backoff.insert((until, key.clone()));
        }
    }

    /// Something happened: those that it may help are tried again, after their backoff.
    pub fn wake(&mut self, wake: Wake, now: Instant) {
        let helped = |entry: &Entry| match &entry.place {
            Place::Waiting(wakes) => wakes.is_empty() || wakes.contains(&wake),
            _ => false,
        };
        let keys: Vec<Key> = self.entries.iter().filter(|(_, e)| helped(e)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.activate(&key, now);
        }
    }

    /// Tries those again that have waited for long.
    pub fn flush(&mut self, now: Instant) {
        let overdue = |entry: &Entry| matches!(entry.place, Place::Waiting(_)) && now - entry.last >= FLUSH;
        let keys: Vec<Key> = self.entries.iter().filter(|(_, e)| overdue(e)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.activate(&key, now);
        }
    }

    /// When a backoff ends next.
    pub fn next_due(&self) -> Option<Instant> {
        self.backoff.first().map(|(at, _)| *at)
    }

    fn ripen(&mut self, now: Instant) {
        while let Some((at, key)) = self.backoff.first().cloned() {
            if at > now {
                break;
            }
            self.activate(&key, now);
        }
    }

    /// Moves an entry to the active pods, or into backoff if it was tried too recently. The first retry does not wait.
    fn activate(&mut self, key: &Key, now: Instant) {
        let Some(mut entry) = self.entries.remove(key) else { return };
        self.unlink(key, &entry.place);
        let until = entry.last + if entry.attempts > 1 { backoff(entry.attempts) } else { Duration::ZERO };
        if until > now {
            entry.place = Place::Backoff(until);
            self.backoff.insert((until, key.clone()));
        } else {
            let rank = (Reverse(entry.info.priority), entry.sequence);
            entry.place = Place::Active(rank);
            self.active.insert(rank, key.clone());
        }
        self.entries.insert(key.clone(), entry);
    }

    fn unlink(&mut self, key: &Key, place: &Place) {
        match place {
            Place::Active(rank) => drop(self.active.remove(rank)),
            Place::Backoff(at) => drop(self.backoff.remove(&(*at, key.clone()))),
            Place::Waiting(_) | Place::Tried => {}
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LAST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority, "containers": []}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod"))))
    }

    fn name(info: Option<Arc<PodInfo>>) -> Option<String> {
        info.map(|i| i.key.name.to_string())
    }

    #[test]
    fn higher_priorities_go_first_then_the_longest_waiting() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 0), ("c", 9)] {
            queue.add(pod(name, priority), true, now);
        }
        let order: Vec<_> = (0..4).map(|_| name(queue.pop(now))).collect();
        assert_eq!(order, [Some("c".to_owned()), Some("a".to_owned()), Some("b".to_owned()), None]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_what_helps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), true, now);
        let info = queue.pop(now).expect("a pod");
        queue.wait(&info.key, vec![Wake::Node]);
        queue.wake(Wake::PodGone, now);
        assert!(queue.pop(now).is_none());
        queue.wake(Wake::Node, now);
        assert_eq!(name(queue.pop(now)), Some("a".to_owned()));
    }

    #[test]
    fn tries_back_off_from_one_to_ten_seconds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), true, now);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let info = queue.pop(now).expect("a pod");
            queue.retry(&info.key, now);
            let due = queue.next_due().expect("a backoff");
            waits.push((due - now).as_secs());
            assert!(queue.pop(now).is_none());
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn after_five_minutes_a_pod_is_tried_without_a_reason() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0), true, now);
        let info = queue.pop(now).expect("a pod");
        queue.wait(&info.key, vec![Wake::Node]);
        queue.flush(now + Duration::from_secs(299));
        assert!(queue.pop(now + Duration::from_secs(299)).is_none());
        queue.flush(now + FLUSH);
        assert!(queue.pop(now + FLUSH).is_some());
    }
}
