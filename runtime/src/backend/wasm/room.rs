//! How many of the process's descriptors guests may hold, so that the API server, the store and the node always have some
//! left: a container has a bound of its own, its namespace one for all its containers, and the node one for all.

use std::sync::{Arc, OnceLock};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shares::Shares;

/// All guests together have one of so many of the process's descriptors, and a namespace one of so many of these. Three of eight
/// are for what pods' servers listen on, and two for Services.
const OF_PROCESS: u64 = 8;
const OF_ALL: usize = 2;

/// Descriptors for one purpose.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    /// Made when it is first needed: the process asks for more descriptors when it starts.
    all: OnceLock<(usize, Arc<Semaphore>)>,
    /// Of the namespaces that have a container.
    namespaces: Shares,
}

impl Descriptors {
    #[cfg(test)]
    pub(super) fn with(all: usize) -> Self {
        Self { all: OnceLock::from((all, Arc::new(Semaphore::new(all)))), namespaces: Shares::default() }
    }

    /// Room for a container, which has so many at most.
    pub(super) fn room(&self, namespace: &str, most: usize) -> Arc<Room> {
        let (count, all) = self.all.get_or_init(|| {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / OF_PROCESS;
            let count = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
            (count, Arc::new(Semaphore::new(count)))
        });
        let of_namespace = self.namespaces.of(namespace, count / OF_ALL);
        Arc::new(Room([Arc::new(Semaphore::new(most)), of_namespace, Arc::clone(all)]))
    }
}

/// A container's room, in its namespace's, in the node's.
#[derive(Debug)]
pub(super) struct Room([Arc<Semaphore>; 3]);

/// One descriptor that a container may have, until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _permits: [OwnedSemaphorePermit; 3],
}

impl Room {
    /// Room for one more, if there is some.
    pub(super) fn take(&self) -> Option<Taken> {
        let take = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_owned().ok();
        let [container, namespace, node] = &self.0;
        Some(Taken { _permits: [take(container)?, take(namespace)?, take(node)?] })
    }

    /// How many the container itself may have still.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        let [container, ..] = &self.0;
        container.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
