//! Writes container logs: one thread for the whole node, a bounded buffer for each container that has something to say.
//!
//! A guest's write formats its lines into the container's buffer and returns; it waits only when [`BUFFER`] bytes wait for
//! the disk. The thread takes containers in turn, so that one that floods its log delays the others by one buffer.
//! Files are opened for each batch and closed after it: no descriptor belongs to a container.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::format;
use crate::backend::{LogSink, Stream};

/// Formatted bytes of one container that wait for the disk before its guest waits.
const BUFFER: usize = 64 * 1024;

/// Beyond so many, what a guest writes is not even taken: its container may have hundreds of instances, each with something to say.
const MOST: usize = 1 << 20;

/// The writing thread's priority: a flood of lines gives way to whoever answers requests, and its guest waits for it.
const NICE: i32 = 10;

/// When a log file is rotated, and how many files an instance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub bytes: u64,
    pub files: u32,
}

impl Default for Limits {
    /// The kubelet's.
    fn default() -> Self {
        Self { bytes: 10 * 1024 * 1024, files: 5 }
    }
}

/// The node's writing thread.
#[derive(Debug)]
pub struct Writer {
    limits: Limits,
    shared: Arc<Queue>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Logs with something to write, each at most once.
    dirty: Mutex<(VecDeque<Arc<ContainerLog>>, bool)>,
    wake: Condvar,
}

impl Writer {
    pub fn start(limits: Limits) -> io::Result<Self> {
        let shared = Arc::new(Queue::default());
        let queue = shared.clone();
        let thread = std::thread::Builder::new().name("logs".to_owned()).spawn(move || queue.run(limits))?;
        Ok(Self { limits, shared, thread: Some(thread) })
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn push(&self, log: Arc<ContainerLog>) {
        self.shared.dirty.lock().0.push_back(log);
        self.shared.wake.notify_one();
    }
}

impl Drop for Writer {
    /// Writes what waits, then ends the thread.
    fn drop(&mut self) {
        self.shared.dirty.lock().1 = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            // The last reference may be held by the thread itself.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the log thread panicked");
        }
    }
}

impl Queue {
    fn run(&self, limits: Limits) {
        // On Linux a priority belongs to the thread, not the process.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the log writer keeps the priority of the process");
        }
        loop {
            let log = {
                let mut dirty = self.dirty.lock();
                loop {
                    if let Some(log) = dirty.0.pop_front() {
                        break log;
                    }
                    if dirty.1 {
                        return;
                    }
                    self.wake.wait(&mut dirty);
                }
            };
            if log.flush(limits) {
                self.dirty.lock().0.push_back(log);
            }
        }
    }
}

/// The log of one instance of a container.
#[derive(Debug)]
pub struct ContainerLog {
    pub(super) path: PathBuf,
    attempt: u32,
    writer: Arc<Writer>,
    /// Itself, to stand in the writer's queue.
    me: Weak<Self>,
    state: Mutex<State>,
    /// There is room again, or everything is on disk.
    drained: Notify,
    /// Something was written or the log was closed: for those who follow it.
    pub(super) written: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Formatted records that wait for the disk.
    pending: Vec<u8>,
    /// Lines without an end yet, by stream.
    partial: [Vec<u8>; 2],
    /// The writer has it in its queue or in hand.
    queued: bool,
    closed: bool,
    /// Bytes of the current file; `None` until it was looked at.
    size: Option<u64>,
    /// The disk failed: said once, until it works again.
    failed: bool,
}

impl ContainerLog {
    pub(super) fn new(path: PathBuf, attempt: u32, writer: Arc<Writer>) -> Arc<Self> {
        let (drained, written) = (Notify::new(), Notify::new());
        Arc::new_cyclic(|me| Self { path, attempt, writer, me: me.clone(), state: Mutex::default(), drained, written })
    }

    /// Makes the file of a restart, also if nothing is ever written to it; returns when it is there. Nothing waits for the disk:
    /// the file is to outlive the process, and who loses the machine's memory has lost more.
    pub async fn create(&self) {
        if self.attempt > 0 {
            self.push(&mut self.state.lock());
            self.flushed().await;
        }
    }

    /// Writes what has no line end yet; returns when all is on disk.
    pub async fn close(&self) {
        {
            let mut state = self.state.lock();
            let stamp = format::stamp(Timestamp::now());
            for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
                let line = state.partial.get_mut(index).map(std::mem::take).unwrap_or_default();
                if !line.is_empty() {
                    format::push(&mut state.pending, &stamp, stream, false, &line);
                }
            }
            self.enqueue(&mut state);
        }
        self.flushed().await;
        self.state.lock().closed = true;
        self.written.notify_waiters();
    }

    /// Whether its container ended and all is on disk.
    pub fn closed(&self) -> bool {
        self.state.lock().closed
    }

    fn enqueue(&self, state: &mut State) {
        if !state.pending.is_empty() {
            self.push(state);
        }
    }

    fn push(&self, state: &mut State) {
        if !state.queued
            && let Some(me) = self.me.upgrade()
        {
            state.queued = true;
            self.writer.push(me);
        }
    }

    /// Waits until all is on disk.
    async fn flushed(&self) {
        self.once(|state| state.pending.is_empty() && !state.queued).await;
    }

    /// Waits until `done` says so.
    async fn once(&self, mut done: impl FnMut(&mut State) -> bool) {
        loop {
            let drained = self.drained.notified();
            if done(&mut self.state.lock()) {
                return;
            }
            drained.await;
        }
    }

    /// Called by the writing thread: writes one batch. `true`: there is more.
    fn flush(&self, limits: Limits) -> bool {
        let (batch, size) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.pending), state.size)
        };
        let result = append(&self.path, self.attempt, &batch, size, limits);
        let mut state = self.state.lock();
        match result {
            Ok(size) => {
                state.size = Some(size);
                state.failed = false;
            }
            Err(error) => {
                state.size = None;
                if !std::mem::replace(&mut state.failed, true) {
                    tracing::error!(path = %self.path.display(), %error, "a container's log cannot be written; lines are lost");
                }
            }
        }
        state.queued = !state.pending.is_empty();
        let more = state.queued;
        drop(state);
        self.drained.notify_waiters();
        self.written.notify_waiters();
        more
    }
}

#[async_trait]
impl LogSink for ContainerLog {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        for chunk in bytes.chunks(BUFFER / 2) {
            self.once(|state| {
                let room = state.pending.len() < MOST;
                if room {
                    state.take(stream, chunk);
                    self.enqueue(state);
                }
                room
            })
            .await;
            self.once(|state| state.pending.len() <= BUFFER).await;
        }
    }

    async fn line(&self, stream: Stream, text: &str) {
        let own = self.state.lock().within_line(stream);
        let text = format!("{}{}\n", if own { "\n" } else { "" }, text.trim_end());
        self.write(stream, Bytes::from(text)).await;
    }
}

impl State {
    /// Whether a line was begun and not ended.
    fn within_line(&self, stream: Stream) -> bool {
        let [stdout, stderr] = &self.partial;
        match stream {
            Stream::Stdout => !stdout.is_empty(),
            Stream::Stderr => !stderr.is_empty(),
        }
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let stamp = format::stamp(Timestamp::now());
        let Self { pending, partial: [stdout, stderr], .. } = self;
        let partial = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while partial.len() + text.len() > format::LONGEST {
                let (head, tail) = text.split_at(format::LONGEST - partial.len());
                partial.extend_from_slice(head);
                format::push(pending, &stamp, stream, false, partial);
                partial.clear();
                text = tail;
            }
            if ends && partial.is_empty() {
                format::push(pending, &stamp, stream, true, text);
            } else {
                partial.extend_from_slice(text);
                if ends {
                    format::push(pending, &stamp, stream, true, partial);
                    // A silent container keeps no buffer.
                    *partial = Vec::new();
                }
            }
        }
    }
}

/// Appends a batch of whole records, rotating before it if the file is full; returns the file's size then.
fn append(path: &Path, attempt: u32, batch: &[u8], size: Option<u64>, limits: Limits) -> io::Result<u64> {
    let size = match size {
        Some(size) => size,
        None => begin(path, attempt)?,
    };
    let mut size = size;
    if size > 0 && size + batch.len() as u64 > limits.bytes {
        rotate(path, limits.files)?;
        size = 0;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(batch)?;
    Ok(size + batch.len() as u64)
}

/// Looks at the file of an instance for the first time: makes its folder, keeps one earlier instance, and closes a line
/// that a killed process left open.
fn begin(path: &Path, attempt: u32) -> io::Result<u64> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir)?;
    remove_older(dir, attempt)?;
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    if size > 0 && last_byte(&mut file)? != b'\n' {
        file.write_all(b"\n")?;
        return Ok(size + 1);
    }
    Ok(size)
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Removes the logs of instances before the one before `attempt`.
fn remove_older(dir: &Path, attempt: u32) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if self::attempt(&path).is_some_and(|number| number < attempt.saturating_sub(1)) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The number of the instance that a file is of, if it is a log.
pub(super) fn attempt(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split_once(".log")?.0.parse().ok()
}

/// The name of a rotated file; 0 is the current one.
pub(super) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn rotate(path: &Path, files: u32) -> io::Result<()> {
    let last = files.max(2) - 1;
    for number in (0..last).rev() {
        match fs::rename(rotated(path, number), rotated(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_waits_for_the_disk_is_bounded_however_many_write_at_once() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody writes but the test.
        let writer = Arc::new(Writer { limits: Limits::default(), shared: Arc::default(), thread: None });
        let log = ContainerLog::new(folder.path().join("a").join("0.log"), 0, writer);
        let chunk = Bytes::from("\n".repeat(BUFFER / 2));
        let mut writes: Vec<_> = (0..10).map(|_| log.write(Stream::Stdout, chunk.clone())).collect();
        while !writes.is_empty() {
            writes.retain_mut(|write| write.now_or_never().is_none());
            let lines = log.state.lock().pending.split(|byte| *byte == b'\n').count();
            assert!(lines <= BUFFER / 2 + 1, "{lines} lines wait");
            log.flush(Limits::default());
        }
    }
}
