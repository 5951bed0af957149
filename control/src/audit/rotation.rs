//! The file of the audit log, and its older parts beside it.
//!
//! A file that would outgrow its size is renamed to `NAME-TIME.EXTENSION`, as Kubernetes does, and a new one begun; parts that are
//! too many or too old are removed. What must stay true: an event is in one file, whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::auth::files::private_dir;

/// In a part's name: UTC, when it was closed.
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file; a larger event has a file of its own.
    pub size: u64,
    /// Older parts; 0: all.
    pub backups: usize,
    /// How old a part may become; zero: any age.
    pub age: Duration,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    limits: Limits,
    file: File,
    size: u64,
    /// What the next part's time is at least.
    next: Timestamp,
}

impl Rotating {
    /// Opens or makes the file, mode 0600, and its folder.
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            private_dir(folder)?;
        }
        let file = append(path)?;
        let size = file.metadata()?.len();
        let mut opened = Self { path: path.to_owned(), limits, file, size, next: Timestamp::UNIX_EPOCH };
        if opened.ends_torn() {
            opened.write(b"\n")?;
        }
        opened.prune();
        Ok(opened)
    }

    /// Whether the last process died in the middle of a line.
    fn ends_torn(&self) -> bool {
        use std::os::unix::fs::FileExt;
        let mut last = [b'\n'];
        let read = File::open(&self.path).and_then(|f| f.read_at(&mut last, self.size.saturating_sub(1)));
        self.size > 0 && read.is_ok_and(|read| read == 1) && last != [b'\n']
    }

    /// Whether `more` bytes after `pending` ones, which are not written yet, belong into the next file.
    pub(super) fn is_full(&self, pending: usize, more: usize) -> bool {
        let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let before = self.size.saturating_add(bytes(pending));
        before > 0 && before.saturating_add(bytes(more)) > self.limits.size
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.size = self.size.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Begins the next file.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        // Names tell which part is older, so no two are of one millisecond.
        let mut now = Timestamp::now().max(self.next);
        while self.part(now).exists() {
            now = after(now);
        }
        fs::rename(&self.path, self.part(now))?;
        self.next = after(now);
        self.file = append(&self.path)?;
        self.size = 0;
        self.prune();
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// What stands before and behind the time in a part's name.
    fn around(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = match text(self.path.extension()) {
            extension if extension.is_empty() => extension,
            extension => format!(".{extension}"),
        };
        (format!("{}-", text(self.path.file_stem())), extension)
    }

    fn part(&self, now: Timestamp) -> PathBuf {
        let (before, behind) = self.around();
        self.path.with_file_name(format!("{before}{}{behind}", now.strftime(TIME)))
    }

    /// Removes parts that are too many or too old. That one cannot be removed is no reason to lose events.
    fn prune(&self) {
        let mut parts = self.parts().unwrap_or_default();
        parts.sort_by_key(|(closed, _)| std::cmp::Reverse(*closed));
        let oldest = Timestamp::now().checked_sub(self.limits.age).unwrap_or(Timestamp::MIN);
        for (at, (closed, path)) in parts.into_iter().enumerate() {
            let many = self.limits.backups > 0 && at >= self.limits.backups;
            let old = !self.limits.age.is_zero() && closed < oldest;
            if (many || old)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "a part of the audit log cannot be removed");
            }
        }
    }

    fn parts(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (before, behind) = self.around();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut parts = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name.strip_prefix(&before).and_then(|rest| rest.strip_suffix(&behind));
            let closed = time.and_then(|text| DateTime::strptime(TIME, text).ok()?.to_zoned(TimeZone::UTC).ok());
            parts.extend(closed.map(|closed| (closed.timestamp(), entry.path())));
        }
        Ok(parts)
    }
}

fn after(time: Timestamp) -> Timestamp {
    time.checked_add(Duration::from_millis(1)).unwrap_or(time)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_becomes_a_part_and_the_oldest_parts_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let limits = Limits { size: 10, backups: 2, age: Duration::ZERO };
        let mut log = Rotating::open(&path, limits).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "a line that is too long\n", "end\n"] {
            if log.is_full(0, line.len()) {
                log.rotate().unwrap();
            }
            log.write(line.as_bytes()).unwrap();
        }
        let names = names(&dir.path().join("logs"));
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-20") && names[2] == "audit.log", "{names:?}");
        let read = |name: &String| fs::read_to_string(dir.path().join("logs").join(name)).unwrap();
        assert_eq!((read(&names[1]).as_str(), read(&names[2]).as_str()), ("a line that is too long\n", "end\n"));
    }

    #[test]
    fn an_old_part_goes_and_what_is_no_part_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for name in ["audit-2001-01-01T00-00-00.000.log", "audit-notes.log", "other-2001-01-01T00-00-00.000.log"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let limits = Limits { size: 10, backups: 0, age: Duration::from_hours(24) };
        Rotating::open(&path, limits).unwrap();
        assert_eq!(names(dir.path()), ["audit-notes.log", "audit.log", "other-2001-01-01T00-00-00.000.log"]);
    }

    #[test]
    fn a_line_that_was_torn_by_a_crash_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        fs::write(&path, "{\"whole\":1}\n{\"to").unwrap();
        let limits = Limits { size: 1000, backups: 0, age: Duration::ZERO };
        Rotating::open(&path, limits).unwrap().write(b"{\"next\":1}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"whole\":1}\n{\"to\n{\"next\":1}\n");
    }
}
