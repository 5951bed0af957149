//! What becomes of a request: who asked tells its instance here when nobody needs its work any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Context;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// What becomes of a request; the worker learns from it when nobody needs its work any more.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    stage: AtomicU8,
    /// What its instance is woken for.
    wakes_for: AtomicU8,
    waker: AtomicWaker,
}

const ALIVE: u8 = 0;
const DELIVERED: u8 = 1;
const ABANDONED: u8 = 2;

/// Of [`Ticket::wakes_for`]: of a delivery the instance learns when it looks the next time.
const GIVING_UP: u8 = 1;
const ANY_END: u8 = 2;

impl Ticket {
    /// Whether somebody still waits for its answer.
    pub(super) fn is_alive(&self) -> bool {
        self.stage.load(Ordering::Acquire) == ALIVE
    }

    fn settle(&self, stage: u8) {
        self.stage.store(stage, Ordering::SeqCst);
        if stage == ABANDONED || self.wakes_for.load(Ordering::SeqCst) == ANY_END {
            self.waker.wake();
        }
    }

    /// The stage; wakes the task when it changes. `awaited`: also for the delivery. The instance that took the request has
    /// one waker as long as it lives, which is registered once.
    fn poll(&self, cx: &Context<'_>, awaited: bool) -> u8 {
        let stage = self.stage.load(Ordering::Acquire);
        let wakes_for = if awaited { ANY_END } else { GIVING_UP };
        if stage != ALIVE || self.wakes_for.load(Ordering::Relaxed) == wakes_for {
            return stage;
        }
        self.waker.register(cx.waker());
        self.wakes_for.store(wakes_for, Ordering::SeqCst);
        self.stage.load(Ordering::SeqCst)
    }
}

/// Held by who wants the response; dropping it without [`Wanted::delivered`] gives up.
#[derive(Debug)]
pub(in super::super) struct Wanted(Option<Arc<Ticket>>);

impl Wanted {
    pub(super) fn new(ticket: Arc<Ticket>) -> Self {
        Self(Some(ticket))
    }

    pub(in super::super) fn delivered(mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.settle(DELIVERED);
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            ticket.settle(ABANDONED);
        }
    }
}

/// The requests that an instance took, until they are settled.
#[derive(Debug, Default)]
pub(super) struct Tickets(Mutex<Vec<Arc<Ticket>>>);

/// What became of an instance's requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Polled {
    pub(super) before: usize,
    pub(super) left: usize,
    /// Somebody gave up.
    pub(super) abandoned: bool,
}

impl Tickets {
    pub(super) fn add(&self, ticket: Arc<Ticket>) {
        self.0.lock().push(ticket);
    }

    /// Forgets what is settled; wakes the task when somebody gives up, and for the next delivery if that is `awaited` or
    /// somebody gave up already.
    pub(super) fn poll(&self, cx: &Context<'_>, awaited: bool) -> Polled {
        let mut tickets = self.0.lock();
        let (before, mut abandoned) = (tickets.len(), false);
        let mut forget = |awaited| {
            tickets.retain(|ticket| {
                let stage = ticket.poll(cx, awaited);
                abandoned |= stage == ABANDONED;
                stage == ALIVE
            });
            abandoned
        };
        if forget(awaited) && !awaited {
            forget(true);
        }
        Polled { before, left: tickets.len(), abandoned }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wakes::tests::Count;
    use super::*;

    #[test]
    fn once_somebody_gave_up_the_next_delivery_wakes_the_instance() {
        let (tickets, count) = (Tickets::default(), Arc::new(Count::default()));
        let waker = futures::task::waker(Arc::clone(&count));
        let woken = || count.0.load(Ordering::SeqCst);
        let cx = &Context::from_waker(&waker);
        let wanted: Vec<Wanted> = std::iter::repeat_with(|| {
            let ticket = Arc::new(Ticket::default());
            tickets.add(Arc::clone(&ticket));
            Wanted::new(ticket)
        })
        .take(3)
        .collect();
        let [first, second, third] = <[Wanted; 3]>::try_from(wanted).unwrap();
        assert_eq!(tickets.poll(cx, false), Polled { before: 3, left: 3, abandoned: false });
        first.delivered();
        assert_eq!(woken(), 0);
        drop(second);
        assert_eq!(woken(), 1);
        assert_eq!(tickets.poll(cx, false), Polled { before: 3, left: 1, abandoned: true });
        third.delivered();
        assert_eq!(woken(), 2);
        assert_eq!(tickets.poll(cx, true), Polled { before: 1, left: 0, abandoned: false });
    }
}
