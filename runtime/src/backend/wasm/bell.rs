//! A signal that is given once and awaited by many, each of which is polled far more often than the signal comes: a look
//! costs a poll one read, and no lock that all of them share.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// Rings once, and from then on.
#[derive(Clone, Debug, Default)]
pub(super) struct Bell(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rung: AtomicBool,
    listeners: Mutex<Listeners>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u64,
    wakers: HashMap<u64, Arc<AtomicWaker>>,
}

impl Bell {
    pub(super) fn ring(&self) {
        let listeners = {
            let mut listeners = self.0.listeners.lock();
            self.0.rung.store(true, Ordering::Release);
            std::mem::take(&mut listeners.wakers)
        };
        for waker in listeners.into_values() {
            waker.wake();
        }
    }

    pub(super) fn has_rung(&self) -> bool {
        self.0.rung.load(Ordering::Acquire)
    }

    /// Waits for it.
    pub(super) fn heard(&self) -> Heard {
        let waker = Arc::new(AtomicWaker::new());
        let mut listeners = self.0.listeners.lock();
        let id = listeners.next;
        listeners.next += 1;
        // Whoever comes after it looks at `rung`.
        if !self.has_rung() {
            listeners.wakers.insert(id, Arc::clone(&waker));
        }
        drop(listeners);
        Heard { bell: self.clone(), id, waker, registered: None }
    }

    /// Runs `task` to its end, or drops it when the bell rings: `None`. What it can still do at once it does.
    pub(super) fn until<F: Future>(&self, task: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let mut heard = self.heard();
        async move {
            if heard.bell.has_rung() {
                return None;
            }
            let mut task = pin!(task);
            poll_fn(|cx| match task.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending => Pin::new(&mut heard).poll(cx).map(|()| None),
            })
            .await
        }
    }
}

/// Ready when the bell has rung.
#[derive(Debug)]
pub(super) struct Heard {
    bell: Bell,
    id: u64,
    waker: Arc<AtomicWaker>,
    /// What is in `waker` until the bell rings.
    registered: Option<Waker>,
}

impl Future for Heard {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.bell.has_rung() {
            return Poll::Ready(());
        }
        if self.registered.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.waker.register(cx.waker());
        self.registered = Some(cx.waker().clone());
        // It may have rung before there was a waker to wake.
        if self.bell.has_rung() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.bell.0.listeners.lock().wakers.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::super::worker::Count;
    use super::*;

    #[tokio::test]
    async fn all_who_wait_and_all_who_come_later_hear_it_once_it_rings() {
        let bell = Bell::default();
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(bell.until(std::future::pending::<()>()))).collect();
        tokio::task::yield_now().await;
        assert!(!bell.has_rung() && bell.heard().now_or_never().is_none());
        bell.ring();
        for one in waiting {
            assert!(one.await.unwrap().is_none());
        }
        bell.heard().await;
        assert!(bell.until(async { 1 }).await.is_none());
    }

    #[tokio::test]
    async fn a_task_does_what_it_can_when_the_bell_rings() {
        let bell = Bell::default();
        let (answer, asked) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(bell.until(asked));
        tokio::task::yield_now().await;
        answer.send(1).unwrap();
        bell.ring();
        assert_eq!(task.await.unwrap(), Some(Ok(1)));
    }

    #[test]
    fn who_waits_in_another_task_than_before_is_woken_there() {
        let bell = Bell::default();
        let mut heard = bell.heard();
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        for (count, polls) in counts.iter().zip([1, 2]) {
            let waker = futures::task::waker(Arc::clone(count));
            for _ in 0..polls {
                assert!(Pin::new(&mut heard).poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        bell.ring();
        assert_eq!(counts.map(|count| count.0.load(Ordering::SeqCst)), [0, 1]);
    }

    #[tokio::test]
    async fn a_task_that_ends_before_is_not_kept() {
        let bell = Bell::default();
        assert_eq!(bell.until(async { 1 }).await, Some(1));
        assert!(bell.0.listeners.lock().wakers.is_empty());
    }
}
