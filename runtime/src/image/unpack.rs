//! Unpacks the layers of a Docker-style image into the folder that a guest sees as `/`. Nothing in an archive may name or
//! link to a place outside that folder.

use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;

/// Most bytes that an image may unpack to, all its layers together.
pub(super) const LARGEST_ROOT: u64 = 4 * 1024 * 1024 * 1024;

/// What a file, folder or link takes on disk at least.
const LEAST: u64 = 4096;

/// What a folder's owner may: what is in it is written, and removed.
pub(super) const OWNER: u32 = 0o700;

/// Most bytes of a path or of an entry's attributes.
const LARGEST_NAME: u64 = 64 * 1024;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("layer type {0} is not supported")]
    MediaType(String),
    #[error("the layer's archive is damaged or cannot be written")]
    Io(#[from] io::Error),
    #[error("the layer names {0:?}, which is outside the image's root")]
    Outside(PathBuf),
    #[error("the layer has an entry whose name or attributes are larger than {LARGEST_NAME} bytes")]
    LongName,
    #[error("the image unpacks to more than {LARGEST_ROOT} bytes")]
    TooLarge,
    #[error("the layer has a sparse file, or one whose size is an attribute, which are not supported")]
    Size,
}

/// Applies one layer over what is in `root`, and takes what it needs of `left`. Blocks: call it on a blocking thread.
pub(super) fn layer(blob: &Path, media_type: &str, root: &Path, left: &mut u64) -> Result<(), UnpackError> {
    check(open(blob, media_type)?, left)?;
    let mut archive = tar::Archive::new(open(blob, media_type)?);
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let named = entry.path()?.into_owned();
        if named.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(UnpackError::Outside(named));
        }
        // An absolute name is one in the image.
        let path: PathBuf = named.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        if whiteout(root, &path)? {
            continue;
        }
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
            continue; // devices and pipes mean nothing to a guest
        }
        // `unpack_in` refuses paths and hard links that leave `root`, and writing through a symlink that does.
        if !entry.unpack_in(root)? {
            return Err(UnpackError::Outside(path));
        }
        if kind.is_dir() {
            open_folder(&root.join(&path))?;
        }
    }
    Ok(())
}

/// Lets a folder's owner write into it, whatever its layer says: more may follow.
fn open_folder(path: &Path) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    let mode = metadata.permissions().mode();
    if metadata.is_dir() && mode & OWNER != OWNER {
        std::fs::set_permissions(path, Permissions::from_mode(mode | OWNER))?;
    }
    Ok(())
}

/// A layer's archive, uncompressed.
fn open(blob: &Path, media_type: &str) -> Result<Box<dyn Read>, UnpackError> {
    let file = BufReader::new(File::open(blob)?);
    if media_type.ends_with("gzip") {
        Ok(Box::new(GzDecoder::new(file)))
    } else if media_type.ends_with("tar") {
        Ok(Box::new(file))
    } else {
        Err(UnpackError::MediaType(media_type.to_owned()))
    }
}

/// Reads what entries a layer has before anything is written: whether there is room for them, and that none is held in
/// memory whole (long names and attributes are entries of their own) or is read otherwise the second time.
fn check(archive: impl Read, left: &mut u64) -> Result<(), UnpackError> {
    for entry in tar::Archive::new(archive).entries()?.raw(true) {
        let mut entry = entry?;
        let (kind, size) = (entry.header().entry_type(), entry.size());
        let attributes = kind.is_pax_local_extensions() || kind.is_pax_global_extensions();
        let names = attributes || kind.is_gnu_longname() || kind.is_gnu_longlink();
        if names && size > LARGEST_NAME {
            return Err(UnpackError::LongName);
        }
        if kind.is_gnu_sparse() || (attributes && names_a_size(&mut entry)?) {
            return Err(UnpackError::Size);
        }
        *left = left.checked_sub(if names { size } else { size.max(LEAST) }).ok_or(UnpackError::TooLarge)?;
    }
    Ok(())
}

/// Whether attributes give the next entry another size than its header does: then nobody knows where it ends who does not
/// read them. Archivers write one for files of 8 GiB and more.
fn names_a_size(attributes: &mut impl Read) -> io::Result<bool> {
    let mut bytes = Vec::new();
    attributes.read_to_end(&mut bytes)?;
    Ok(tar::PaxExtensions::new(&bytes).any(|one| one.is_ok_and(|one| one.key_bytes() == b"size")))
}

/// Handles an OCI whiteout (`.wh.NAME` removes NAME, `.wh..wh..opq` empties the folder).
fn whiteout(root: &Path, path: &Path) -> Result<bool, UnpackError> {
    let Some(hidden) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(".wh."))
    else {
        return Ok(false);
    };
    // `.wh...` would name the folder above.
    let is_name = Path::new(hidden).file_name().is_some_and(|name| name == hidden);
    if !is_name {
        return Err(UnpackError::Outside(path.to_owned()));
    }
    let folder = root.join(path.parent().unwrap_or(Path::new("")));
    let Ok(folder) = folder.canonicalize() else { return Ok(true) };
    if !folder.starts_with(root.canonicalize()?) {
        return Ok(true);
    }
    if hidden == ".wh..opq" {
        for entry in std::fs::read_dir(&folder)? {
            remove(&entry?.path())?;
        }
    } else {
        remove(&folder.join(hidden))?;
    }
    Ok(true)
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file inside `root` by its absolute path in the image; a link that leads out is refused.
pub(super) fn find(root: &Path, inside: &str) -> Result<PathBuf, UnpackError> {
    let path = root.join(inside.trim_start_matches('/')).canonicalize()?;
    if path.starts_with(root.canonicalize()?) { Ok(path) } else { Err(UnpackError::Outside(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        for (path, contents) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, contents.as_bytes()).unwrap();
        }
        builder.finish().unwrap();
        file
    }

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

    fn apply(archive: &tempfile::NamedTempFile, root: &Path) -> Result<(), UnpackError> {
        layer(archive.path(), TAR, root, &mut LARGEST_ROOT.clone())
    }

    /// An archive of one entry.
    fn lone(kind: tar::EntryType, size: u64, contents: impl Read) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        builder.append(&header, contents).unwrap();
        builder.finish().unwrap();
        file
    }

    #[test]
    fn a_folder_that_nobody_may_write_into_is_open_to_its_owner() {
        let (root, file) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        for (kind, path, mode) in
            [(tar::EntryType::Directory, "etc/", 0o555), (tar::EntryType::Regular, "etc/a", 0o444)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(mode);
            builder.append_data(&mut header, path, io::empty()).unwrap();
        }
        builder.finish().unwrap();
        apply(&file, root.path()).unwrap();
        let mode = |path| root.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("etc"), mode("etc/a")), (0o755, 0o444));
    }

    #[test]
    fn an_absolute_name_is_one_in_the_image_and_of_the_host_nothing_changes() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::set_permissions(outside.path(), Permissions::from_mode(0o555)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o555);
        let name = outside.path().as_os_str().as_encoded_bytes();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
        builder.finish().unwrap();
        apply(&file, root.path()).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(outside.path()), 0o555);
        assert_eq!(mode(&root.path().join(outside.path().strip_prefix("/").unwrap())), 0o755);
    }

    #[test]
    fn a_later_layer_hides_and_replaces() {
        let root = tempfile::tempdir().unwrap();
        apply(&archive(&[("a", "1"), ("dir/b", "2"), ("dir/c", "3")]), root.path()).unwrap();
        apply(&archive(&[("a", "new"), ("dir/.wh.b", "")]), root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("a")).unwrap(), "new");
        assert!(!root.path().join("dir/b").exists() && root.path().join("dir/c").exists());
    }

    #[test]
    fn a_whiteout_names_what_is_in_its_folder_and_no_folder_above() {
        let roots = tempfile::tempdir().unwrap();
        let [ours, others] = ["ours", "others"].map(|name| roots.path().join(name));
        for root in [&ours, &others] {
            std::fs::create_dir(root).unwrap();
            apply(&archive(&[("dir/file", "kept")]), root).unwrap();
        }
        for name in [".wh...", ".wh..", ".wh.", "dir/.wh...", "dir/.wh.."] {
            let refused = apply(&archive(&[(name, "")]), &ours);
            assert!(matches!(refused, Err(UnpackError::Outside(_))), "{name}: {refused:?}");
        }
        assert!(ours.join("dir/file").exists() && others.join("dir/file").exists());
    }

    #[test]
    fn a_name_that_fills_the_memory_is_refused_before_it_is_read() {
        let size = LARGEST_NAME + 1;
        let file = lone(tar::EntryType::GNULongName, size, io::repeat(b'a').take(size));
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(apply(&file, root.path()), Err(UnpackError::LongName)));
    }

    #[test]
    fn all_layers_of_an_image_share_its_room_and_nothing_is_written_without() {
        let root = tempfile::tempdir().unwrap();
        let large = "a".repeat(5000);
        let mut left = 3 * LEAST;
        let mut add =
            |name: &str, contents: &str| layer(archive(&[(name, contents)]).path(), TAR, root.path(), &mut left);
        add("large", &large).unwrap();
        add("small", "").unwrap();
        assert!(matches!(add("more", ""), Err(UnpackError::TooLarge)));
        assert!(root.path().join("small").exists() && !root.path().join("more").exists());
    }

    #[test]
    fn an_entry_that_hides_what_follows_it_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let size: &[u8] = b"13 size=4096\n";
        let attributes = lone(tar::EntryType::XHeader, size.len() as u64, size);
        assert!(matches!(apply(&attributes, root.path()), Err(UnpackError::Size)));
        let sparse = lone(tar::EntryType::GNUSparse, 0, io::empty());
        assert!(matches!(apply(&sparse, root.path()), Err(UnpackError::Size)));
    }

    #[test]
    fn an_archive_cannot_write_outside_its_root() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(apply(&archive(&[("../escaped", "x")]), &inner).is_err());
        std::os::unix::fs::symlink(root.path(), inner.join("link")).unwrap();
        assert!(apply(&archive(&[("link/escaped", "x")]), &inner).is_err());
        apply(&archive(&[("link/.wh.inner", "")]), &inner).unwrap();
        assert!(!root.path().join("escaped").exists() && inner.exists());
        assert!(find(&inner, "/link").is_err());
    }
}
