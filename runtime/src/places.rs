//! Places at something that takes so many at once, and for a bounded number of those who wait for one: each of them has a
//! socket open, and the process has only so many.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A place, or one among those who wait for it.
#[derive(Debug)]
pub(crate) enum Ticket {
    Place(OwnedSemaphorePermit),
    Wait { places: Places, among: OwnedSemaphorePermit },
}

impl Places {
    pub(crate) fn new(places: usize, waiting: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), waiting: Arc::new(Semaphore::new(waiting)) }
    }

    /// `None`: there is no place, and as many wait as may.
    pub(crate) fn ask(&self) -> Option<Ticket> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(Ticket::Place(place));
        }
        let among = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        Some(Ticket::Wait { places: self.clone(), among })
    }

    /// Waits for a place, without being counted: for whoever has nothing open meanwhile.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

impl Ticket {
    /// The place, as soon as there is one.
    pub(crate) async fn place(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Place(place) => Some(place),
            Self::Wait { places, among } => {
                let place = places.place().await;
                drop(among);
                place
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn so_many_have_places_so_many_wait_and_no_more() {
        let places = Places::new(1, 1);
        let held = places.ask().unwrap().place().await.unwrap();
        let mut waits = Box::pin(places.ask().unwrap().place());
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(places.ask().is_none());
        drop(held);
        let held = waits.await.unwrap();
        let waits = places.ask().unwrap();
        assert!(places.ask().is_none());
        drop(waits);
        assert!(places.ask().is_some(), "who gives up waiting makes room for another");
        drop(held);
    }
}
