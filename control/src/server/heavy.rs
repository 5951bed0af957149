//! Work on megabytes (reading a body, defaulting and judging what it says, a table of a long list): done by few at a time,
//! and never by the threads on which everybody else's requests are served.
//!
//! What must stay true: work on little is done at once, without waiting for anybody; those who wait for a place take turns, so
//! that one with hundreds of large requests delays its own; whoever leaves takes no turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::listen::owner;

/// Bytes from which work counts as heavy: a few milliseconds' worth.
const FROM: usize = 256 * 1024;

/// Those who may work on much at once. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Heavy(Arc<Mutex<Turns>>);

#[derive(Debug)]
struct Turns {
    /// Places that nobody has; none while somebody waits.
    free: usize,
    /// Those who wait, by their users: the first one's first is next, and then its user comes last.
    users: VecDeque<(Box<str>, VecDeque<oneshot::Sender<Place>>)>,
}

impl Turns {
    fn come(&mut self, user: &str, waits: oneshot::Sender<Place>) {
        match self.users.iter_mut().find(|(name, _)| **name == *user) {
            Some((_, queue)) => queue.push_back(waits),
            None => self.users.push_back((user.into(), [waits].into())),
        }
    }

    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        while let Some((user, mut queue)) = self.users.pop_front() {
            queue.retain(|waits| !waits.is_closed());
            let next = queue.pop_front();
            if !queue.is_empty() {
                self.users.push_back((user, queue));
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

/// A place to work on much, which the next one gets when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Heavy);

impl Drop for Place {
    fn drop(&mut self) {
        let mut turns = self.0.0.lock();
        let next = turns.next();
        if next.is_none() {
            turns.free += 1;
        }
        drop(turns);
        if let Some(next) = next {
            // Who has left meanwhile drops it.
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

impl Heavy {
    /// Half of the processors: the others answer.
    pub(crate) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self::of((processors / 2).max(1))
    }

    fn of(places: usize) -> Self {
        Self(Arc::new(Mutex::new(Turns { free: places, users: VecDeque::new() })))
    }

    /// Does work of a user's on about this many bytes.
    pub(crate) async fn run<T>(&self, user: &str, bytes: usize, work: impl FnOnce() -> T + Send) -> T {
        if bytes < FROM {
            return work();
        }
        let _place = self.place(owner(user)).await;
        // The runtime gives what this thread was serving to another one. One that has a single thread cannot.
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
            _ => work(),
        }
    }

    /// Takes all places.
    #[cfg(test)]
    pub(crate) async fn busy(&self) -> Vec<Option<Place>> {
        let mut places = Vec::new();
        while self.0.lock().free > 0 {
            places.push(self.place("busy").await);
        }
        places
    }

    /// `None` cannot be: who waits is told.
    async fn place(&self, user: &str) -> Option<Place> {
        let waits = {
            let mut turns = self.0.lock();
            if let Some(left) = turns.free.checked_sub(1) {
                turns.free = left;
                return Some(Place(self.clone()));
            }
            let (told, waits) = oneshot::channel();
            turns.come(user, told);
            waits
        };
        waits.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn heavy_work_is_bounded_and_leaves_the_only_thread_to_others() {
        let heavy = Heavy::new();
        let most = heavy.0.lock().free;
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let tasks: Vec<_> = (0..most + 2)
            .map(|_| {
                let (heavy, running, peak, wait) = (heavy.clone(), running.clone(), peak.clone(), wait.clone());
                tokio::spawn(async move {
                    let work = || {
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        peak.fetch_max(now, Ordering::SeqCst);
                        let _ = wait.lock().recv_timeout(Duration::from_secs(10));
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    heavy.run("somebody", FROM, work).await;
                })
            })
            .collect();
        // Whoever has little to do is served while all places are taken.
        while running.load(Ordering::SeqCst) < most {
            tokio::task::yield_now().await;
        }
        assert_eq!(tokio::spawn(async move { heavy.run("somebody", 1, || 7).await }).await.unwrap(), 7);
        for _ in &tasks {
            release.send(()).unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(peak.load(Ordering::SeqCst), most);
    }

    #[tokio::test]
    async fn who_has_much_heavy_work_delays_its_own_and_not_that_of_others() {
        let heavy = Heavy::of(1);
        let mut busy = heavy.place("greedy").await;
        let mut waiting: Vec<_> = (0..100).map(|_| Some(Box::pin(heavy.place("greedy")))).collect();
        for one in waiting.iter_mut().flatten() {
            assert!(futures::poll!(one.as_mut()).is_pending());
        }
        let mut modest = Box::pin(heavy.place("modest"));
        assert!(futures::poll!(modest.as_mut()).is_pending());
        // The first of the greedy one's, which came before; one that has left takes no turn.
        waiting[0] = None;
        busy.take();
        let Poll::Ready(first) = futures::poll!(waiting[1].as_mut().unwrap().as_mut()) else { panic!("it is next") };
        assert!(futures::poll!(modest.as_mut()).is_pending());
        drop(first);
        let Poll::Ready(second) = futures::poll!(modest) else { panic!("the other one is next") };
        assert!(futures::poll!(waiting[2].as_mut().unwrap().as_mut()).is_pending());
        // Who leaves with a place gives it to the next, and the last to whoever comes.
        drop(second);
        waiting[2] = None;
        assert!(futures::poll!(waiting[3].as_mut().unwrap().as_mut()).is_ready());
        waiting.clear();
        assert!(heavy.0.lock().users.is_empty());
        assert_eq!(heavy.0.lock().free, 1);
    }
}
