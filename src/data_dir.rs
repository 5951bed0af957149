//! The data directory: where it is, who may read it, and the small facts that are decided once and kept there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// The name of the administrator's kubeconfig, which the server writes.
pub const KUBECONFIG: &str = "admin.kubeconfig";
/// The name of the file with the node's name.
const NODE_NAME: &str = "node-name";
/// The name of the file with the local network's slot.
const SLOT: &str = "network-slot";

/// An opened data directory.
#[derive(Debug)]
pub struct DataDir(PathBuf);

/// What became of asking for the directory.
#[derive(Debug)]
pub enum Lock {
    /// It is this process' until the file is closed.
    Held(fs::File),
    /// Another process has it.
    Taken,
    /// The file system knows no locks.
    Unsupported,
}

/// `$WHERRY_DATA_DIR`, `$XDG_DATA_HOME/wherry`, `~/.local/share/wherry`, or `/var/lib/wherry` for root.
pub fn default_path() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("WHERRY_DATA_DIR").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    if let Some(home) = std::env::var_os("XDG_DATA_HOME").filter(|home| !home.is_empty()) {
        return Ok(PathBuf::from(home).join("wherry"));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/wherry"));
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/wherry")),
        None => bail!("there is no $HOME or $XDG_DATA_HOME to keep data in; use --data-dir"),
    }
}

impl DataDir {
    /// Opens it, makes it if needed, and lets only this user in.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
            format!("the data directory {} cannot be made; choose another with --data-dir", path.display())
        })?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(|| {
            format!("the data directory {} is not yours; choose another with --data-dir", path.display())
        })?;
        Ok(Self(path.canonicalize()?))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Asks for the directory for this process alone.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let folder = fs::File::open(&self.0).with_context(|| format!("{} cannot be opened", self.0.display()))?;
        Ok(match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Lock::Held(folder),
            Err(rustix::io::Errno::WOULDBLOCK) => Lock::Taken,
            Err(_) => Lock::Unsupported,
        })
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The node's name: chosen once and kept. A later `--node-name` that differs is refused, since pods are bound to it.
    pub fn node_name(&self, asked: Option<&str>) -> anyhow::Result<String> {
        if let Some(kept) = self.read(NODE_NAME)? {
            match asked {
                Some(asked) if asked != kept => bail!(
                    "the node of {} is named {kept:?}; use that name, or another --data-dir for a node {asked:?}",
                    self.0.display()
                ),
                _ => return Ok(kept),
            }
        }
        let name = asked.map_or_else(host_name, str::to_owned);
        if !is_node_name(&name) {
            bail!(
                "the node name {name:?} is not good: lower-case letters, digits, '-' and '.', at most 63 characters; use --node-name"
            );
        }
        self.write(NODE_NAME, &name)?;
        Ok(name)
    }

    /// The local network's slot that this cluster's Services have addresses from, if one was chosen.
    pub fn slot(&self) -> anyhow::Result<Option<u8>> {
        Ok(self.read(SLOT)?.and_then(|text| text.parse().ok()))
    }

    pub fn keep_slot(&self, slot: u8) -> anyhow::Result<()> {
        self.write(SLOT, &slot.to_string())
    }

    fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        match fs::read_to_string(self.join(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", self.join(name).display())),
        }
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let (path, partial) = (self.join(name), self.join(&format!(".{name}.partial")));
        let written = fs::write(&partial, format!("{text}\n"))
            .and_then(|()| fs::File::open(&partial)?.sync_all())
            .and_then(|()| fs::rename(&partial, &path));
        written.with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// The host's name as a node's: lower case, without what a name may not have.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name: String = uname
        .nodename()
        .to_string_lossy()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .take(63)
        .collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

fn is_node_name(name: &str) -> bool {
    let ends =
        name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    let inside = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')) && !name.contains("..");
    ends && inside && name.len() <= 63
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_keeps_its_first_name() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        assert_eq!(data.node_name(Some("first")).unwrap(), "first");
        assert_eq!(data.node_name(None).unwrap(), "first");
        assert!(data.node_name(Some("second")).unwrap_err().to_string().contains("\"first\""));
    }

    #[test]
    fn a_bad_node_name_is_refused_and_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        for bad in ["", "UP", "a_b", "-a", "a..b", "a/b"] {
            assert!(data.node_name(Some(bad)).is_err(), "{bad}");
        }
        assert!(is_node_name(&host_name()));
    }

    #[test]
    fn one_process_has_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let held = data.lock().unwrap();
        assert!(matches!(held, Lock::Held(_)));
        assert!(matches!(data.lock().unwrap(), Lock::Taken));
        drop(held);
        assert!(matches!(data.lock().unwrap(), Lock::Held(_)));
    }

    #[test]
    fn only_its_user_may_enter() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        assert_eq!(fs::metadata(data.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
