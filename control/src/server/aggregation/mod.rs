//! Group versions that other servers serve: those of APIServices with a Service.
//!
//! One task follows the APIServices and asks the servers behind them what they serve ([`follow`]); requests, discovery and
//! OpenAPI read the table that it keeps. What must stay true: a request for a group version of this server costs a look into
//! this table and nothing else; what another server says of itself is bounded, and gone with its APIService.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Request, Response};
use serde_json::Value;
use wherry_api::kinds::apiregistration::priorities::Priority;
use wherry_api::schema::{Document, Foreign};

use super::Server;
use super::body::Body;
use super::error::ServerError;
use crate::auth::UserInfo;
use crate::outbound::ClientConfig;

mod ask;
mod follow;
mod proxy;

pub(super) use follow::keep;

/// Marks a request that this server has passed on: it came back with the front proxy's certificate, which nobody else has.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassedOn;

/// What a server last said of a group version.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// Its resources, as aggregated discovery shows them.
    pub(super) resources: Vec<Value>,
    /// Whether it says so now.
    pub(super) current: bool,
    /// Where it had its OpenAPI document, with the hash; and the document.
    openapi: Option<(String, Document)>,
}

/// A group version that another server serves.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) priority: Priority,
    /// Where it is; or why it cannot be asked, for the client.
    config: Result<ClientConfig, String>,
    available: bool,
    said: Arc<Said>,
}

impl Remote {
    pub(super) fn said(&self) -> &Said {
        &self.said
    }

    pub(super) fn document(&self) -> Option<&Document> {
        self.said.openapi.as_ref().map(|(_, document)| document)
    }

    /// The name of a resource that the server says it has: for labels of bounded variety.
    pub(super) fn resource(&self, name: &str) -> Option<&str> {
        self.said.resources.iter().filter_map(|resource| resource.get("resource")?.as_str()).find(|r| *r == name)
    }

    /// Has the other server answer.
    pub(super) async fn forward(
        &self,
        server: &Server,
        request: Request<Body>,
        user: &UserInfo,
    ) -> Result<Response<Body>, ServerError> {
        proxy::forward(self, server.outbound(), request, user).await
    }
}

/// All of them by group. Bound: the APIServices that are stored.
#[derive(Debug, Default)]
pub(super) struct Remotes(BTreeMap<String, Vec<Arc<Remote>>>);

impl Remotes {
    fn new(remotes: impl Iterator<Item = Remote>) -> Self {
        let mut all = Self::default();
        for remote in remotes {
            all.0.entry(remote.group.clone()).or_default().push(Arc::new(remote));
        }
        all
    }

    /// Who serves a group version, if it is not this server.
    pub(super) fn find(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.0.get(group)?.iter().find(|remote| remote.version == version)
    }

    /// Who answers for `/apis/GROUP/VERSION` itself.
    pub(super) fn of_path(&self, path: &str) -> Option<&Arc<Remote>> {
        if self.0.is_empty() {
            return None;
        }
        match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            ["apis", group, version] => self.find(group, version),
            ["api", version] => self.find("", version),
            _ => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Remote>> {
        self.0.values().flatten()
    }

    /// For the OpenAPI documents of all servers.
    pub(super) fn foreign(&self) -> Vec<Foreign> {
        let foreign = |remote: &Arc<Remote>| Foreign {
            group: remote.group.clone(),
            version: remote.version.clone(),
            document: remote.document().cloned(),
        };
        self.iter().map(foreign).collect()
    }
}
