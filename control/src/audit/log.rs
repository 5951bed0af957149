//! The thread that writes the audit log: takes what waits, writes it at once, and then lets those who wait go on.
//!
//! What must stay true: only this thread writes the file; whoever hands it an event knows afterwards whether the event is in the
//! file, so that no request is answered whose event got lost unseen.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::rotation::{Limits, Rotating};

/// Events that wait for the writer; who has another one waits with it.
const QUEUE: usize = 256;
/// Where events go that go to standard output.
const STDOUT: &str = "-";

/// Why an event is not in the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error("the audit log cannot be written")]
    Write(#[source] Arc<io::Error>),
    #[error("the audit log is closed")]
    Closed,
}

enum Request {
    /// A line with its end.
    Write { line: Vec<u8>, done: oneshot::Sender<Result<(), LogError>> },
    /// Answered when everything that came before is on disk; the last thing that is done.
    Close { done: oneshot::Sender<()> },
}

/// The way to the writer thread.
#[derive(Debug)]
pub(super) struct Log {
    queue: mpsc::Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the file (`-`: standard output) and starts the thread. Blocks.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        let sink = if path == Path::new(STDOUT) { Sink::Stdout } else { Sink::File(Rotating::open(path, limits)?) };
        let (queue, requests) = mpsc::channel(QUEUE);
        let writer = Writer { sink, requests, failing: false };
        let thread = std::thread::Builder::new().name("wherry-audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Returns when the line is in the file, or cannot be.
    pub(super) async fn write(&self, line: Vec<u8>) -> Result<(), LogError> {
        let (done, written) = oneshot::channel();
        self.queue.send(Request::Write { line, done }).await.map_err(|_| LogError::Closed)?;
        written.await.unwrap_or(Err(LogError::Closed))
    }

    /// Ends the thread after what waits for it.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Request::Close { done }).await.is_ok() {
            let _ = closed.await;
        }
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

enum Sink {
    File(Rotating),
    Stdout,
}

struct Writer {
    sink: Sink,
    requests: mpsc::Receiver<Request>,
    /// The last write failed: that is told once, and a line that was cut off is ended first.
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < QUEUE
                && let Ok(next) = self.requests.try_recv()
            {
                batch.push(next);
            }
            if let Some(done) = self.serve(batch) {
                self.requests.close();
                let _ = done.send(());
                return;
            }
        }
    }

    /// Writes a batch; whom to tell, if it ends with the log's end.
    fn serve(&mut self, batch: Vec<Request>) -> Option<oneshot::Sender<()>> {
        let (mut lines, mut waiting) = (Vec::new(), Vec::new());
        for request in batch {
            match request {
                Request::Write { line, done } => {
                    if self.is_full(lines.len(), line.len()) {
                        self.put(&mut lines, &mut waiting);
                        self.rotate();
                    }
                    lines.extend_from_slice(&line);
                    waiting.push(done);
                }
                Request::Close { done } => {
                    self.put(&mut lines, &mut waiting);
                    if let Sink::File(file) = &self.sink
                        && let Err(error) = file.sync()
                    {
                        tracing::error!(%error, "the audit log could not be brought to disk");
                    }
                    return Some(done);
                }
            }
        }
        self.put(&mut lines, &mut waiting);
        None
    }

    fn is_full(&self, pending: usize, more: usize) -> bool {
        matches!(&self.sink, Sink::File(file) if file.is_full(pending, more))
    }

    /// A file that cannot be renamed goes on growing: better than losing events.
    fn rotate(&mut self) {
        if let Sink::File(file) = &mut self.sink
            && let Err(error) = file.rotate()
        {
            tracing::error!(%error, "the audit log could not be rotated");
        }
    }

    /// Writes lines and tells who waits for them.
    fn put(&mut self, lines: &mut Vec<u8>, waiting: &mut Vec<oneshot::Sender<Result<(), LogError>>>) {
        if waiting.is_empty() {
            return;
        }
        let result = self.append(lines).map_err(|error| LogError::Write(Arc::new(error)));
        if let Err(LogError::Write(error)) = &result
            && !self.failing
        {
            tracing::error!(%error, "the audit log cannot be written; events are lost until it can");
        }
        self.failing = result.is_err();
        lines.clear();
        for done in waiting.drain(..) {
            // Who does not wait any more has been cancelled.
            let _ = done.send(result.clone());
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Sink::File(file) => {
                if self.failing {
                    file.write(b"\n")?;
                }
                file.write(lines)
            }
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_event_that_is_acknowledged_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = Log::open(&path, Limits { size: 1 << 20, backups: 0, age: Duration::ZERO }).unwrap();
        let writes = (0..1000).map(|i| log.write(format!("{i}\n").into_bytes()));
        assert!(futures::future::join_all(writes).await.iter().all(Result::is_ok));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1000);
        log.close().await;
        assert!(matches!(log.write(b"late\n".to_vec()).await, Err(LogError::Closed)));
    }

    #[tokio::test]
    async fn a_write_that_fails_is_told_and_the_next_one_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let log = Log::open(&path, Limits { size: 1 << 20, backups: 0, age: Duration::ZERO }).unwrap();
        for _ in 0..2 {
            assert!(matches!(log.write(b"x\n".to_vec()).await, Err(LogError::Write(_))));
        }
        log.close().await;
    }
}
