//! How many of the process's descriptors guests may hold, so that the API server, the store and the node always have some
//! left: a container has a bound of its own, its namespace one for all its containers, and the node one for all.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shares::Shares;

/// All guests together have one of so many of the process's descriptors, and a namespace one of so many of these. Three of eight
/// are for what pods' servers listen on, and two for Services.
const OF_PROCESS: u64 = 8;
const OF_ALL: usize = 2;

/// How often it is said of a namespace that there were none left.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Descriptors for one purpose.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    /// Made when it is first needed: the process asks for more descriptors when it starts.
    all: OnceLock<(usize, Arc<Semaphore>)>,
    /// Of the namespaces that have a container.
    namespaces: Shares,
    said: Arc<Said>,
}

impl Descriptors {
    #[cfg(test)]
    pub(super) fn with(all: usize) -> Self {
        Self { all: OnceLock::from((all, Arc::new(Semaphore::new(all)))), ..Self::default() }
    }

    /// Room for a container, which has so many at most.
    pub(super) fn room(&self, namespace: &str, most: usize) -> Arc<Room> {
        let (count, all) = self.all.get_or_init(|| {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / OF_PROCESS;
            let count = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
            (count, Arc::new(Semaphore::new(count)))
        });
        let of_namespace = self.namespaces.of(namespace, count / OF_ALL);
        let left = [Arc::new(Semaphore::new(most)), of_namespace, Arc::clone(all)];
        Arc::new(Room { left, namespace: namespace.to_owned(), said: Arc::clone(&self.said) })
    }
}

/// A container's room, in its namespace's, in the node's.
#[derive(Debug)]
pub(super) struct Room {
    left: [Arc<Semaphore>; 3],
    namespace: String,
    said: Arc<Said>,
}

/// One descriptor that a container may have, until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _permits: [OwnedSemaphorePermit; 3],
}

impl Room {
    /// Room for one more, if there is some.
    pub(super) fn take(&self) -> Option<Taken> {
        let take = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_owned().ok();
        let [container, namespace, node] = &self.left;
        Some(Taken { _permits: [take(container)?, take(namespace)?, take(node)?] })
    }

    /// Whether to say now that there was no room.
    pub(super) fn tells(&self) -> bool {
        self.said.is_due(&self.namespace, Instant::now())
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// How many the container itself may have still.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        let [container, ..] = &self.left;
        container.available_permits()
    }
}

/// When it was said last of a namespace that there was no room: as many as were turned away in the last minute.
#[derive(Debug, Default)]
struct Said(Mutex<HashMap<String, Instant>>);

impl Said {
    fn is_due(&self, namespace: &str, now: Instant) -> bool {
        let mut said = self.0.lock();
        said.retain(|_, at| now.saturating_duration_since(*at) < SAID_EVERY);
        let due = !said.contains_key(namespace);
        if due {
            said.insert(namespace.to_owned(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_turned_away_is_told_of_once_a_minute() {
        let (said, now) = (Said::default(), Instant::now());
        assert!(said.is_due("a", now) && said.is_due("b", now));
        assert!(!said.is_due("a", now + SAID_EVERY / 2));
        assert!(said.is_due("a", now + SAID_EVERY));
        assert!(!said.is_due("a", now + SAID_EVERY + SAID_EVERY / 2), "it was told of again");
    }

    #[test]
    fn a_namespace_has_half_of_what_there_is_and_leaves_the_rest_to_others() {
        let descriptors = Descriptors::with(4);
        let [one, two, other] = ["a", "a", "b"].map(|namespace| descriptors.room(namespace, 10));
        let held = [one.take().unwrap(), two.take().unwrap()];
        assert!(one.take().is_none() && two.take().is_none());
        let others = [other.take().unwrap(), other.take().unwrap()];
        assert!(descriptors.room("c", 10).take().is_none(), "there are no more");
        drop((held, others));
        assert!(one.take().is_some());
        let small = descriptors.room("c", 1);
        let _held = small.take().unwrap();
        assert!(small.take().is_none());
    }

    #[test]
    fn guests_have_a_part_of_the_process_s_descriptors() {
        let descriptors = Descriptors::default();
        let room = descriptors.room("a", usize::MAX >> 4);
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 16;
        let mut held = Vec::new();
        while held.len() <= 100_000
            && let Some(taken) = room.take()
        {
            held.push(taken);
        }
        assert!(held.len() as u64 <= limit.max(1) || held.len() > 100_000, "{} of {limit}", held.len());
    }
}
