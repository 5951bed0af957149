//! Where repositories are: in namespaces, which end and may be made again.
//!
//! What must stay true: what is pushed comes into the namespace that was there when the push was allowed, and into none that is
//! being removed; so that nothing of a namespace is left when its repositories have been taken away.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use wherry_api::resource::GroupResource;

use super::error::RegistryError;
use crate::cache::Cache;

/// What is known of namespaces.
pub trait Namespaces: Send + Sync + 'static {
    fn life(&self, namespace: &str) -> Life;
}

/// What there is of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    Absent,
    /// It is being deleted.
    Ending,
    /// It is there, with this uid.
    Alive(Box<str>),
}

impl Namespaces for Cache {
    fn life(&self, namespace: &str) -> Life {
        let namespaces = GroupResource { group: "".into(), resource: "namespaces".into() };
        match self.get(&namespaces, "", namespace) {
            None => Life::Absent,
            Some(entry) if entry.meta.deleting => Life::Ending,
            Some(entry) => Life::Alive(entry.meta.uid.clone()),
        }
    }
}

/// All of them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Homes(Arc<Inner>);

struct Inner {
    namespaces: Arc<dyn Namespaces>,
    /// Namespaces that are being removed, and by how many. Held while something is written into any other.
    closing: RwLock<HashMap<String, u32>>,
}

impl fmt::Debug for Homes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Homes").field("closing", &self.0.closing).finish_non_exhaustive()
    }
}

impl Homes {
    pub(super) fn new(namespaces: Arc<dyn Namespaces>) -> Self {
        Self(Arc::new(Inner { namespaces, closing: RwLock::default() }))
    }

    pub(super) fn life(&self, namespace: &str) -> Life {
        self.0.namespaces.life(namespace)
    }

    /// A namespace that something may be written into.
    pub(super) fn open(&self, namespace: &str) -> Result<Home, RegistryError> {
        let uid = match self.life(namespace) {
            Life::Alive(uid) => uid,
            Life::Ending => return Err(RegistryError::Ending(namespace.to_owned())),
            Life::Absent => return Err(RegistryError::NoNamespace(namespace.to_owned())),
        };
        Ok(Home { homes: self.clone(), namespace: namespace.to_owned(), uid })
    }

    /// Does something in which no [`Homes::alone`] comes between. Blocks.
    pub(super) fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _nobody_is_alone = self.0.closing.read();
        work()
    }

    /// Does something while nobody writes into any namespace. Blocks.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let _nobody_writes = self.0.closing.write();
        work()
    }

    /// Whether something is done that does not go with being alone.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        self.0.closing.try_write().is_none()
    }

    /// From now on nothing is written into a namespace, until the answer is dropped; `work` is done when nobody writes. Blocks.
    pub(super) fn close<T>(&self, namespace: &str, work: impl FnOnce() -> T) -> (Closed, T) {
        *self.0.closing.write().entry(namespace.to_owned()).or_default() += 1;
        let closed = Closed { homes: self.clone(), namespace: namespace.to_owned() };
        // Those who began before have ended.
        let _nobody_writes = self.0.closing.write();
        (closed, work())
    }
}

/// A namespace as it was when a request came.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    homes: Homes,
    namespace: String,
    uid: Box<str>,
}

impl Home {
    /// Writes into the namespace, if it is still there. Blocks.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> io::Result<T>) -> Result<T, RegistryError> {
        let closing = self.homes.0.closing.read();
        match self.homes.life(&self.namespace) {
            Life::Alive(uid) if uid == self.uid && !closing.contains_key(&self.namespace) => Ok(work()?),
            Life::Absent => Err(RegistryError::NoNamespace(self.namespace.clone())),
            Life::Alive(_) | Life::Ending => Err(RegistryError::Ending(self.namespace.clone())),
        }
    }
}

/// A namespace that is being removed.
#[derive(Debug)]
pub(crate) struct Closed {
    homes: Homes,
    namespace: String,
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut closing = self.homes.0.closing.write();
        let left = closing.get(&self.namespace).copied().unwrap_or_default();
        if left > 1 {
            closing.insert(self.namespace.clone(), left - 1);
        } else {
            closing.remove(&self.namespace);
        }
    }
}
