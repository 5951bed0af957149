//! What the server behind an APIService says of a group version: its resources and its OpenAPI document.
//!
//! What must stay true: nothing of it is believed beyond its shape: resources are read into the form that clients expect, and
//! a document speaks of its own group version only.

use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::core::discovery::v2::{APIResourceDiscovery, APISubresourceDiscovery, GroupVersionKind};
use serde_json::Value;
use tokio::time::timeout;
use wherry_api::schema::Document;

use super::Said;
use crate::auth::UserInfo;
use crate::outbound::{ClientConfig, Outbound};
use crate::server::body;

/// For one document of discovery, and for an OpenAPI document: as in Kubernetes.
const PATIENCE: Duration = Duration::from_secs(5);
const LONG_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a document; resources of a group version.
const DOCUMENT: usize = 8 * 1024 * 1024;
const RESOURCES: usize = 1000;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const JSON: &str = "application/json";

/// Whom to ask, and about what.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) outbound: Outbound,
    pub(super) config: ClientConfig,
    pub(super) group: String,
    pub(super) version: String,
}

impl Question {
    /// What the server says now; `before` is what it said.
    pub(super) async fn ask(&self, before: &Said) -> Result<Said, String> {
        let resources = match self.aggregated().await? {
            Some(resources) => resources,
            None => self.plain().await?,
        };
        let openapi = match self.openapi(before).await {
            Ok(openapi) => openapi,
            Err(why) => {
                tracing::debug!(group = self.group, version = self.version, why, "no OpenAPI document could be read");
                before.openapi.clone()
            }
        };
        let mut resources: Vec<Value> = resources.into_iter().filter_map(|r| serde_json::to_value(r).ok()).collect();
        resources.truncate(RESOURCES);
        Ok(Said { resources, current: true, openapi })
    }

    /// From aggregated discovery; `None`: the server has none, or the group version is not in it.
    async fn aggregated(&self) -> Result<Option<Vec<APIResourceDiscovery>>, String> {
        let (status, bytes) = self.get("/apis", AGGREGATED, PATIENCE).await?;
        if !status.is_success() {
            return Ok(None);
        }
        let Ok(document) = serde_json::from_slice::<Value>(&bytes) else { return Ok(None) };
        let list = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let groups = list(&document, "items").into_iter().filter(|group| text(group, "/metadata/name") == self.group);
        let mut versions = groups.flat_map(|group| list(&group, "versions"));
        let found = versions.find(|version| text(version, "/version") == self.version);
        Ok(found.map(|version| {
            let resources = list(&version, "resources").into_iter();
            resources.filter_map(|resource| self.complete(serde_json::from_value(resource).ok()?)).collect()
        }))
    }

    /// A resource with its name, and with a group and a version for what it answers.
    fn complete(&self, mut resource: APIResourceDiscovery) -> Option<APIResourceDiscovery> {
        resource.resource.as_ref().filter(|name| !name.is_empty())?;
        let kind = resource.response_kind.get_or_insert_default();
        kind.group.get_or_insert_with(|| self.group.clone());
        kind.version.get_or_insert_with(|| self.version.clone());
        Some(resource)
    }

    /// From the document of the group version itself.
    async fn plain(&self) -> Result<Vec<APIResourceDiscovery>, String> {
        let path = self.path("");
        let (status, bytes) = self.get(&path, JSON, PATIENCE).await?;
        if !status.is_success() {
            return Err(format!("{path} is answered with {status}"));
        }
        let list: APIResourceList = serde_json::from_slice(&bytes).map_err(|error| format!("{path}: {error}"))?;
        let (below, own): (Vec<_>, Vec<_>) = list.resources.into_iter().partition(|r| r.name.contains('/'));
        let mut resources: Vec<_> = own.into_iter().map(|resource| self.converted(resource)).collect();
        for sub in below {
            let Some((parent, name)) = sub.name.split_once('/') else { continue };
            if let Some(parent) = resources.iter_mut().find(|r| r.resource.as_deref() == Some(parent)) {
                parent.subresources.push(APISubresourceDiscovery {
                    subresource: Some(name.to_owned()),
                    response_kind: Some(self.kind_of(&sub)),
                    verbs: sub.verbs.clone(),
                    ..APISubresourceDiscovery::default()
                });
            }
        }
        Ok(resources)
    }

    fn converted(&self, resource: APIResource) -> APIResourceDiscovery {
        APIResourceDiscovery {
            response_kind: Some(self.kind_of(&resource)),
            resource: Some(resource.name),
            scope: Some(if resource.namespaced { "Namespaced" } else { "Cluster" }.to_owned()),
            singular_resource: Some(resource.singular_name),
            verbs: resource.verbs,
            short_names: resource.short_names.unwrap_or_default(),
            categories: resource.categories.unwrap_or_default(),
            subresources: Vec::new(),
        }
    }

    fn kind_of(&self, resource: &APIResource) -> GroupVersionKind {
        let or = |given: &Option<String>, own: &str| Some(given.clone().unwrap_or_else(|| own.to_owned()));
        GroupVersionKind {
            group: or(&resource.group, &self.group),
            version: or(&resource.version, &self.version),
            kind: Some(resource.kind.clone()),
        }
    }

    /// The document of version 3 that the server's index names, unless it is the one that is known.
    async fn openapi(&self, before: &Said) -> Result<Option<(String, Document)>, String> {
        let (status, bytes) = self.get("/openapi/v3", JSON, PATIENCE).await?;
        if !status.is_success() {
            return Err(format!("/openapi/v3 is answered with {status}"));
        }
        let index: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let place = self.path("").trim_start_matches('/').to_owned();
        let entry = index.get("paths").and_then(|paths| paths.get(&place)?.get("serverRelativeURL")?.as_str());
        let Some(url) = entry.filter(|url| url.starts_with("/openapi/v3/")) else { return Ok(None) };
        if let Some(known) = before.openapi.as_ref().filter(|(known, _)| known == url && url.contains("hash=")) {
            return Ok(Some(known.clone()));
        }
        let (status, bytes) = self.get(url, JSON, LONG_PATIENCE).await?;
        if !status.is_success() {
            return Err(format!("{url} is answered with {status}"));
        }
        let within = self.path("/");
        let document = tokio::task::spawn_blocking(move || read(&bytes, &within)).await;
        Ok(document.map_err(|error| error.to_string())??.map(|document| (url.to_owned(), document)))
    }

    fn path(&self, rest: &str) -> String {
        if self.group.is_empty() {
            format!("/api/{}{rest}", self.version)
        } else {
            format!("/apis/{}/{}{rest}", self.group, self.version)
        }
    }

    async fn get(&self, path: &str, accept: &str, within: Duration) -> Result<(StatusCode, Bytes), String> {
        let request =
            Request::get(path).header(ACCEPT, accept).body(body::empty()).map_err(|error| error.to_string())?;
        let exchange = async {
            let user = UserInfo::aggregator();
            let answer = self.outbound.send_identified(&self.config, &user, request).await;
            let (parts, body) = answer.map_err(|error| error.to_string())?.into_parts();
            let bytes = body::gather(body, DOCUMENT).await.map_err(|error| format!("{path}: {error}"))?;
            Ok((parts.status, bytes))
        };
        timeout(within, exchange).await.unwrap_or_else(|_| Err(format!("{path} was not answered in time")))
    }
}

/// A document of version 3, with the paths below `within` only.
fn read(bytes: &[u8], within: &str) -> Result<Option<Document>, String> {
    let mut document: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if !document.get("openapi").and_then(Value::as_str).is_some_and(|version| version.starts_with("3.")) {
        return Err("it is no OpenAPI document of version 3".to_owned());
    }
    if let Some(Value::Object(paths)) = document.get_mut("paths") {
        let own = within.trim_end_matches('/');
        paths.retain(|path, _| path.starts_with(within) || path == own);
    }
    Ok(Some(Document::new(&document)))
}
