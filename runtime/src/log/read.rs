//! Reads a container's log back: the tail, since a time, with or without timestamps, following across rotations.
//!
//! A reader holds one open file. When the writer rotates, the file keeps its content under its new name; at its end the
//! reader goes on with the one that came after it, so no line is left out.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::format::{self, Record};
use super::writer::{ContainerLog, rotated};

/// Bytes read at once.
const BLOCK: usize = 64 * 1024;
/// Blocks on their way to a slow client.
const AHEAD: usize = 4;
/// Rotated files that are looked for.
const ROTATED: u32 = 64;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub follow: bool,
    pub tail: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

/// Streams the log at `path`; `live` is the one that is being written to it, if any.
pub fn stream(path: PathBuf, live: Option<Arc<ContainerLog>>, wanted: Wanted) -> impl Stream<Item = io::Result<Bytes>> {
    let (send, receive) = mpsc::channel(AHEAD);
    // Ends when it is done, or at its next send after the receiver is dropped.
    tokio::spawn(async move {
        let gone = send.clone();
        let read = read(path, live, wanted, &send);
        tokio::select! {
            result = read => if let Err(error) = result {
                // A client that went away needs no error.
                let _: Result<(), _> = send.send(Err(error)).await;
            },
            () = gone.closed() => {}
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receive)
}

/// The end of a log that is closed, as text: at most so many lines, and of these the last bytes.
pub async fn ending(log: &ContainerLog, lines: u64, bytes: usize) -> io::Result<String> {
    let mut end = Vec::new();
    let mut blocks = std::pin::pin!(stream(log.path.clone(), None, Wanted { tail: Some(lines), ..Wanted::default() }));
    while let Some(block) = blocks.next().await {
        end.extend_from_slice(&block?);
        end.drain(..end.len().saturating_sub(bytes));
    }
    Ok(String::from_utf8_lossy(&end).into_owned())
}

async fn read(
    path: PathBuf,
    live: Option<Arc<ContainerLog>>,
    wanted: Wanted,
    send: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut cursor = {
        let (path, tail) = (path.clone(), wanted.tail);
        blocking(move || Cursor::open(path, tail)).await?
    };
    let mut printer = Printer::new(&wanted);
    loop {
        let written = live.as_ref().map(|log| log.written.notified());
        let closed = live.as_ref().is_none_or(|log| log.closed());
        let (next, block) = blocking(move || {
            let block = cursor.next_block()?;
            Ok((cursor, block))
        })
        .await?;
        cursor = next;
        let Some(block) = block else {
            match written {
                Some(written) if wanted.follow && !closed => written.await,
                _ => return Ok(()),
            }
            continue;
        };
        let done = printer.print(&block);
        let out = std::mem::take(&mut printer.out);
        if !out.is_empty() && send.send(Ok(Bytes::from(out))).await.is_err() {
            return Ok(());
        }
        if done {
            return Ok(());
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Where a reader is in the files of a log.
struct Cursor {
    path: PathBuf,
    file: Option<File>,
    /// Read, but not yet a whole line.
    rest: Vec<u8>,
}

impl Cursor {
    fn open(path: PathBuf, tail: Option<u64>) -> io::Result<Self> {
        let mut cursor = Self { path, file: None, rest: Vec::new() };
        let oldest = (0..ROTATED).take_while(|n| *n == 0 || rotated(&cursor.path, *n).exists()).last().unwrap_or(0);
        let Some(mut left) = tail else {
            cursor.file = open(&rotated(&cursor.path, oldest))?;
            return Ok(cursor);
        };
        for number in 0..=oldest {
            let Some(mut file) = open(&rotated(&cursor.path, number))? else { continue };
            let found = seek_tail(&mut file, left)?;
            cursor.file = Some(file);
            left = left.saturating_sub(found);
            if left == 0 {
                break;
            }
        }
        Ok(cursor)
    }

    /// The next whole lines; `None` at the end of what is written so far.
    fn next_block(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.file.is_none() {
                self.file = open(&self.path)?;
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            // Looked up before the read: what was written before a rotation is then surely read first.
            let newer = newer_than(&self.path, file)?;
            let mut block = vec![0; BLOCK];
            let count = file.read(&mut block)?;
            block.truncate(count);
            if count == 0 {
                match newer {
                    Some(path) => self.file = open(&path)?,
                    None => return Ok(None),
                }
                continue;
            }
            self.rest.extend_from_slice(&block);
            if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
                let tail = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, tail)));
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file that the writer went on with after `file`; `None`: it is the current one.
fn newer_than(path: &Path, file: &File) -> io::Result<Option<PathBuf>> {
    let own = file.metadata()?.ino();
    let is_own = |number: u32| fs::metadata(rotated(path, number)).is_ok_and(|meta| meta.ino() == own);
    if is_own(0) || !path.exists() {
        return Ok(None);
    }
    for number in 1..ROTATED {
        if is_own(number) {
            return Ok(Some(rotated(path, number - 1)));
        }
    }
    // It was rotated away while it was read: go on with the oldest that is left.
    let oldest = (1..ROTATED).take_while(|n| rotated(path, *n).exists()).last().unwrap_or(0);
    Ok(Some(rotated(path, oldest)))
}

/// Positions `file` so that at most `lines` lines follow; returns how many do.
fn seek_tail(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut window = BLOCK as u64;
    loop {
        let from = size.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut block = Vec::new();
        file.by_ref().take(size - from).read_to_end(&mut block)?;
        let starts = line_starts(&block, from == 0);
        let found = starts.len() as u64;
        if found >= lines || from == 0 {
            let skip = usize::try_from(found.saturating_sub(lines)).unwrap_or(usize::MAX);
            let start = starts.get(skip).map_or(block.len(), |at| *at);
            file.seek(SeekFrom::Start(from + start as u64))?;
            return Ok(found.min(lines));
        }
        window *= 4;
    }
}

/// Where the lines of a container begin: a record after one that ended a line.
fn line_starts(block: &[u8], whole: bool) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 0;
    // A window that begins inside the file may begin inside a line: the first start is after the first end.
    let mut begins = whole;
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        if let Some(record) = format::parse(line.strip_suffix(b"\n").unwrap_or(line)) {
            if begins {
                starts.push(at);
            }
            begins = record.full;
        }
        at += line.len();
    }
    starts
}

/// Turns records into what a client sees.
struct Printer {
    since: Option<String>,
    timestamps: bool,
    left: Option<u64>,
    /// The record before ended its line.
    fresh: bool,
    out: Vec<u8>,
}

impl Printer {
    fn new(wanted: &Wanted) -> Self {
        Self {
            since: wanted.since.map(format::stamp),
            timestamps: wanted.timestamps,
            left: wanted.limit_bytes,
            fresh: true,
            out: Vec::new(),
        }
    }

    /// Appends whole records to `out`; `true` when nothing more is wanted.
    fn print(&mut self, block: &[u8]) -> bool {
        for line in block.split_inclusive(|byte| *byte == b'\n') {
            if let Some(record) = format::parse(line.strip_suffix(b"\n").unwrap_or(line)) {
                self.record(record);
            }
            if self.left.is_some_and(|left| self.out.len() as u64 >= left) {
                let left = self.left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
                self.out.truncate(left);
                self.left = Some(0);
                return true;
            }
        }
        self.left = self.left.map(|left| left - self.out.len() as u64);
        false
    }

    fn record(&mut self, record: Record<'_>) {
        if self.since.as_ref().is_some_and(|since| record.stamp < since.as_bytes()) {
            return;
        }
        if self.timestamps && self.fresh {
            self.out.extend_from_slice(record.stamp);
            self.out.push(b' ');
        }
        self.out.extend_from_slice(record.text);
        if record.full {
            self.out.push(b'\n');
        }
        self.fresh = record.full;
    }
}
