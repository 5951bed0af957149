//! A folder that a guest reads: the next few of its entries, and where to go on. Nothing waits for the guest but a descriptor.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem::replace;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, StreamProducer, StreamResult};
use wasmtime_wasi::p2::bindings::filesystem::types as p2;
use wasmtime_wasi::p3::bindings::filesystem::types as p3;

use super::super::room::Taken;
use super::super::state::GuestState;

/// Entries that are read at once, and kept: with the longest names as much as an entry of a guest's table may keep.
const BATCH: usize = 48;

/// One entry of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    name: String,
    kind: FileType,
}

/// What is left to read.
pub(super) struct Listing {
    next: VecDeque<Entry>,
    rest: Rest,
}

enum Rest {
    Folder(Reading),
    /// A thread reads some.
    Underway(JoinHandle<(Reading, io::Result<VecDeque<Entry>>)>),
    None,
}

/// A folder, and its place among the descriptors.
struct Reading {
    /// As the guest has it open.
    folder: Arc<File>,
    /// Opened with the first entries.
    entries: Option<Dir>,
    _place: Taken,
}

impl Listing {
    pub(super) fn new(folder: Arc<File>, place: Taken) -> Self {
        Self { next: VecDeque::new(), rest: Rest::Folder(Reading { folder, entries: None, _place: place }) }
    }

    /// The next entry; `None` after the last one.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Entry>>> {
        loop {
            if let Some(entry) = self.next.pop_front() {
                return Poll::Ready(Ok(Some(entry)));
            }
            match &mut self.rest {
                Rest::Folder(_) => {
                    if let Rest::Folder(reading) = replace(&mut self.rest, Rest::None) {
                        self.rest = Rest::Underway(spawn_blocking(|| reading.read_some()));
                    }
                }
                Rest::Underway(task) => {
                    let read = ready!(Pin::new(task).poll(cx));
                    self.rest = Rest::None;
                    let (reading, entries) = read.map_err(io::Error::other)?;
                    self.next = entries?;
                    if !self.next.is_empty() {
                        self.rest = Rest::Folder(reading);
                    }
                }
                Rest::None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl Reading {
    fn read_some(mut self) -> (Self, io::Result<VecDeque<Entry>>) {
        let read = self.batch();
        (self, read)
    }

    fn batch(&mut self) -> io::Result<VecDeque<Entry>> {
        let entries = match &mut self.entries {
            Some(entries) => entries,
            entries => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                entries.insert(Dir::new(openat(&self.folder, ".", flags, Mode::empty())?)?)
            }
        };
        let mut batch = VecDeque::new();
        while batch.len() < BATCH
            && let Some(entry) = entries.read().transpose()?
        {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    FileType::from_raw_mode(statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
                }
                kind => kind,
            };
            let name = name.to_str().map_err(|_| rustix::io::Errno::ILSEQ)?.to_owned();
            batch.push_back(Entry { name, kind });
        }
        Ok(batch)
    }
}

impl From<Entry> for p2::DirectoryEntry {
    fn from(Entry { name, kind }: Entry) -> Self {
        let type_ = match kind {
            FileType::RegularFile => p2::DescriptorType::RegularFile,
            FileType::Directory => p2::DescriptorType::Directory,
            FileType::Symlink => p2::DescriptorType::SymbolicLink,
            FileType::Fifo => p2::DescriptorType::Fifo,
            FileType::Socket => p2::DescriptorType::Socket,
            FileType::CharacterDevice => p2::DescriptorType::CharacterDevice,
            FileType::BlockDevice => p2::DescriptorType::BlockDevice,
            FileType::Unknown => p2::DescriptorType::Unknown,
        };
        Self { type_, name }
    }
}

impl From<Entry> for p3::DirectoryEntry {
    fn from(Entry { name, kind }: Entry) -> Self {
        let type_ = match kind {
            FileType::RegularFile => p3::DescriptorType::RegularFile,
            FileType::Directory => p3::DescriptorType::Directory,
            FileType::Symlink => p3::DescriptorType::SymbolicLink,
            FileType::Fifo => p3::DescriptorType::Fifo,
            FileType::Socket => p3::DescriptorType::Socket,
            FileType::CharacterDevice => p3::DescriptorType::CharacterDevice,
            FileType::BlockDevice => p3::DescriptorType::BlockDevice,
            FileType::Unknown => p3::DescriptorType::Other(None),
        };
        Self { type_, name }
    }
}

/// The stream of entries that a 0.3 guest reads.
pub(super) struct Entries {
    listing: Option<Listing>,
    /// Learns how it ended.
    ended: Option<oneshot::Sender<Ended>>,
}

type Ended = Result<(), p3::ErrorCode>;

impl Entries {
    pub(super) fn of(listing: Result<Listing, p3::ErrorCode>) -> (Self, oneshot::Receiver<Ended>) {
        let (send, ended) = oneshot::channel();
        let mut entries = Self { listing: None, ended: Some(send) };
        match listing {
            Ok(listing) => entries.listing = Some(listing),
            Err(code) => entries.end(Err(code)),
        }
        (entries, ended)
    }

    fn end(&mut self, how: Ended) {
        self.listing = None;
        if let Some(ended) = self.ended.take() {
            // The guest may have dropped it.
            let _ = ended.send(how);
        }
    }
}

impl Drop for Entries {
    /// Who does not read to the end is told of no error.
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

impl StreamProducer<GuestState> for Entries {
    type Item = p3::DirectoryEntry;
    type Buffer = Option<p3::DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, GuestState>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some(listing) = &mut self.listing else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        // Whether there is an entry is not told to who asks for none.
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let ended = match listing.poll_next(cx) {
            Poll::Ready(Ok(Some(entry))) => {
                destination.set_buffer(Some(entry.into()));
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            Poll::Ready(Ok(None)) => Ok(()),
            Poll::Ready(Err(error)) => Err(p3::ErrorCode::from(&error)),
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
        };
        self.end(ended);
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::poll_fn;

    use super::super::super::room::Descriptors;
    use super::*;

    const FILES: usize = 3 * BATCH;

    #[test]
    fn folders_that_are_not_read_to_the_end_keep_no_thread_and_lose_no_entry() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let names: BTreeSet<String> = (0..FILES).map(|n| format!("{n}")).collect();
        for name in &names {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let (opened, room) = (Arc::new(File::open(folder.path()).unwrap()), Descriptors::with(8).room("a", 4));
        runtime.block_on(async {
            let mut listings: Vec<Listing> =
                std::iter::from_fn(|| room.take()).map(|place| Listing::new(Arc::clone(&opened), place)).collect();
            assert_eq!(listings.len(), 4);
            let mut seen = Vec::new();
            for listing in &mut listings {
                seen.push(vec![poll_fn(|cx| listing.poll_next(cx)).await.unwrap().unwrap()]);
            }
            spawn_blocking(|| ()).await.unwrap();
            for (listing, seen) in listings.iter_mut().zip(&mut seen) {
                while let Some(entry) = poll_fn(|cx| listing.poll_next(cx)).await.unwrap() {
                    seen.push(entry);
                }
                let of =
                    |kind| seen.iter().filter(|entry| entry.kind == kind).map(|entry| entry.name.clone()).collect();
                assert_eq!((of(FileType::RegularFile), seen.len()), (names.clone(), FILES + 1));
                assert_eq!(of(FileType::Directory), BTreeSet::from(["sub".to_owned()]));
            }
            assert_eq!(room.left(), 4, "who has read a folder has no descriptor of it");
        });
    }
}
