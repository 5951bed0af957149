//! What a cluster has before anybody asked: its namespaces, the range of Services' addresses, and the Service
//! through which pods reach this server.
//!
//! All of it goes through the pipeline, as a user of the system. What exists is left alone, except for the Service's
//! endpoints, which follow the server's address.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use wherry_api::status::ApiError;

use super::Server;
use super::answer;
use super::body::{self, Body};
use super::error::ServerError;
use crate::auth::pki::FrontProxy;
use crate::auth::{MASTERS, UserInfo};
use crate::outbound::{EXTRA, GROUP, UID, USER};

mod flow;
mod ranges;
mod roles;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const PRIORITY_CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
/// What the system's own pods may name, as in Kubernetes.
const SYSTEM_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];
const SYSTEM_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
/// Where servers that extend this one read whom to believe.
const TRUST: &str = "extension-apiserver-authentication";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
/// How often they are looked after, as in Kubernetes.
const EVERY: Duration = Duration::from_secs(10);

impl Server {
    /// Creates what is missing. Safe to repeat. A step that fails keeps no other from being taken; the first error is told.
    pub async fn bootstrap(&self) -> Result<(), ServerError> {
        let steps = [
            self.namespaces().await,
            self.settle_range().await,
            self.service().await,
            self.classes().await,
            self.trust().await,
            self.publish().await,
        ];
        steps.into_iter().collect()
    }

    async fn namespaces(&self) -> Result<(), ServerError> {
        for name in NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            self.ensure("/api/v1/namespaces", name, &namespace).await?;
        }
        Ok(())
    }

    async fn service(&self) -> Result<(), ServerError> {
        let range = self.config().service_range;
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {"type": "ClusterIP", "clusterIP": range.first().to_string(), "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP",
                    "targetPort": self.config().advertise.port()}]},
        });
        self.ensure(SERVICES, "kubernetes", &service).await
    }

    async fn classes(&self) -> Result<(), ServerError> {
        for (name, value, description) in SYSTEM_CLASSES {
            let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": value, "description": description});
            self.ensure(PRIORITY_CLASSES, name, &class).await?;
        }
        Ok(())
    }

    async fn trust(&self) -> Result<(), ServerError> {
        match &self.config().front_proxy {
            Some(proxy) => self.settle(SYSTEM_MAPS, TRUST, &trust(proxy), "data").await,
            None => Ok(()),
        }
    }

    /// Keeps the Service `kubernetes` and its endpoints until the server stops: `kubectl delete services --all` takes it
    /// away.
    pub async fn keep_published(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.stopping().cancelled() => return,
            }
            if let Err(error) = self.bootstrap().await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "what every cluster has could not all be written; trying again");
            }
        }
    }

    /// Writes this server's address into the endpoints of the Service `kubernetes`.
    async fn publish(&self) -> Result<(), ServerError> {
        let address = self.config().advertise;
        let (ip, port) = (address.ip().to_string(), address.port());
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": ip}], "ports": ports}],
        });
        self.settle(ENDPOINTS, "kubernetes", &endpoints, "subsets").await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}], "ports": ports,
        });
        self.settle(SLICES, "kubernetes", &slice, "endpoints").await?;
        self.settle(SLICES, "kubernetes", &slice, "ports").await
    }

    /// Creates an object unless one of its name is there.
    async fn ensure(&self, collection: &str, name: &str, object: &Value) -> Result<(), ServerError> {
        let found = self.ask(Method::GET, &format!("{collection}/{name}"), "application/json", None).await?;
        if found.status() == StatusCode::OK {
            return Ok(());
        }
        let made = self.ask(Method::POST, collection, "application/json", Some(object)).await?;
        match made.status() {
            StatusCode::CREATED | StatusCode::CONFLICT => Ok(()),
            _ => Err(failure(made).await),
        }
    }

    /// Creates an object, or makes one field of it as it is here.
    async fn settle(&self, collection: &str, name: &str, object: &Value, field: &str) -> Result<(), ServerError> {
        self.ensure(collection, name, object).await?;
        let patch = json!({field: object.get(field)});
        let path = format!("{collection}/{name}");
        let patched = self.ask(Method::PATCH, &path, "application/merge-patch+json", Some(&patch)).await?;
        if patched.status() == StatusCode::OK { Ok(()) } else { Err(failure(patched).await) }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        media: &'static str,
        body: Option<&Value>,
    ) -> Result<Response<Body>, ServerError> {
        let body = body.map_or_else(body::empty, |value| body::full(value.to_string()));
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, media).body(body)?;
        Ok(self.handle(request, UserInfo::authenticated("system:apiserver", &[MASTERS])).await)
    }
}

/// Whom a server that extends this one can believe: users by their certificates, and this server about anybody.
fn trust(proxy: &FrontProxy) -> Value {
    let list = |item: &str| json!([item]).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TRUST, "namespace": "kube-system"},
        "data": {
            "client-ca-file": proxy.client_ca,
            "requestheader-client-ca-file": proxy.ca,
            "requestheader-allowed-names": list(FrontProxy::NAME),
            "requestheader-username-headers": list(&shown(USER)),
            "requestheader-uid-headers": list(&shown(UID)),
            "requestheader-group-headers": list(&shown(GROUP)),
            "requestheader-extra-headers-prefix": list(&shown(EXTRA)),
        },
    })
}

/// A header's name as Kubernetes writes it: `X-Remote-User`.
fn shown(header: &str) -> String {
    let words = header.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

/// Whether a write went well, or somebody else wrote the same just now: it is looked at again.
async fn expect(answer: Response<Body>, code: StatusCode) -> Result<(), ServerError> {
    match answer.status() {
        status if status == code => Ok(()),
        StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(()),
        _ => Err(failure(answer).await),
    }
}

/// The error that an answer tells.
async fn failure(response: Response<Body>) -> ServerError {
    let code = response.status().as_u16();
    let told = match body::collect(response.into_body()).await {
        Ok(bytes) => answer::parse(&bytes).ok(),
        Err(error) => return error.into(),
    };
    let message = told.as_ref().and_then(|s| s.get("message")).and_then(Value::as_str).unwrap_or("no message");
    ApiError::new(code, "InternalError", message).into()
}
