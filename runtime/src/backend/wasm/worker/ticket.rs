//! What becomes of a request: who asked tells its instance here when nobody needs its work any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Context;

use futures::task::AtomicWaker;

/// What becomes of a request; the worker learns from it when nobody needs its work any more.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    stage: AtomicU8,
    /// Its instance waits for the delivery; otherwise it learns of it when it looks the next time.
    awaited: AtomicBool,
    waker: AtomicWaker,
}

pub(super) const ALIVE: u8 = 0;
const DELIVERED: u8 = 1;
pub(super) const ABANDONED: u8 = 2;

impl Ticket {
    /// Whether somebody still waits for its answer.
    pub(super) fn is_alive(&self) -> bool {
        self.stage.load(Ordering::Acquire) == ALIVE
    }

    fn settle(&self, stage: u8) {
        self.stage.store(stage, Ordering::SeqCst);
        if stage == ABANDONED || self.awaited.load(Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// The stage; wakes the task when it changes. `awaited`: also for the delivery.
    pub(super) fn poll(&self, cx: &Context<'_>, awaited: bool) -> u8 {
        let stage = self.stage.load(Ordering::Acquire);
        if stage != ALIVE {
            return stage;
        }
        self.waker.register(cx.waker());
        self.awaited.store(awaited, Ordering::SeqCst);
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
