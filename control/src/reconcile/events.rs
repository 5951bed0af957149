//! Tells people what happened, as `v1` Events: repeated ones are counted, similar ones combined, floods cut.
//!
//! Recording never waits: events travel through a bounded channel to one task that correlates them as Kubernetes' clients do
//! (25 per object and source at once, then one per five minutes; after ten similar messages in ten minutes they are
//! combined). What finds the channel full is counted and dropped: events are for reading, nothing depends on them.

use std::collections::HashMap;
use std::future::Future;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use super::{Metrics, code_of};

/// Events that wait to be recorded; a rollout of a thousand pods makes two thousand.
const WAITING: usize = 4096;
/// Requests in flight.
const IN_FLIGHT: usize = 32;
/// How many events are remembered for counting; more than that and the oldest are forgotten.
const REMEMBERED: usize = 4096;
const SPAM_BURST: f64 = 25.0;
const SPAM_PER_SECOND: f64 = 1.0 / 300.0;
const SIMILAR: usize = 10;
const SIMILAR_SECONDS: i64 = 600;

/// Normal or Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Normal,
    Warning,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Hands events to the recording task; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    component: &'static str,
    /// As whose events are recorded; `None`: the client's.
    manager: Option<&'static str>,
    sender: mpsc::Sender<Record>,
    metrics: Metrics,
}

/// One thing that happened.
#[derive(Clone, Debug)]
struct Record {
    component: &'static str,
    manager: Option<&'static str>,
    about: ObjectReference,
    kind: Type,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl EventRecorder {
    /// A recorder and the task that serves it; the caller owns the task.
    pub fn new(client: Client, metrics: Metrics) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { component: "wherry", manager: None, sender, metrics }, record(client, receiver))
    }

    /// The same recorder under another component's name.
    #[must_use]
    pub fn component(&self, component: &'static str) -> Self {
        Self { component, ..self.clone() }
    }

    /// The same recorder for another program of the cluster, which is the manager of what it writes.
    #[must_use]
    pub fn managed_by(&self, manager: &'static str) -> Self {
        Self { manager: Some(manager), ..self.clone() }
    }

    /// Records that something happened to `object`.
    pub fn event<K: Resource<DynamicType = ()>>(&self, object: &K, kind: Type, reason: &'static str, message: String) {
        self.event_at(Timestamp::now(), object, kind, reason, message);
    }

    /// The same of something that happened at `at`.
    pub fn event_at<K: Resource<DynamicType = ()>>(
        &self,
        at: Timestamp,
        object: &K,
        kind: Type,
        reason: &'static str,
        message: String,
    ) {
        self.send(object.object_ref(&()), kind, reason, message, at);
    }

    /// Records that something happened to the object that `about` refers to.
    pub fn about(&self, about: ObjectReference, kind: Type, reason: &'static str, message: String) {
        self.send(about, kind, reason, message, Timestamp::now());
    }

    fn send(&self, about: ObjectReference, kind: Type, reason: &'static str, message: String, at: Timestamp) {
        let record = Record { component: self.component, manager: self.manager, about, kind, reason, message, at };
        if self.sender.try_send(record).is_err() {
            self.metrics.dropped_event();
        }
    }
}

async fn record(client: Client, mut receiver: mpsc::Receiver<Record>) {
    let mut correlator = Correlator::default();
    let mut flights = JoinSet::new();
    while let Some(record) = receiver.recv().await {
        let Some(event) = correlator.correlate(&record) else { continue };
        if flights.len() >= IN_FLIGHT {
            flights.join_next().await;
        }
        while flights.try_join_next().is_some() {}
        flights.spawn(write(client.clone(), event, record.manager.map(str::to_owned)));
    }
}

async fn write(client: Client, event: Event, field_manager: Option<String>) {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let name = event.metadata.name.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client, &namespace);
    let mut result = Ok(());
    if event.count.unwrap_or_default() > 1 {
        let patch = json!({"count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message});
        let params = PatchParams { field_manager: field_manager.clone(), ..PatchParams::default() };
        result = api.patch(&name, &params, &Patch::Merge(patch)).await.map(drop);
        if result.as_ref().err().and_then(code_of) != Some(404) {
            return note(result);
        }
    }
    if result.is_err() || event.count.unwrap_or_default() <= 1 {
        note(api.create(&PostParams { field_manager, ..PostParams::default() }, &event).await.map(drop));
    }
}

/// Namespaces that end refuse events; that and any other loss is no reason to try again.
fn note(result: Result<(), kube::Error>) {
    if let Err(error) = result {
        debug!(%error, "an event was not recorded");
    }
}

/// Decides what is written about an event, from those before it.
#[derive(Debug, Default)]
struct Correlator {
    budgets: HashMap<String, Budget>,
    similar: HashMap<String, Similar>,
    events: HashMap<String, Event>,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

#[derive(Debug)]
struct Similar {
    messages: Vec<String>,
    last: Timestamp,
}

impl Correlator {
    fn correlate(&mut self, record: &Record) -> Option<Event> {
        self.forget();
        let object = identity(record);
        if !self.afford(&object, record.at) {
            return None;
        }
        let kind = format!("{object}\n{}\n{}", record.kind.as_str(), record.reason);
        let (key, message) = self.combine(kind, record.message.clone(), record.at);
        let event = self.events.entry(key).or_insert_with(|| first(record));
        event.count = Some(event.count.unwrap_or_default() + 1);
        event.last_timestamp = Some(Time(record.at));
        event.message = Some(message);
        Some(event.clone())
    }

    fn afford(&mut self, object: &str, now: Timestamp) -> bool {
        let budget = self.budgets.entry(object.to_owned()).or_insert(Budget { tokens: SPAM_BURST, at: now });
        let elapsed = now.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.tokens = (budget.tokens + elapsed * SPAM_PER_SECOND).min(SPAM_BURST);
        budget.at = now;
        let affordable = budget.tokens >= 1.0;
        if affordable {
            budget.tokens -= 1.0;
        }
        affordable
    }

    /// The key under which the event is counted, and its message.
    fn combine(&mut self, kind: String, message: String, now: Timestamp) -> (String, String) {
        let similar = self.similar.entry(kind.clone()).or_insert(Similar { messages: Vec::new(), last: now });
        if now.duration_since(similar.last).as_secs() > SIMILAR_SECONDS {
            similar.messages.clear();
        }
        similar.last = now;
        if !similar.messages.contains(&message) && similar.messages.len() < SIMILAR {
            similar.messages.push(message.clone());
        }
        if similar.messages.len() < SIMILAR {
            return (format!("{kind}\n{message}"), message);
        }
        (kind, format!("(combined from similar events): {message}"))
    }

    fn forget(&mut self) {
        if self.budgets.len() > REMEMBERED {
            self.budgets.clear();
        }
        if self.similar.len() > REMEMBERED {
            self.similar.clear();
        }
        if self.events.len() > REMEMBERED {
            self.events.clear();
        }
    }
}

fn identity(record: &Record) -> String {
    let about = &record.about;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    [record.component.to_owned(), part(&about.kind), part(&about.namespace), part(&about.name), part(&about.uid)]
        .join("\n")
}

/// The event as it is created, its count still missing.
fn first(record: &Record) -> Event {
    let about = &record.about;
    let namespace = about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
    let subject = about.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            namespace: Some(namespace),
            // As Kubernetes names them: names sort as their events happened.
            name: Some(format!("{subject}.{:x}", record.at.as_nanosecond())),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(record.kind.as_str().to_owned()),
        reason: Some(record.reason.to_owned()),
        source: Some(EventSource { component: Some(record.component.to_owned()), host: None }),
        reporting_component: Some(record.component.to_owned()),
        first_timestamp: Some(Time(record.at)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(message: &str, second: i64) -> Record {
        Record {
            manager: None,
            component: "replicaset-controller",
            about: ObjectReference { name: Some("r".into()), uid: Some("u".into()), ..ObjectReference::default() },
            kind: Type::Normal,
            reason: "SuccessfulCreate",
            message: message.to_owned(),
            at: Timestamp::from_second(second).expect("a time"),
        }
    }

    #[test]
    fn the_same_event_again_is_counted() {
        let mut correlator = Correlator::default();
        let one = correlator.correlate(&happened("m", 1)).expect("an event");
        let two = correlator.correlate(&happened("m", 9)).expect("an event");
        assert_eq!(one.metadata.name, two.metadata.name);
        assert_eq!((one.count, two.count), (Some(1), Some(2)));
        assert_eq!(two.first_timestamp, one.first_timestamp);
        assert_eq!(two.last_timestamp, Some(Time(Timestamp::from_second(9).expect("a time"))));
    }

    #[test]
    fn an_events_name_ends_with_its_time_in_hexadecimal() {
        let event = Correlator::default().correlate(&happened("m", 1)).expect("an event");
        assert_eq!(event.metadata.name.as_deref(), Some("r.3b9aca00"));
    }

    #[test]
    fn similar_events_are_combined_and_a_flood_is_cut() {
        let mut correlator = Correlator::default();
        let events: Vec<Event> = (0..100).filter_map(|i| correlator.correlate(&happened(&i.to_string(), 1))).collect();
        assert_eq!(events.len(), 25);
        let combined = events.last().and_then(|e| e.message.as_deref()).unwrap_or_default();
        assert_eq!(combined, "(combined from similar events): 24");
        assert_eq!(events.iter().filter(|e| e.count == Some(1)).count(), 10);
    }

    #[test]
    fn an_event_about_a_cluster_object_is_in_the_default_namespace() {
        let event = Correlator::default().correlate(&happened("m", 1)).expect("an event");
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
    }
}
