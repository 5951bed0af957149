//! Events on pods and on the node, in the kubelet's words, within a budget.
//!
//! At a thousand pods at once events must not crowd out statuses: equal ones are counted on one object, the rate is
//! bounded, and when the queue is full ordinary events are dropped (and counted) before warnings.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::api;
use super::setup::identity;
use crate::fault;

/// Events that wait to be written; beyond it ordinary ones are dropped.
const QUEUE: usize = 1024;
/// The same, for warnings.
const QUEUE_WARNINGS: usize = 2048;
/// Events per second, and at once after a quiet time (the kubelet's defaults).
const RATE: f64 = 50.0;
const BURST: f64 = 100.0;
/// Remembered events, by which repeated ones are counted on one object.
const REMEMBERED: usize = 1024;
/// How long a repetition is counted on the same object.
const REPEAT: Duration = Duration::from_mins(10);

/// What an event is about and says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    pub kind: &'static str,
    /// Empty for a node.
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// `spec.containers{NAME}`, or nothing for the pod itself.
    pub field_path: Option<String>,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Said {
    /// An event about a pod or one of its containers.
    pub fn about(pod: &Pod, container: Option<&str>, warning: bool, reason: &'static str, message: String) -> Self {
        let (namespace, name, uid) = identity(pod);
        Self {
            kind: "Pod",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
            warning,
            reason,
            message: fault::cut(message, fault::EVENT),
        }
    }

    /// An event about a node, whose name stands for its uid: so the kubelet has it, and so clients look for it.
    fn about_node(name: &str, warning: bool, reason: &'static str, message: String) -> Self {
        let (namespace, field_path) = (String::new(), None);
        let (name, uid) = (name.to_owned(), name.to_owned());
        Self { kind: "Node", namespace, name, uid, field_path, warning, reason, message }
    }

    /// Where the event is.
    fn home(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }
}

/// Takes events; never blocks.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: String,
    queue: Mutex<VecDeque<(Said, Timestamp)>>,
    wake: Notify,
    dropped: AtomicU64,
}

/// An event that was written, to count repetitions on.
#[derive(Debug)]
struct Written {
    object: String,
    count: i32,
    at: Instant,
}

impl Recorder {
    pub fn new(node: &str) -> Self {
        let queue = Mutex::new(VecDeque::new());
        let shared = Shared { node: node.to_owned(), queue, wake: Notify::new(), dropped: AtomicU64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Queues an event about this node.
    pub fn record_node(&self, warning: bool, reason: &'static str, message: String) {
        self.record(Said::about_node(&self.shared.node, warning, reason, message));
    }

    /// Queues an event.
    pub fn record(&self, said: Said) {
        let mut queue = self.shared.queue.lock();
        let limit = if said.warning { QUEUE_WARNINGS } else { QUEUE };
        if queue.len() >= limit {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.push_back((said, Timestamp::now()));
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Events that were dropped because too many came at once.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes events until dropped.
    pub async fn run(self, client: Client) {
        let mut bucket = Bucket { tokens: BURST, at: Instant::now() };
        let mut written = HashMap::new();
        loop {
            let next = self.shared.queue.lock().pop_front();
            let Some((said, at)) = next else {
                self.shared.wake.notified().await;
                continue;
            };
            bucket.take().await;
            self.write(&client, said, at, &mut written).await;
        }
    }

    async fn write(&self, client: &Client, said: Said, at: Timestamp, written: &mut HashMap<Said, Written>) {
        let path = format!("/api/v1/namespaces/{}/events", said.home());
        let now = Instant::now();
        if let Some(before) = written.get_mut(&said).filter(|before| now.duration_since(before.at) < REPEAT) {
            before.count += 1;
            before.at = now;
            let again = serde_json::json!({"count": before.count, "lastTimestamp": Time(at)}).to_string().into_bytes();
            let path = format!("{path}/{}", before.object);
            if api::send(client, Method::PATCH, &path, api::STRATEGIC, again).await.is_ok() {
                return;
            }
        }
        let event = self.event(&said, at);
        let object = event.metadata.name.clone().unwrap_or_default();
        let Ok(body) = serde_json::to_vec(&event) else { return };
        match api::send(client, Method::POST, &path, api::JSON, body).await {
            Ok(_) => remember(written, said, Written { object, count: 1, at: now }),
            Err(error) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(kind = said.kind, name = %said.name, reason = said.reason, %error, "event not written");
            }
        }
    }

    fn event(&self, said: &Said, at: Timestamp) -> Event {
        let host = Some(self.shared.node.clone());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:x}", said.name, at.as_nanosecond())),
                namespace: Some(said.home().to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some(said.kind.to_owned()),
                namespace: Some(said.namespace.clone()).filter(|namespace| !namespace.is_empty()),
                name: Some(said.name.clone()),
                uid: Some(said.uid.clone()),
                field_path: said.field_path.clone(),
                resource_version: None,
            },
            type_: Some(if said.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(said.reason.to_owned()),
            message: Some(said.message.clone()),
            source: Some(EventSource { component: Some("kubelet".to_owned()), host: host.clone() }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: host,
            first_timestamp: Some(Time(at)),
            last_timestamp: Some(Time(at)),
            count: Some(1),
            ..Event::default()
        }
    }
}

fn remember(written: &mut HashMap<Said, Written>, said: Said, entry: Written) {
    if written.len() >= REMEMBERED {
        let now = entry.at;
        written.retain(|_, old| now.duration_since(old.at) < REPEAT);
    }
    if written.len() >= REMEMBERED {
        // Too many different events to count repetitions of: start over.
        written.clear();
    }
    written.insert(said, entry);
}

/// A token bucket.
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    async fn take(&mut self) {
        let now = Instant::now();
        self.tokens = (self.tokens + now.duration_since(self.at).as_secs_f64() * RATE).min(BURST);
        self.at = now;
        if self.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - self.tokens) / RATE);
            tokio::time::sleep(wait).await;
        }
        self.tokens -= 1.0;
    }
}
