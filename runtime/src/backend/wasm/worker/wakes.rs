//! Whether a task that is being polled was woken meanwhile, and so has more to do at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures::task::AtomicWaker;

/// Stands between what a task waits for and the task: a wake-up while the task is polled is kept for its end.
#[derive(Default)]
pub(super) struct Wakes {
    woken: AtomicBool,
    polled: AtomicBool,
    task: AtomicWaker,
}

impl Wakes {
    /// The waker for what the task polls.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// The task is polled from here on.
    pub(super) fn begin(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
        self.polled.store(true, Ordering::SeqCst);
    }

    /// Whether there was a wake-up since the last look.
    pub(super) fn take(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// The task's poll ends; it is polled again if there was a wake-up that nobody looked at.
    pub(super) fn end(&self) {
        self.polled.store(false, Ordering::SeqCst);
        if self.take() {
            self.task.wake();
        }
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.polled.load(Ordering::SeqCst) && self.take() {
            self.task.wake();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use futures::task::ArcWake;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often a task was woken.
    #[derive(Default)]
    pub(in crate::backend::wasm) struct Count(pub(in crate::backend::wasm) AtomicUsize);

    impl ArcWake for Count {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_up_within_a_poll_is_seen_there_or_wakes_the_task_at_its_end() {
        let (count, wakes) = (Arc::new(Count::default()), Arc::new(Wakes::default()));
        let (task, inner) = (futures::task::waker(Arc::clone(&count)), wakes.waker());
        wakes.begin(&Context::from_waker(&task));
        inner.wake_by_ref();
        assert!(wakes.take() && !wakes.take());
        inner.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        wakes.end();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        wakes.begin(&Context::from_waker(&task));
        wakes.end();
        inner.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }
}
