//! Work on megabytes (reading a body, defaulting and judging what it says, a table of a long list): done by few at a time,
//! and never by the threads on which everybody else's requests are served.
//!
//! What must stay true: work on little is done at once, without waiting for anybody.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// Bytes from which work counts as heavy: a few milliseconds' worth.
const FROM: usize = 256 * 1024;

/// Those who may work on much at once. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Heavy(Arc<Semaphore>);

impl Heavy {
    /// Half of the processors: the others answer.
    pub(crate) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((processors / 2).max(1))))
    }

    /// Does work on about this many bytes.
    pub(crate) async fn run<T>(&self, bytes: usize, work: impl FnOnce() -> T + Send) -> T {
        if bytes < FROM {
            return work();
        }
        // The semaphore is never closed.
        let _place = self.0.acquire().await;
        // The runtime gives what this thread was serving to another one. One that has a single thread cannot.
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
            _ => work(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn heavy_work_is_bounded_and_leaves_the_only_thread_to_others() {
        let heavy = Heavy::new();
        let most = heavy.0.available_permits();
        let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(parking_lot::Mutex::new(wait));
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
                    heavy.run(FROM, work).await;
                })
            })
            .collect();
        // Whoever has little to do is served while all places are taken.
        while running.load(Ordering::SeqCst) < most {
            tokio::task::yield_now().await;
        }
        assert_eq!(tokio::spawn(async move { heavy.run(1, || 7).await }).await.unwrap(), 7);
        for _ in &tasks {
            release.send(()).unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(peak.load(Ordering::SeqCst), most);
    }
}
