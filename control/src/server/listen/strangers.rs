//! Connections that nobody has authenticated on yet. When there are no more places, the oldest of them gives way, so that
//! whoever opens connections and says nothing keeps nobody else out.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Entries that may have ended before they are swept.
const SWEEP: usize = 8192;

/// What is known of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Stranger,
    /// Somebody has authenticated on it.
    Known,
    /// It has ended, or has been told to.
    Gone,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Stranger {
    state: Mutex<State>,
    close: CancellationToken,
}

impl Stranger {
    /// Somebody has authenticated on it. Returns whether that was in time: it gives way to nobody then.
    pub(super) fn known(&self) -> bool {
        let mut state = self.state.lock();
        if *state == State::Stranger {
            *state = State::Known;
        }
        *state == State::Known
    }

    /// Tells it to go, unless it is known or gone.
    fn give_way(&self) -> bool {
        let mut state = self.state.lock();
        let goes = *state == State::Stranger;
        if goes {
            *state = State::Gone;
            self.close.cancel();
        }
        goes
    }

    fn is_stranger(&self) -> bool {
        *self.state.lock() == State::Stranger
    }

    /// Returns when the connection is to give way.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }
}

/// A connection that is open: with this it has ended, also if its task panics. Requests of it may still hold the [`Stranger`].
#[derive(Debug)]
pub(super) struct Open(Arc<Stranger>);

impl Open {
    pub(super) fn stranger(&self) -> &Arc<Stranger> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        *self.0.state.lock() = State::Gone;
    }
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<VecDeque<Weak<Stranger>>>);

impl Strangers {
    pub(super) fn meet(&self) -> Open {
        let stranger = Arc::new(Stranger::default());
        let mut all = self.0.lock();
        if all.len() >= SWEEP {
            all.retain(|entry| entry.upgrade().is_some_and(|stranger| stranger.is_stranger()));
        }
        all.push_back(Arc::downgrade(&stranger));
        Open(stranger)
    }

    /// Closes the oldest connection that nobody has authenticated on; `false` if there is none.
    pub(super) fn close_oldest(&self) -> bool {
        let mut all = self.0.lock();
        while let Some(entry) = all.pop_front() {
            if entry.upgrade().is_some_and(|stranger| stranger.give_way()) {
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
        let [first, second, third] = std::array::from_fn(|_| strangers.meet());
        assert!(first.0.known());
        drop(second);
        assert!(strangers.close_oldest());
        assert!(third.0.close.is_cancelled() && !first.0.close.is_cancelled());
        assert!(!strangers.close_oldest());
        assert!(first.0.known() && !third.0.known());
    }

    #[test]
    fn a_connection_whose_task_panics_has_ended_though_requests_hold_it() {
        let strangers = Strangers::default();
        let open = strangers.meet();
        let held = Arc::clone(open.stranger());
        let task = std::thread::spawn(move || {
            let _open = open;
            std::panic::resume_unwind(Box::new("as a task that fails"));
        });
        assert!(task.join().is_err());
        assert!(!strangers.close_oldest() && !held.close.is_cancelled(), "there is nobody who could give way");
    }

    #[test]
    fn a_connection_that_is_known_in_time_stays() {
        for _ in 0..2_000 {
            let strangers = Strangers::default();
            let open = strangers.meet();
            let barrier = std::sync::Barrier::new(2);
            let stays = std::thread::scope(|scope| {
                let known = scope.spawn(|| {
                    barrier.wait();
                    open.stranger().known()
                });
                barrier.wait();
                strangers.close_oldest();
                known.join().unwrap()
            });
            assert_eq!(stays, !open.stranger().close.is_cancelled());
        }
    }
}
