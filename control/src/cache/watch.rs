//! A watch as a stream: what has happened already, then what happens, with progress between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::watchers::Subscription;
use super::{CacheError, Event, Events, Inner};
use crate::store::Revision;

/// How a watch tells its progress and when it ends.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// How often [`Event::Progress`] is sent.
    pub progress_interval: Duration,
    /// When the watch ends, after a last progress event (`timeoutSeconds`).
    pub until: Option<Instant>,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { progress_interval: Duration::from_mins(1), until: None }
    }
}

struct Watch {
    inner: Arc<Inner>,
    subscription: Subscription,
    ready: std::vec::IntoIter<Event>,
    /// The revision of what was sent last.
    sent: Revision,
    /// A progress to tell once the queue is empty.
    due: Option<Revision>,
    ending: bool,
    ticks: Interval,
    until: Option<Instant>,
}

pub(super) fn stream(
    inner: Arc<Inner>,
    subscription: Subscription,
    start: Revision,
    ready: Vec<Event>,
    options: WatchOptions,
) -> Events {
    // An interval of zero is not one.
    let period = options.progress_interval.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ready = ready.into_iter();
    let watch =
        Watch { inner, subscription, ready, sent: start, due: None, ending: false, ticks, until: options.until };
    stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Some(Ok(event)) => Some((Ok(event), Some(watch))),
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    })
    .boxed()
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Event, CacheError>> {
        if let Some(event) = self.ready.next() {
            return Some(Ok(event));
        }
        loop {
            if let Some(revision) = self.due {
                match self.subscription.events.try_recv() {
                    Ok(event) => return Some(Ok(self.note(event))),
                    Err(TryRecvError::Disconnected) => return self.end(),
                    // An event after that revision has told more already.
                    Err(TryRecvError::Empty) => self.due = None,
                }
                if revision >= self.sent {
                    self.sent = revision;
                    return Some(Ok(Event::Progress(revision)));
                }
            }
            if self.ending {
                return None;
            }
            tokio::select! {
                biased;
                () = wait_until(self.until) => {
                    self.ending = true;
                    self.ask_progress();
                }
                event = self.subscription.events.recv() => match event {
                    Some(event) => return Some(Ok(self.note(event))),
                    None => return self.end(),
                },
                _ = self.ticks.tick() => self.ask_progress(),
            }
        }
    }

    /// Everything up to the revision that is due is in the queue now, if it is for this watch.
    fn ask_progress(&mut self) {
        self.due = Some(self.inner.delivered.load(Ordering::Acquire));
    }

    fn note(&mut self, event: Event) -> Event {
        self.sent = event.revision();
        if self.due.is_some_and(|due| due < self.sent) {
            self.due = None;
        }
        event
    }

    fn end(&self) -> Option<Result<Event, CacheError>> {
        self.subscription.was_slow().then_some(Err(CacheError::TooSlow))
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
