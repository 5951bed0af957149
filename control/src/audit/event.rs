//! One request's events, `audit.k8s.io/v1` Event: what is known of it, from its arrival to the end of its answer.
//!
//! What must stay true: an event has what its level says and no more; what a client may make large (its name, the objects) is
//! bounded before it is written.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::USER_AGENT;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use wherry_api::object;

use super::policy::{Level, Stage, Verdict};
use crate::auth::{Attributes, UserInfo};

/// Bytes of an event; a larger one is written without its objects, as Kubernetes truncates.
pub(super) const LARGEST: usize = 10 * 1024 * 1024;
/// Characters of a client's name for itself.
const AGENT: usize = 1024;
const TRUNCATED: &str = "audit.k8s.io/truncated";
/// Addresses that a client's headers may name.
const ADDRESSES: usize = 16;

/// An event as it is written; fields in Kubernetes' order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    uri: &'a str,
    verb: &'a str,
    user: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a Value>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

/// What is known of a request when it arrives.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) id: String,
    pub(super) uri: String,
    pub(super) verb: String,
    /// Whose credentials these are.
    pub(super) user: Value,
    /// Whom the request acts as, if that is somebody else.
    pub(super) impersonated: Option<Value>,
    pub(super) source_ips: Vec<String>,
    pub(super) user_agent: String,
    pub(super) received: Timestamp,
}

/// What is learned of it later.
#[derive(Debug, Default)]
struct Learned {
    object_ref: Option<ObjectRef>,
    status: Option<Value>,
    request: Option<Value>,
    response: Option<Value>,
    annotations: BTreeMap<String, String>,
}

/// The facts of one request.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) verdict: Verdict,
    arrival: Arrival,
    learned: Mutex<Learned>,
}

impl Facts {
    pub(super) fn new(verdict: Verdict, arrival: Arrival, attributes: &Attributes) -> Self {
        let object_ref = attributes.is_resource().then(|| ObjectRef {
            resource: attributes.resource.clone(),
            namespace: attributes.namespace.clone(),
            name: attributes.name.clone(),
            api_group: attributes.group.clone(),
            api_version: attributes.version.clone(),
            subresource: attributes.subresource.clone(),
            ..ObjectRef::default()
        });
        Self { verdict, arrival, learned: Mutex::new(Learned { object_ref, ..Learned::default() }) }
    }

    pub(super) fn id(&self) -> &str {
        &self.arrival.id
    }

    /// Whether the answer may be a Status although nothing failed.
    pub(super) fn deletes(&self) -> bool {
        self.arrival.verb == "delete"
    }

    pub(super) fn annotate(&self, annotations: impl IntoIterator<Item = (String, String)>) {
        self.learned.lock().annotations.extend(annotations);
    }

    /// What the client sent, decoded.
    pub(super) fn requested(&self, object: &Value) {
        let mut learned = self.learned.lock();
        if let Some(reference) = &mut learned.object_ref {
            for (known, said) in [
                (&mut reference.namespace, object::namespace(object)),
                (&mut reference.name, object::name(object)),
                (&mut reference.uid, object::uid(object)),
                (&mut reference.resource_version, object::resource_version(object)),
            ] {
                if known.is_empty() {
                    said.clone_into(known);
                }
            }
        }
        if self.verdict.level >= Level::Request {
            learned.request = Some(self.shown(object.clone()));
        }
    }

    /// The name that the server generated.
    pub(super) fn named(&self, name: &str) {
        if let Some(reference) = &mut self.learned.lock().object_ref {
            name.clone_into(&mut reference.name);
        }
    }

    /// The answer's code and, if it was read, its document.
    pub(super) fn answered(&self, code: u16, document: Option<Value>) {
        let mut learned = self.learned.lock();
        let mut status = json!({"metadata": {}, "code": code});
        if let Some(document) = document {
            if object::kind(&document) == "Status" {
                for field in ["status", "message", "reason", "details"] {
                    if let Some(value) = document.get(field) {
                        object::set_at(&mut status, field, value.clone());
                    }
                }
            }
            if self.verdict.level >= Level::RequestResponse {
                learned.response = Some(self.shown(document));
            }
        }
        learned.status = Some(status);
    }

    /// An answer that is no document of the server's.
    pub(super) fn failed(&self, reason: &str, message: String, code: u16) {
        let status = json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code});
        self.learned.lock().status = Some(status);
    }

    /// Nobody awaits an answer any more. What was asked may have been done; Kubernetes says it so.
    pub(super) fn left(&self) {
        let early = || json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200});
        self.learned.lock().status.get_or_insert_with(early);
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.verdict.omit_managed_fields {
            omit_managed_fields(&mut object);
        }
        object
    }

    /// The event of a stage, as a line.
    pub(super) fn line(&self, stage: Stage) -> Result<Vec<u8>, serde_json::Error> {
        let mut learned = self.learned.lock();
        let line = self.encode(stage, &learned)?;
        if line.len() <= LARGEST {
            return Ok(line);
        }
        learned.request = None;
        learned.response = None;
        learned.annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
        self.encode(stage, &learned)
    }

    fn encode(&self, stage: Stage, learned: &Learned) -> Result<Vec<u8>, serde_json::Error> {
        let Arrival { id, uri, verb, user, impersonated, source_ips, user_agent, received } = &self.arrival;
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: self.verdict.level,
            id,
            stage,
            uri,
            verb,
            user,
            impersonated_user: impersonated.as_ref(),
            source_ips,
            user_agent,
            object_ref: learned.object_ref.as_ref(),
            response_status: learned.status.as_ref(),
            request_object: learned.request.as_ref(),
            response_object: learned.response.as_ref(),
            request_received_timestamp: micro_time(*received),
            stage_timestamp: micro_time(Timestamp::now()),
            annotations: &learned.annotations,
        };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// `metav1.MicroTime`.
fn micro_time(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// Of an object, of a list's items and of a table's rows.
fn omit_managed_fields(object: &mut Value) {
    object::remove_meta(object, "managedFields");
    for (list, inner) in [("items", None), ("rows", Some("object"))] {
        for item in object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let item = match inner {
                Some(inner) => item.get_mut(inner),
                None => Some(item),
            };
            if let Some(item) = item {
                object::remove_meta(item, "managedFields");
            }
        }
    }
}

/// A user as events show one.
pub(super) fn user(user: &UserInfo) -> Value {
    if *user == UserInfo::default() { json!({}) } else { user.to_json() }
}

/// The client's name for itself, cut where Kubernetes cuts it.
pub(super) fn agent(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes())).unwrap_or_default();
    if text.chars().nth(AGENT).is_none() {
        return text.into_owned();
    }
    let kept: String = text.chars().take(AGENT).collect();
    kept + "...TRUNCATED"
}

/// Where a request says it comes from, and last where its connection does come from.
pub(super) fn source_ips(headers: &HeaderMap, address: std::net::IpAddr) -> Vec<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parsed = |text: &str| text.trim().parse::<std::net::IpAddr>().ok();
    let mut found: Vec<_> = header("x-forwarded-for").split(',').filter_map(parsed).take(ADDRESSES).collect();
    if let Some(real) = parsed(header("x-real-ip")).filter(|real| !found.contains(real)) {
        found.push(real);
    }
    if found.last() != Some(&address) {
        found.push(address);
    }
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(level: Level, omit_managed_fields: bool) -> Facts {
        let arrival = Arrival {
            id: "id".into(),
            uri: "/api/v1/namespaces/web/pods?x=y".into(),
            verb: "create".into(),
            user: user(&UserInfo::authenticated("jane", &[])),
            impersonated: None,
            source_ips: vec!["192.0.2.1".into()],
            user_agent: "kubectl".into(),
            received: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
        };
        let attributes = Attributes {
            resource: "pods".into(),
            version: "v1".into(),
            namespace: "web".into(),
            ..Attributes::default()
        };
        Facts::new(Verdict { level, omit_managed_fields, ..Verdict::default() }, arrival, &attributes)
    }

    fn event(facts: &Facts) -> Value {
        serde_json::from_slice(&facts.line(Stage::ResponseComplete).unwrap()).unwrap()
    }

    #[test]
    fn each_level_has_what_it_says_and_no_more() {
        let object = json!({"metadata": {"name": "p", "uid": "u", "managedFields": [{}]}, "spec": {}});
        for (level, request, response) in [
            (Level::Metadata, Value::Null, Value::Null),
            (Level::Request, object.clone(), Value::Null),
            (Level::RequestResponse, object.clone(), object.clone()),
        ] {
            let facts = facts(level, false);
            facts.requested(&object);
            facts.answered(201, Some(object.clone()));
            let event = event(&facts);
            assert_eq!((&event["requestObject"], &event["responseObject"]), (&request, &response), "{level:?}");
            assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
            let reference =
                json!({"resource": "pods", "namespace": "web", "name": "p", "uid": "u", "apiVersion": "v1"});
            assert_eq!(event["objectRef"], reference);
            assert_eq!(event["requestReceivedTimestamp"], "2026-01-02T03:04:05.123456Z");
        }
    }

    #[test]
    fn managed_fields_are_left_out_of_objects_lists_and_tables() {
        let facts = facts(Level::RequestResponse, true);
        let object = json!({"metadata": {"name": "p", "managedFields": [{}]}});
        facts.requested(&object);
        facts.answered(200, Some(json!({"items": [object], "rows": [{"object": object}]})));
        let text = event(&facts).to_string();
        assert!(text.contains("\"p\"") && !text.contains("managedFields"), "{text}");
    }

    #[test]
    fn an_event_that_is_too_large_is_written_without_its_objects() {
        let facts = facts(Level::RequestResponse, false);
        facts.requested(&json!({"data": "x".repeat(LARGEST)}));
        facts.answered(200, None);
        let event = event(&facts);
        assert_eq!((&event["requestObject"], &event["annotations"][TRUNCATED]), (&Value::Null, &json!("true")));
    }

    #[test]
    fn the_connections_address_is_the_last_that_is_named() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap())).collect()
        };
        let own = std::net::IpAddr::from([192, 0, 2, 9]);
        assert_eq!(source_ips(&headers(&[]), own), ["192.0.2.9"]);
        let named = headers(&[("x-forwarded-for", "192.0.2.1, nonsense, ::1"), ("x-real-ip", "192.0.2.2")]);
        assert_eq!(source_ips(&named, own), ["192.0.2.1", "::1", "192.0.2.2", "192.0.2.9"]);
        assert_eq!(source_ips(&headers(&[("x-real-ip", "192.0.2.9")]), own), ["192.0.2.9"]);
        let long = headers(&[("user-agent", &"é".repeat(AGENT + 1))]);
        assert_eq!(agent(&long).chars().count(), AGENT + "...TRUNCATED".len());
    }
}
