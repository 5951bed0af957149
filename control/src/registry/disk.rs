//! The registry's files.
//!
//! ```text
//! blobs/sha256/AB/ABCD…        contents, by digest, shared by all repositories
//! repositories/NAMESPACE/NAME/_blobs/HEX       the repository has this blob
//! repositories/NAMESPACE/NAME/_manifests/HEX   the repository has this manifest; the file holds its media type
//! repositories/NAMESPACE/NAME/_tags/TAG        holds a digest
//! repositories/NAMESPACE/NAME/_referrers/HEX/HEX   the manifest of the second digest is attached to the first
//! uploads/ID                   what is still being sent or written, and what is about to be removed
//! ```
//!
//! What must stay true: a content appears under its digest only when it is complete, verified and on disk (rename after
//! fsync); nothing goes that a manifest on its way refers to; a repository shows a content only through its own files, so that
//! knowing a digest is not enough to read another namespace's image. Everything here blocks; callers are on threads for that.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::digest::Digest;
use super::manifest;
use super::route::{Reference, Repository};
use crate::auth::files::{private_dir, write_by};

/// A blob that no manifest refers to is kept this long: its manifest may be on its way.
pub(super) const GRACE: Duration = Duration::from_hours(1);

/// Room that is left to what else the disk holds, the cluster's own store above all: this, or of a small disk a tenth.
const RESERVE: u64 = 1 << 30;

/// The directories of one registry.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    pub(super) reserve: u64,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Bytes that became free.
    pub freed: u64,
    /// Whether there is what nothing refers to and may not go yet.
    pub later: bool,
}

/// A stored manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl Disk {
    /// Opens or makes the directories; what was being uploaded when the process ended is gone.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        private_dir(root)?;
        for part in ["blobs/sha256", "repositories"] {
            private_dir(&root.join(part))?;
        }
        let uploads = root.join("uploads");
        if uploads.exists() {
            fs::remove_dir_all(&uploads)?;
        }
        private_dir(&uploads)?;
        let disk = rustix::fs::statvfs(root)?;
        let reserve = RESERVE.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 10);
        Ok(Self { root: root.to_owned(), reserve })
    }

    /// Whether there is room for more than is left to others.
    pub(crate) fn has_room(&self) -> io::Result<bool> {
        let disk = rustix::fs::statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) >= self.reserve)
    }

    pub(crate) fn upload_path(&self, id: &str) -> PathBuf {
        self.root.join("uploads").join(id)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs/sha256").join(hex.get(..2).unwrap_or_default()).join(hex)
    }

    fn repository(&self, repository: &Repository) -> PathBuf {
        self.root.join("repositories").join(&repository.namespace).join(&repository.name)
    }

    fn blob_link(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.repository(repository).join("_blobs").join(digest.hex())
    }

    fn manifest_link(&self, repository: &Repository, digest: &Digest) -> PathBuf {
        self.repository(repository).join("_manifests").join(digest.hex())
    }

    fn tag(&self, repository: &Repository, tag: &str) -> PathBuf {
        self.repository(repository).join("_tags").join(tag)
    }

    fn referrers_of(&self, repository: &Repository, subject: &Digest) -> PathBuf {
        self.repository(repository).join("_referrers").join(subject.hex())
    }

    /// A small file in a directory that may not exist yet. Until it is complete it is none of the repository's.
    fn write_linked(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            private_dir(parent)?;
        }
        write_by(&self.upload_path(&format!("{:032x}", rand::random::<u128>())), path, contents)
    }

    /// A complete and verified upload, whose bytes are on the disk, becomes a blob of the repository.
    pub(crate) fn keep(&self, upload: &Path, repository: &Repository, digest: &Digest) -> io::Result<()> {
        let path = self.blob_path(digest);
        if path.exists() {
            fs::remove_file(upload)?;
        } else {
            let parent = path.parent().unwrap_or(&self.root);
            private_dir(parent)?;
            fs::rename(upload, &path)?;
            File::open(parent)?.sync_all()?;
        }
        self.link_blob(repository, digest)
    }

    /// The repository has this blob, whose content is stored.
    pub(crate) fn link_blob(&self, repository: &Repository, digest: &Digest) -> io::Result<()> {
        touch(&self.blob_path(digest))?;
        self.write_linked(&self.blob_link(repository, digest), b"")
    }

    /// The size of a blob that somebody relies on, and will not send: it is as if it had just come. Nothing may be collected
    /// meanwhile.
    pub(crate) fn rely_on_blob(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<u64>> {
        let size = self.blob_size(repository, digest)?;
        if size.is_some() {
            touch(&self.blob_link(repository, digest))?;
            touch(&self.blob_path(digest))?;
        }
        Ok(size)
    }

    /// The size of a blob, if the repository has it.
    pub(crate) fn blob_size(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<u64>> {
        let linked = self.blob_link(repository, digest).exists() || self.manifest_link(repository, digest).exists();
        if !linked {
            return Ok(None);
        }
        found(fs::metadata(self.blob_path(digest)).map(|metadata| metadata.len()))
    }

    /// `false`: there was none.
    pub(crate) fn unlink_blob(&self, repository: &Repository, digest: &Digest) -> io::Result<bool> {
        Ok(found(fs::remove_file(self.blob_link(repository, digest)))?.is_some())
    }

    /// Stores a manifest, which may be attached to another, and points the tag at it.
    pub(crate) fn put_manifest(
        &self,
        repository: &Repository,
        manifest: &StoredManifest,
        subject: Option<&Digest>,
        tag: Option<&str>,
    ) -> io::Result<()> {
        let path = self.blob_path(&manifest.digest);
        if path.exists() {
            touch(&path)?;
        } else {
            self.write_linked(&path, &manifest.bytes)?;
        }
        for digest in manifest::references(&manifest.bytes).to {
            touch(&self.blob_link(repository, &digest))?;
            touch(&self.blob_path(&digest))?;
        }
        if let Some(subject) = subject {
            self.write_linked(&self.referrers_of(repository, subject).join(manifest.digest.hex()), b"")?;
        }
        self.write_linked(&self.manifest_link(repository, &manifest.digest), manifest.media_type.as_bytes())?;
        match tag {
            Some(tag) => self.write_linked(&self.tag(repository, tag), manifest.digest.to_string().as_bytes()),
            None => Ok(()),
        }
    }

    pub(crate) fn resolve(&self, repository: &Repository, reference: &Reference) -> io::Result<Option<Digest>> {
        match reference {
            Reference::Digest(digest) => Ok(Some(digest.clone())),
            Reference::Tag(tag) => {
                let text = found(fs::read_to_string(self.tag(repository, tag)))?;
                Ok(text.and_then(|text| text.trim().parse().ok()))
            }
        }
    }

    pub(crate) fn manifest(&self, repository: &Repository, digest: &Digest) -> io::Result<Option<StoredManifest>> {
        let Some(media_type) = found(fs::read_to_string(self.manifest_link(repository, digest)))? else {
            return Ok(None);
        };
        let bytes = found(fs::read(self.blob_path(digest)))?;
        Ok(bytes.map(|bytes| StoredManifest { digest: digest.clone(), media_type, bytes }))
    }

    pub(crate) fn has_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        self.manifest_link(repository, digest).exists()
    }

    /// Removes a tag, or a manifest with the tags that point at it. `false`: there was none.
    pub(crate) fn delete_manifest(&self, repository: &Repository, reference: &Reference) -> io::Result<bool> {
        let digest = match reference {
            Reference::Tag(tag) => return Ok(found(fs::remove_file(self.tag(repository, tag)))?.is_some()),
            Reference::Digest(digest) => digest,
        };
        let subject = self.manifest(repository, digest)?.and_then(|m| manifest::references(&m.bytes).subject);
        if found(fs::remove_file(self.manifest_link(repository, digest)))?.is_none() {
            return Ok(false);
        }
        if let Some(subject) = subject {
            found(fs::remove_file(self.referrers_of(repository, &subject).join(digest.hex())))?;
        }
        for tag in self.tags(repository)?.unwrap_or_default() {
            if self.resolve(repository, &Reference::Tag(tag.clone()))?.as_ref() == Some(digest) {
                found(fs::remove_file(self.tag(repository, &tag)))?;
            }
        }
        Ok(true)
    }

    /// Tags in order; `None` if the repository does not exist.
    pub(crate) fn tags(&self, repository: &Repository) -> io::Result<Option<Vec<String>>> {
        let root = self.repository(repository);
        if !root.join("_manifests").exists() && !root.join("_blobs").exists() {
            return Ok(None);
        }
        names(&root.join("_tags")).map(Some)
    }

    /// Digests of what is attached to a manifest, in order.
    pub(crate) fn referrers(&self, repository: &Repository, subject: &Digest) -> io::Result<Vec<Digest>> {
        digests(&self.referrers_of(repository, subject))
    }

    /// Namespaces that have repositories.
    pub(crate) fn namespaces(&self) -> io::Result<Vec<String>> {
        names(&self.root.join("repositories"))
    }

    /// Takes all repositories of a namespace out of sight, in one step that a crash does not part. The answer is where they
    /// are until they are removed.
    pub(crate) fn take_namespace(&self, namespace: &str) -> io::Result<Option<PathBuf>> {
        let all = self.root.join("repositories");
        let gone = self.root.join("uploads").join(format!("{namespace}-{:032x}", rand::random::<u128>()));
        if found(fs::rename(all.join(namespace), &gone))?.is_none() {
            return Ok(None);
        }
        File::open(all)?.sync_all()?;
        Ok(Some(gone))
    }

    /// Every repository that has a manifest, in order.
    pub(crate) fn repositories(&self) -> io::Result<Vec<Repository>> {
        let mut found = Vec::new();
        let mut todo = vec![String::new()];
        while let Some(at) = todo.pop() {
            let dir = self.root.join("repositories").join(&at);
            for name in names(&dir)?.into_iter().filter(|name| !name.starts_with('_')) {
                todo.push(if at.is_empty() { name } else { format!("{at}/{name}") });
            }
            let has_manifests = !names(&dir.join("_manifests"))?.is_empty();
            if has_manifests && let Ok(repository) = Repository::parse(&at) {
                found.push(repository);
            }
        }
        found.sort_by_key(ToString::to_string);
        Ok(found)
    }

    /// Removes what nothing refers to: blobs of a repository that none of its manifests names, and contents that no
    /// repository has. A repository that blobs are being sent to, or were lately that no manifest names yet, is left alone: a push
    /// may take longer than [`GRACE`], and its client sends nothing twice. `alone` does work while nobody writes: what became
    /// young before that stays.
    pub(crate) fn collect(
        &self,
        now: SystemTime,
        open: &HashSet<Repository>,
        alone: &Alone<'_>,
    ) -> io::Result<Collected> {
        let open: HashSet<PathBuf> = open.iter().map(|repository| self.repository(repository)).collect();
        let mut kept = HashSet::new();
        let mut collected = Collected::default();
        for root in self.all_roots()? {
            let manifests = digests(&root.join("_manifests"))?;
            let mut named = HashSet::new();
            for digest in manifests {
                if let Some(bytes) = found(fs::read(self.blob_path(&digest)))? {
                    let refers = manifest::references(&bytes);
                    named.extend(refers.to);
                    // Manifests that were stored before there was such a list.
                    let listed = refers.subject.map(|s| root.join("_referrers").join(s.hex()).join(digest.hex()));
                    if let Some(listed) = listed.filter(|listed| !listed.exists()) {
                        let link = root.join("_manifests").join(digest.hex());
                        alone(&mut || {
                            link.exists().then(|| self.write_linked(&listed, b"")).transpose().map(|_| None)
                        })?;
                    }
                }
                kept.insert(digest);
            }
            let (named, unnamed): (Vec<_>, Vec<_>) =
                digests(&root.join("_blobs"))?.into_iter().partition(|digest| named.contains(digest));
            kept.extend(named);
            let pushed = open.contains(&root) || any_young(&root, &unnamed, now)?;
            for digest in unnamed {
                if pushed || take_old(&root.join("_blobs").join(digest.hex()), now, alone)?.is_none() {
                    collected.later = true;
                    kept.insert(digest);
                }
            }
        }
        self.sweep(&kept, &mut collected, now, alone)?;
        Ok(collected)
    }

    fn all_roots(&self) -> io::Result<Vec<PathBuf>> {
        let mut roots = Vec::new();
        let mut todo = vec![self.root.join("repositories")];
        while let Some(dir) = todo.pop() {
            todo.extend(names(&dir)?.into_iter().filter(|name| !name.starts_with('_')).map(|name| dir.join(name)));
            roots.push(dir);
        }
        Ok(roots)
    }

    fn sweep(
        &self,
        kept: &HashSet<Digest>,
        collected: &mut Collected,
        now: SystemTime,
        alone: &Alone<'_>,
    ) -> io::Result<()> {
        let blobs = self.root.join("blobs/sha256");
        for prefix in names(&blobs)? {
            for digest in digests(&blobs.join(prefix))?.into_iter().filter(|digest| !kept.contains(digest)) {
                match take_old(&self.blob_path(&digest), now, alone)? {
                    Some(bytes) => collected.freed += bytes,
                    None => collected.later = true,
                }
            }
        }
        Ok(())
    }
}

/// Whether a push into a repository may be under way, of which these are what its manifest will name.
fn any_young(root: &Path, unnamed: &[Digest], now: SystemTime) -> io::Result<bool> {
    for digest in unnamed {
        if young(&root.join("_blobs").join(digest.hex()), now)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Does a piece of work while nobody writes into a repository.
pub(crate) type Alone<'a> = dyn Fn(&mut dyn FnMut() -> io::Result<Option<u64>>) -> io::Result<Option<u64>> + 'a;

/// Removes a file that nothing refers to. The answer is how many bytes it had; `None`: it is young, since its manifest may be on
/// its way.
fn remove_old(path: &Path, now: SystemTime) -> io::Result<Option<u64>> {
    if young(path, now)? {
        return Ok(None);
    }
    let size = found(fs::metadata(path))?.map_or(0, |metadata| metadata.len());
    found(fs::remove_file(path))?;
    Ok(Some(size))
}

/// The same alone. Nobody has to wait for what is young anyway.
fn take_old(path: &Path, now: SystemTime, alone: &Alone<'_>) -> io::Result<Option<u64>> {
    if young(path, now)? { Ok(None) } else { alone(&mut || remove_old(path, now)) }
}

/// Makes a file young, if it is there: somebody refers to it from now on.
fn touch(path: &Path) -> io::Result<()> {
    found(File::open(path).and_then(|file| file.set_modified(SystemTime::now()))).map(drop)
}

fn young(path: &Path, now: SystemTime) -> io::Result<bool> {
    let modified = found(fs::metadata(path).and_then(|metadata| metadata.modified()))?;
    // What was touched after `now` is younger still.
    Ok(modified.is_some_and(|modified| now.duration_since(modified).map_or(true, |age| age < GRACE)))
}

/// "Not found" as `None`.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names in a directory, in order; none if it does not exist.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = found(fs::read_dir(dir))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn digests(dir: &Path) -> io::Result<Vec<Digest>> {
    Ok(names(dir)?.iter().filter_map(|hex| format!("sha256:{hex}").parse().ok()).collect())
}
