//! Container logs in the CRI format, on disk, for `kubectl logs`.
//!
//! `<data-dir>/pods/<namespace>_<name>_<uid>/<container>/<attempt>.log`, rotated to `<attempt>.log.1` and so on. A silent
//! container has no descriptor, and no file before it is restarted: that tells the next process how often it was. A loud one
//! waits for the disk instead of filling memory; nothing that was written is lost when a container or the process ends in order.

pub mod format;
pub mod read;
pub mod writer;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::pod::setup::identity;
use writer::Writer;
pub use writer::{ContainerLog, Limits};

/// All logs of a node.
#[derive(Debug)]
pub struct Logs {
    /// `<data-dir>/pods`.
    root: PathBuf,
    writer: Arc<Writer>,
    /// Logs that are being written, by file. Bounded by the containers that run.
    live: Mutex<std::collections::HashMap<PathBuf, std::sync::Weak<ContainerLog>>>,
}

impl Logs {
    /// Opens the logs below `data_dir`; starts the thread that writes them.
    pub fn open_dir(data_dir: &Path, limits: Limits) -> io::Result<Self> {
        let root = data_dir.join("pods");
        std::fs::create_dir_all(&root)?;
        Ok(Self { root, writer: Arc::new(Writer::start(limits)?), live: Mutex::default() })
    }

    /// The folder of a pod.
    pub fn pod_dir(&self, pod: &Pod) -> PathBuf {
        let (namespace, name, uid) = identity(pod);
        self.root.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The log of one instance of a container. One that exists (the process was restarted) is continued.
    pub fn open(&self, pod: &Pod, container: &str, attempt: u32) -> Arc<ContainerLog> {
        let dir = self.pod_dir(pod).join(container);
        let path = dir.join(format!("{attempt}.log"));
        let log = ContainerLog::new(path.clone(), attempt, self.writer.clone());
        let mut live = self.live.lock();
        live.retain(|_, log| log.strong_count() > 0);
        live.insert(path, Arc::downgrade(&log));
        log
    }

    /// The number of a container's newest instance that has a log: each that was restarted has one, unless the disk had no room.
    pub fn newest(&self, pod: &Pod, container: &str) -> Option<u32> {
        let files = std::fs::read_dir(self.pod_dir(pod).join(container)).ok()?;
        files.filter_map(|entry| writer::attempt(Path::new(&entry.ok()?.file_name()))).max()
    }

    /// The log that is being written to `path`, if any.
    pub fn live(&self, path: &Path) -> Option<Arc<ContainerLog>> {
        self.live.lock().get(path).and_then(std::sync::Weak::upgrade)
    }

    /// Removes all that a pod left.
    pub async fn remove_pod(&self, pod: &Pod) {
        let dir = self.pod_dir(pod);
        remove(vec![dir]).await;
    }

    /// Removes what pods left that are none of `uids`.
    pub async fn remove_others(&self, uids: &HashSet<String>) {
        let root = self.root.clone();
        let found = tokio::task::spawn_blocking(move || -> io::Result<Vec<PathBuf>> {
            std::fs::read_dir(root)?.map(|entry| Ok(entry?.path())).collect()
        });
        let Ok(Ok(dirs)) = found.await else { return };
        let foreign = |dir: &PathBuf| {
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.rsplit_once('_').is_some_and(|(_, uid)| !uids.contains(uid))
        };
        remove(dirs.into_iter().filter(foreign).collect()).await;
    }
}

async fn remove(dirs: Vec<PathBuf>) {
    if dirs.is_empty() {
        return;
    }
    let removed = tokio::task::spawn_blocking(move || {
        for dir in dirs {
            match std::fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(dir = %dir.display(), %error, "cannot remove a pod's folder");
                }
                _ => {}
            }
        }
    });
    if removed.await.is_err() {
        tracing::warn!("removing pod folders was interrupted");
    }
}

#[cfg(test)]
mod tests;
