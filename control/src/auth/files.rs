//! Files that hold secrets: readable by their owner only, and never half written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a directory, and those above it, that only its owner may enter; an existing one loses other people's rights.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mut permissions = fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o700);
        fs::set_permissions(path, permissions)?;
    }
    Ok(())
}

/// Replaces a file in one step, mode 0600: a reader sees the old contents or the new ones, also after a power cut. Of those who
/// write it at the same time, the last one's contents stay.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_by(&path.with_file_name(format!(".{:032x}", rand::random::<u128>())), path, contents)
}

/// The same by way of a file that nobody else knows, on the same file system.
pub(crate) fn write_by(temporary: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()));
    if let Err(error) = written.and_then(|()| fs::rename(temporary, path)) {
        let _ = fs::remove_file(temporary);
        return Err(error);
    }
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_readable_by_its_owner_only_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        private_dir(&inner).unwrap();
        let file = inner.join("key.pem");
        write_private(&file, b"one").unwrap();
        write_private(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
    }

    #[test]
    fn files_that_are_written_at_the_same_time_have_each_its_own_contents() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let file = dir.path().join(format!("v1.{}", writer % 4));
                scope.spawn(move || {
                    for _ in 0..20 {
                        write_private(&file, file.as_os_str().as_encoded_bytes()).unwrap();
                    }
                });
            }
        });
        let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files, (0..4).map(|n| dir.path().join(format!("v1.{n}"))).collect::<Vec<_>>());
        assert!(files.iter().all(|file| fs::read(file).unwrap() == file.as_os_str().as_encoded_bytes()));
    }
}
