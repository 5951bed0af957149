//! ConfigMaps and Secrets, read when a container starts.
//!
//! A read is shared by all who asked before it began and by nobody who asked later, so a thousand containers that start
//! together read an object a few times, and a container that starts after a change never sees what was before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use parking_lot::Mutex;

/// Which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    ConfigMap,
    Secret,
}

/// What an object holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// A Secret's `type`.
    pub type_: String,
    /// By key. Values need not be text.
    pub values: BTreeMap<String, Vec<u8>>,
}

/// An object's content, shared by all who asked for it together.
pub type Data = Arc<Held>;

/// Why an object could not be read; worded for a container's waiting message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("{} \"{name}\" not found", kind.resource())]
    NotFound { kind: Kind, name: String },
    #[error("failed to read {} \"{name}\": {message}", kind.resource())]
    Failed { kind: Kind, name: String, message: String },
}

impl Kind {
    fn resource(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }

    /// As messages about a key name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

type Key = (Kind, String, String);
type Answer = Result<Data, ReferenceError>;

/// Reads objects for containers. Holds nothing between reads.
#[derive(Clone)]
pub struct References {
    client: Client,
    clock: Arc<AtomicU64>,
    reads: Arc<Mutex<HashMap<Key, Arc<Slot>>>>,
}

#[derive(Default)]
struct Slot {
    /// When the last read began, and what it found.
    last: tokio::sync::Mutex<Option<(u64, Answer)>>,
}

impl std::fmt::Debug for References {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("References").finish_non_exhaustive()
    }
}

impl References {
    pub fn new(client: Client) -> Self {
        Self { client, clock: Arc::default(), reads: Arc::default() }
    }

    /// The object as it is now, or a moment later.
    pub async fn read(&self, kind: Kind, namespace: &str, name: &str) -> Answer {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let asked = self.clock.fetch_add(1, Ordering::SeqCst);
        let slot = self.reads.lock().entry(key.clone()).or_default().clone();
        let answer = {
            let mut last = slot.last.lock().await;
            match &*last {
                Some((began, answer)) if *began > asked => answer.clone(),
                _ => {
                    let began = self.clock.fetch_add(1, Ordering::SeqCst);
                    let answer = self.get(kind, namespace, name).await;
                    *last = Some((began, answer.clone()));
                    answer
                }
            }
        };
        let mut reads = self.reads.lock();
        // The map's and ours: nobody waits for it any more.
        if Arc::strong_count(&slot) == 2 {
            reads.remove(&key);
        }
        answer
    }

    async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Answer {
        let client = self.client.clone();
        let found = match kind {
            Kind::ConfigMap => {
                Api::<ConfigMap>::namespaced(client, namespace).get_opt(name).await.map(|o| o.map(of_config_map))
            }
            Kind::Secret => Api::<Secret>::namespaced(client, namespace).get_opt(name).await.map(|o| o.map(of_secret)),
        };
        match found {
            Ok(Some(data)) => Ok(Arc::new(data)),
            Ok(None) => Err(ReferenceError::NotFound { kind, name: name.to_owned() }),
            Err(error) => Err(ReferenceError::Failed { kind, name: name.to_owned(), message: error.to_string() }),
        }
    }
}

fn of_config_map(object: ConfigMap) -> Held {
    let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    let values =
        binary.chain(object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()))).collect();
    Held { type_: String::new(), values }
}

fn of_secret(object: Secret) -> Held {
    let values = object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect();
    Held { type_: object.type_.unwrap_or_default(), values }
}
