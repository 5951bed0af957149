//! The guests' own runtime: worker threads that poll nothing but guests and their connections, so that a busy guest cannot
//! delay the API, the store or heartbeats.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Worker threads for guests. Dropping it stops them without waiting: containers are stopped by their owners before.
#[derive(Debug)]
pub struct GuestRuntime {
    runtime: Option<Runtime>,
    handle: Handle,
    threads: usize,
}

impl GuestRuntime {
    /// `threads`: how many guests compute at once; at least one.
    pub fn new(threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("wasm-guest")
            // Look for new connections often: a tick of a computing guest lasts a millisecond.
            .event_interval(13)
            // Bounds what guests' file access may occupy.
            .max_blocking_threads(8)
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle, threads })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How many threads poll guests.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Drop for GuestRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
