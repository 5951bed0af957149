//! The pipeline from request to answer, over the real store on memory and the real cache.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use wherry_api::object;
use wherry_api::registry::Registry;
use wherry_api::resource::Descriptor;

use super::health::Health;
use super::metrics::Metrics;
use super::{Config, Server, body};
use crate::auth::{AllowAll, Authorizer, UserInfo};
use crate::cache::Cache;
use crate::store::redb::RedbStore;
use crate::store::{Encoded, Key, Op, Store, Txn};

mod admission;
mod admission_policies;
mod aggregation;
mod allocation;
mod applying;
mod approval;
mod auditing;
mod bad_input;
mod custom;
mod deletion;
mod events;
mod every_kind;
mod fairness;
mod forms;
mod images;
mod in_flight;
mod listing;
mod pod_security;
mod quota;
mod refusals;
mod reviews;
mod subresources;
mod subresources_shown;
mod unsent;
mod versions;
mod watching;
mod webhook_answers;
mod webhooks;
mod writing;

/// A server with its namespaces, and a client of it.
pub(super) struct Api {
    pub(super) server: Server,
}

/// An answer that has been read.
#[derive(Debug)]
pub(super) struct Answer {
    code: u16,
    headers: HeaderMap,
    text: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.text)))
    }

    fn message(&self) -> String {
        self.json().get("message").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn reason(&self) -> String {
        self.json().get("reason").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok()).collect()
    }

    #[track_caller]
    pub(super) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.text));
        self.json()
    }
}

impl Api {
    pub(super) async fn new() -> Self {
        Self::with(|_, _| Arc::new(AllowAll)).await
    }

    /// With another authorizer.
    async fn with(authorizer: impl FnOnce(&Cache, &Registry) -> Arc<dyn Authorizer>) -> Self {
        Self::configured(authorizer, |_| ()).await
    }

    /// With another authorizer and configuration.
    async fn configured(
        authorizer: impl FnOnce(&Cache, &Registry) -> Arc<dyn Authorizer>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::over(Arc::new(RedbStore::in_memory().unwrap()), authorizer, change).await
    }

    /// Over a store that there is.
    async fn over(
        store: Arc<dyn Store>,
        authorizer: impl FnOnce(&Cache, &Registry) -> Arc<dyn Authorizer>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let registry = Registry::builtin();
        let cache = Cache::start(Arc::clone(&store), &registry).await.unwrap();
        let authorizer = authorizer(&cache, &registry);
        let mut config = Config {
            service_range: "10.96.0.0/24".parse().unwrap(),
            not_for_services: vec!["127.0.0.0/8".parse().unwrap()],
            node_ports: 30000..=32767,
            advertise: "192.0.2.1:6443".parse().unwrap(),
            node_tls: None,
            tokens: None,
            front_proxy: None,
            images: None,
            audit: None,
            scratch: None,
            health: Health::new(Vec::new()),
            metrics: Metrics::new(Vec::new()),
            seats: 60,
            flow: crate::flow::Metrics::default(),
        };
        change(&mut config);
        let server = Server::new(registry, store, cache, authorizer, config).await.unwrap();
        server.bootstrap().await.unwrap();
        Self { server }
    }

    async fn send(&self, request: http::request::Builder, bytes: impl Into<bytes::Bytes>) -> Answer {
        self.send_as(UserInfo::admin(), request, bytes).await
    }

    async fn send_as(&self, user: UserInfo, request: http::request::Builder, bytes: impl Into<bytes::Bytes>) -> Answer {
        let request: Request<_> = request.body(body::full(bytes)).unwrap();
        let response = self.server.handle(request, user).await;
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// The code of an answer, and the message of one that is an error: the others' bodies may have no end.
    async fn status_as(
        &self,
        request: http::request::Builder,
        bytes: impl Into<bytes::Bytes>,
        user: &UserInfo,
    ) -> (u16, String) {
        let request: Request<_> = request.body(body::full(bytes)).unwrap();
        let response = self.server.handle(request, user.clone()).await;
        let code = response.status().as_u16();
        if code < 400 {
            return (code, String::new());
        }
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&text).into_owned())
    }

    async fn call(&self, method: Method, path: &str, object: &Value) -> Answer {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        self.send(request, object.to_string()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Request::get(path).header(ACCEPT, accept), "").await
    }

    pub(super) async fn post(&self, path: &str, object: &Value) -> Answer {
        self.call(Method::POST, path, object).await
    }

    async fn put(&self, path: &str, object: &Value) -> Answer {
        self.call(Method::PUT, path, object).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path), "").await
    }

    async fn patch(&self, kind: &str, path: &str, patch: &Value) -> Answer {
        let media = format!("application/{kind}+json");
        self.send(Request::patch(path).header(CONTENT_TYPE, media), patch.to_string()).await
    }

    /// Opens a watch; its lines come one by one.
    async fn watch(&self, path: &str) -> Lines {
        let request = Request::get(path).body(body::empty()).unwrap();
        let response = self.server.handle(request, UserInfo::admin()).await;
        assert_eq!(response.status(), 200);
        Lines(Box::pin(response.into_body().into_data_stream().map(|chunk| chunk.unwrap())))
    }
}

struct Lines(futures::stream::BoxStream<'static, bytes::Bytes>);

impl Api {
    /// Stores an object as an earlier server has.
    async fn left(&self, plural: &str, object: &Value) {
        let registry = self.server.registry();
        let resource = registry.by_plural("", "v1", plural).unwrap().storage_resource();
        let (bytes, splice) = object::encode(object);
        let key = Key::new(&resource, object::namespace(object), object::name(object));
        let txn = Txn { ops: vec![Op::Put { key, value: Encoded { bytes, splice } }], ..Txn::default() };
        let revision = self.server.store().commit(txn).await.unwrap().revision;
        self.server.cache().reached(revision).await;
    }
}

impl Lines {
    /// The next event's type and object; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        let line = tokio::time::timeout(Duration::from_secs(10), self.0.next()).await.expect("no event in time")?;
        let event: Value = serde_json::from_slice(&line).unwrap();
        Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()))
    }
}

/// The collection of a kind in the namespace `default`.
fn collection(resource: &Descriptor) -> String {
    let root = if resource.group.is_empty() { "api".to_owned() } else { format!("apis/{}", resource.group) };
    let place = if resource.namespaced() { "namespaces/default/" } else { "" };
    format!("/{root}/{}/{place}{}", resource.version, resource.plural)
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "example.com/c:1"}]}})
}

/// What the black-box tests create, too.
fn minimal(resource: &Descriptor) -> Option<Value> {
    let all: Value = serde_json::from_str(include_str!("../../../../tests/support/minimal.json")).unwrap();
    all.get(format!("{}/{}", resource.group, resource.kind)).cloned()
}

/// A valid object of a kind. Its name is `name`, unless the kind's names are not free.
fn sample(resource: &Descriptor, name: &str) -> Value {
    let listed = minimal(resource);
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": pod(name)["spec"]});
    let workload = json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template}});
    let mut job = json!({"template": {"spec": pod(name)["spec"]}, "suspend": true});
    job["template"]["spec"]["restartPolicy"] = "Never".into();
    let rest = match resource.kind.as_ref() {
        _ if listed.is_some() => listed.unwrap(),
        "Pod" => json!({"spec": pod(name)["spec"]}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Event" => json!({"involvedObject": {"namespace": "default"}, "reason": "Testing"}),
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet" => workload,
        "ReplicationController" => json!({"spec": {"replicas": 0, "template": template}}),
        "PodTemplate" => json!({ "template": template }),
        "Job" => json!({"spec": job}),
        "CronJob" => json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": job}}}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}}),
        "LimitRange" => json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "9"}}}),
        "PersistentVolume" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
                "csi": {"driver": "d.example.com", "volumeHandle": "v"}}})
        }
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "ControllerRevision" => json!({"revision": 1, "data": {}}),
        "Lease" => json!({"spec": {"holderIdentity": "me"}}),
        "SelfSubjectAccessReview" => {
            json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}})
        }
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            json!({"spec": {"user": "jane",
                "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}})
        }
        "SelfSubjectRulesReview" => json!({"spec": {"namespace": "default"}}),
        "TokenReview" => json!({"spec": {"token": "x"}}),
        "Namespace" | "Node" | "ConfigMap" | "Secret" | "ServiceAccount" | "Endpoints" | "SelfSubjectReview" => {
            json!({})
        }
        other => panic!("write a sample of {other} into minimal.json"),
    };
    let mut object = rest;
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.as_ref().into();
    let fixed = object["metadata"]["name"].as_str().map(str::to_owned);
    // A question has no name.
    let named = resource.group != "authorization.k8s.io";
    object["metadata"] = if named { json!({"name": fixed.as_deref().unwrap_or(name)}) } else { json!({}) };
    object
}
