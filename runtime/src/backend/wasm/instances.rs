//! How many instances of servers there are on the node at once. A namespace has half of them, so that none keeps all others from
//! an answer, whatever the annotations of its pods say.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::shares::Shares;

/// A namespace has one of so many of the node's.
const OF_ALL: usize = 2;

/// The node's.
#[derive(Debug)]
pub(super) struct Instances {
    count: usize,
    all: Arc<Semaphore>,
    namespaces: Shares,
}

impl Instances {
    pub(super) fn new(count: usize) -> Self {
        Self { count, all: Arc::new(Semaphore::new(count)), namespaces: Shares::default() }
    }

    pub(super) fn share(&self, namespace: &str) -> Share {
        let most = (self.count / OF_ALL).max(1);
        Share { most, left: [self.namespaces.of(namespace, most), Arc::clone(&self.all)] }
    }
}

/// A namespace's, among the node's.
#[derive(Debug)]
pub(super) struct Share {
    /// As many as the namespace may have.
    pub(super) most: usize,
    left: [Arc<Semaphore>; 2],
}

/// Room for one instance.
#[derive(Debug)]
pub(super) struct Held<'a> {
    _permits: [SemaphorePermit<'a>; 2],
}

impl Share {
    /// Waits for room for one more.
    pub(super) async fn place(&self) -> Option<Held<'_>> {
        let [namespace, node] = &self.left;
        let of_namespace = namespace.acquire().await.ok()?;
        Some(Held { _permits: [of_namespace, node.acquire().await.ok()?] })
    }

    /// Whether somebody may wait for room.
    pub(super) fn is_taken(&self) -> bool {
        self.left.iter().any(|left| left.available_permits() == 0)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_namespace_has_half_of_the_instances_and_leaves_the_rest_to_others() {
        let instances = Instances::new(4);
        let [one, same, other, last] = ["a", "a", "b", "c"].map(|namespace| instances.share(namespace));
        assert_eq!(one.most, 2);
        let take = |shares: [&Share; 2]| shares.map(|share| share.place().now_or_never().flatten().is_some());
        let held = [&one, &same].map(|share| share.place().now_or_never().unwrap().unwrap());
        assert!(one.is_taken() && !other.is_taken());
        assert_eq!(take([&one, &same]), [false; 2]);
        let others = [&other, &other].map(|share| share.place().now_or_never().unwrap().unwrap());
        assert!(last.is_taken(), "there are no more");
        assert_eq!(take([&last, &last]), [false; 2]);
        drop((held, others));
        assert!(!one.is_taken());
        assert_eq!(take([&one, &last]), [true; 2]);
    }
}
