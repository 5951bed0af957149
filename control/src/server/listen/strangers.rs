//! Connections that nobody has authenticated on yet. When there are no more places, the oldest of them gives way, so that
//! whoever opens connections and says nothing keeps nobody else out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Entries that may have ended before they are swept.
const SWEEP: usize = 8192;

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Stranger {
    /// Somebody has authenticated on it, or it has ended.
    settled: AtomicBool,
    close: CancellationToken,
}

impl Stranger {
    /// Somebody has authenticated on it.
    pub(super) fn known(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// It has ended; requests of it may still hold it.
    pub(super) fn left(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Returns when the connection is to give way.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<VecDeque<Weak<Stranger>>>);

impl Strangers {
    pub(super) fn meet(&self) -> Arc<Stranger> {
        let stranger = Arc::new(Stranger::default());
        let mut all = self.0.lock();
        if all.len() >= SWEEP {
            all.retain(|entry| entry.upgrade().is_some_and(|stranger| !stranger.is_settled()));
        }
        all.push_back(Arc::downgrade(&stranger));
        stranger
    }

    /// Closes the oldest connection that nobody has authenticated on; `false` if there is none.
    pub(super) fn close_oldest(&self) -> bool {
        let mut all = self.0.lock();
        while let Some(entry) = all.pop_front() {
            if let Some(stranger) = entry.upgrade()
                && !stranger.is_settled()
            {
                stranger.close.cancel();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_still_a_stranger_gives_way() {
        let strangers = Strangers::default();
        let [first, second, third, fourth] = std::array::from_fn(|_| strangers.meet());
        first.known();
        drop(second);
        fourth.left();
        assert!(strangers.close_oldest());
        assert!(third.close.is_cancelled() && !first.close.is_cancelled());
        assert!(!strangers.close_oldest());
    }
}
