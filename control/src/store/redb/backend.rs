//! What the engine reads and writes through, and what went wrong there.
//!
//! redb refuses everything after a failure of its file until it is opened again. Whether it may be depends on what failed. A
//! write that found no room changed nothing that was synced, and belongs to no commit: the file is as a crash leaves it. After
//! any other failure, of a sync above all, nobody knows what of the file is on the disk, whatever reads as if it were.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{Error, ErrorKind};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend, StorageError};

use super::disk::CACHE_BYTES;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// The open file.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) db: Database,
    trouble: Arc<Trouble>,
}

impl Open {
    /// Whether writes found no room, and nothing else went wrong.
    pub(super) fn lacks_room(&self) -> bool {
        self.trouble.no_room.load(Ordering::SeqCst) && !self.trouble.worse.load(Ordering::SeqCst)
    }
}

/// Finds what the database is on.
#[derive(Clone)]
pub(super) struct Source(Arc<dyn Fn() -> Result<Box<dyn StorageBackend>, OpenFault> + Send + Sync>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source(..)")
    }
}

impl Source {
    pub(super) fn of_file(path: &Path) -> Self {
        let path = path.to_owned();
        let open = move || -> Result<Box<dyn StorageBackend>, OpenFault> {
            // A file that is gone is not made anew: it would be taken for an empty store.
            let file = OpenOptions::new().read(true).write(true).open(&path);
            Ok(Box::new(FileBackend::new(file.map_err(OpenFault::Io)?)?))
        };
        Self(Arc::new(open))
    }

    #[cfg(test)]
    pub(super) fn new<B: StorageBackend>(make: impl Fn() -> B + Send + Sync + 'static) -> Self {
        let open = move || -> Result<Box<dyn StorageBackend>, OpenFault> { Ok(Box::new(make())) };
        Self(Arc::new(open))
    }

    pub(super) fn open(&self) -> Result<Open, OpenFault> {
        open_on((self.0)()?)
    }
}

pub(super) fn open_on(inner: Box<dyn StorageBackend>) -> Result<Open, OpenFault> {
    let trouble = Arc::default();
    let backend = Watched { inner, trouble: Arc::clone(&trouble) };
    let db = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
    Ok(Open { db, trouble })
}

/// Runs what the engine panics in if the file is damaged.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, OpenFault>) -> Result<T, OpenFault> {
    quietly(|| catch_unwind(AssertUnwindSafe(work))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(OpenFault::Damaged(text.unwrap_or_else(|| "the engine gave up".to_owned()).into()))
    })
}

thread_local! {
    /// Whether a panic of this thread is caught and told as an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` without the message that a panic on this thread would print: the engine panics on some damaged files.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    let done = work();
    QUIET.set(false);
    done
}

/// Why the file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenFault {
    #[error("another process has opened it")]
    Locked,
    #[error("this process still reads it")]
    InUse,
    #[error("it has the newer format {0}")]
    Newer(u32),
    #[error("it cannot be read or written")]
    Io(#[source] Error),
    #[error("it is damaged")]
    Damaged(#[source] Fault),
}

impl OpenFault {
    /// Whether it may be tried again: when there is room, or nobody reads.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Io(error) => is_lack_of_room(error),
            other => matches!(other, Self::InUse),
        }
    }
}

impl From<DatabaseError> for OpenFault {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::Locked,
            DatabaseError::Storage(error) => error.into(),
            other => Self::Damaged(other.into()),
        }
    }
}

impl From<StorageError> for OpenFault {
    /// A disk that is full or fails says nothing of what is on it.
    fn from(error: StorageError) -> Self {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error {
            StorageError::Io(e) if !matches!(e.kind(), InvalidData | InvalidInput | UnexpectedEof) => Self::Io(e),
            other => Self::Damaged(other.into()),
        }
    }
}

macro_rules! by_storage {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for OpenFault {
            fn from(error: redb::$error) -> Self {
                match error {
                    redb::$error::Storage(error) => error.into(),
                    other => Self::Damaged(other.into()),
                }
            }
        }
    )*};
}
by_storage!(TransactionError, TableError, CommitError, CompactionError);

/// What went wrong since the file was opened.
#[derive(Debug, Default)]
struct Trouble {
    no_room: AtomicBool,
    worse: AtomicBool,
}

/// Whether a failure passes when something else is removed.
fn is_lack_of_room(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// A backend that keeps in mind what failed.
#[derive(Debug)]
struct Watched {
    inner: Box<dyn StorageBackend>,
    trouble: Arc<Trouble>,
}

impl Watched {
    fn wrote<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Err(error) if is_lack_of_room(error) => self.trouble.no_room.store(true, Ordering::SeqCst),
            Err(_) => self.trouble.worse.store(true, Ordering::SeqCst),
            Ok(_) => {}
        }
        result
    }

    fn did<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() {
            self.trouble.worse.store(true, Ordering::SeqCst);
        }
        result
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> Result<u64, Error> {
        self.did(self.inner.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.did(self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.wrote(self.inner.set_len(len))
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.did(self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.wrote(self.inner.write(offset, data))
    }

    fn close(&self) -> Result<(), Error> {
        self.did(self.inner.close())
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_failing_disk_is_no_damage() {
        let failed = |kind: ErrorKind| OpenFault::from(redb::CommitError::Storage(StorageError::Io(kind.into())));
        assert!(failed(ErrorKind::StorageFull).passes());
        assert!(matches!(failed(ErrorKind::PermissionDenied), OpenFault::Io(_)));
        assert!(matches!(failed(ErrorKind::InvalidData), OpenFault::Damaged(_)));
        let damaged = redb::TransactionError::Storage(StorageError::Corrupted(String::new()));
        assert!(matches!(OpenFault::from(damaged), OpenFault::Damaged(_)));
    }
}
