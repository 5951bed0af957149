//! Unpacks the layers of a Docker-style image into the folder that a guest sees as `/`. Nothing in an archive may name or
//! link to a place outside that folder.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;

/// Most bytes that an image may unpack to.
const LARGEST_ROOT: u64 = 4 * 1024 * 1024 * 1024;

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
}

/// Applies one layer over what is in `root`. Blocks: call it on a blocking thread.
pub(super) fn layer(blob: &Path, media_type: &str, root: &Path) -> Result<(), UnpackError> {
    check_names(open(blob, media_type)?)?;
    let mut archive = tar::Archive::new(open(blob, media_type)?);
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    let mut total = 0u64;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if path.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(UnpackError::Outside(path));
        }
        if whiteout(root, &path)? {
            continue;
        }
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link()) {
            continue; // devices and pipes mean nothing to a guest
        }
        total = total.saturating_add(entry.size());
        if total > LARGEST_ROOT {
            return Err(UnpackError::TooLarge);
        }
        // `unpack_in` refuses paths and hard links that leave `root`, and writing through a symlink that does.
        if !entry.unpack_in(root)? {
            return Err(UnpackError::Outside(path));
        }
    }
    Ok(())
}

/// A layer's archive, uncompressed.
fn open(blob: &Path, media_type: &str) -> Result<impl Read + use<>, UnpackError> {
    let file = BufReader::new(File::open(blob)?);
    let reader: Box<dyn Read> = if media_type.ends_with("gzip") {
        Box::new(GzDecoder::new(file))
    } else if media_type.ends_with("tar") {
        Box::new(file)
    } else {
        return Err(UnpackError::MediaType(media_type.to_owned()));
    };
    Ok(reader.take(LARGEST_ROOT))
}

/// Long names and attributes are entries of their own, which are held in memory: looked at before anything reads them.
fn check_names(archive: impl Read) -> Result<(), UnpackError> {
    for entry in tar::Archive::new(archive).entries()?.raw(true) {
        let entry = entry?;
        let kind = entry.header().entry_type();
        let names = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if names && entry.size() > LARGEST_NAME {
            return Err(UnpackError::LongName);
        }
    }
    Ok(())
}

/// Handles an OCI whiteout (`.wh.NAME` removes NAME, `.wh..wh..opq` empties the folder).
fn whiteout(root: &Path, path: &Path) -> io::Result<bool> {
    let Some(hidden) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(".wh."))
    else {
        return Ok(false);
    };
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

    #[test]
    fn a_later_layer_hides_and_replaces() {
        let root = tempfile::tempdir().unwrap();
        layer(archive(&[("a", "1"), ("dir/b", "2"), ("dir/c", "3")]).path(), TAR, root.path()).unwrap();
        layer(archive(&[("a", "new"), ("dir/.wh.b", "")]).path(), TAR, root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("a")).unwrap(), "new");
        assert!(!root.path().join("dir/b").exists() && root.path().join("dir/c").exists());
    }

    #[test]
    fn a_name_that_fills_the_memory_is_refused_before_it_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.reopen().unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(LARGEST_NAME + 1);
        header.set_cksum();
        builder.append(&header, io::repeat(b'a').take(LARGEST_NAME + 1)).unwrap();
        builder.finish().unwrap();
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(layer(file.path(), TAR, root.path()), Err(UnpackError::LongName)));
    }

    #[test]
    fn an_archive_cannot_write_outside_its_root() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(layer(archive(&[("../escaped", "x")]).path(), TAR, &inner).is_err());
        std::os::unix::fs::symlink(root.path(), inner.join("link")).unwrap();
        assert!(layer(archive(&[("link/escaped", "x")]).path(), TAR, &inner).is_err());
        layer(archive(&[("link/.wh.inner", "")]).path(), TAR, &inner).unwrap();
        assert!(!root.path().join("escaped").exists() && inner.exists());
        assert!(find(&inner, "/link").is_err());
    }
}
