//! Brings the default roles and bindings up to what this version knows, at start.

use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, StatusCode};
use serde_json::Value;
use wherry_api::object;
use wherry_api::resource::Descriptor;

use super::expect;
use crate::auth::rbac::defaults;
use crate::server::Server;
use crate::server::error::ServerError;
use crate::server::versions;

/// Written at once, so that they share commits.
const AT_ONCE: usize = 64;

impl Server {
    /// Creates default roles and bindings that are missing, and completes those that lack something. Safe to repeat.
    pub async fn bootstrap_roles(&self) -> Result<(), ServerError> {
        let work = defaults::all().into_iter().map(|wanted| self.reconcile_role(wanted));
        stream::iter(work).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    async fn reconcile_role(&self, wanted: Value) -> Result<(), ServerError> {
        let found = self.registry().by_kind(object::api_version(&wanted), object::kind(&wanted)).cloned();
        let Some(resource) = found else { return Ok(()) };
        let (namespace, name) = (object::namespace(&wanted), object::name(&wanted));
        let all = collection(&resource, namespace);
        let Some(stored) = self.current(&resource, namespace, name) else {
            return self.ensure(&all, name, &wanted).await;
        };
        let stored = versions::tree(&resource, &stored).await?;
        let one = format!("{all}/{name}");
        if defaults::other_role(&stored, &wanted) {
            self.ask(Method::DELETE, &one, "application/json", None).await?;
            return self.ensure(&all, name, &wanted).await;
        }
        let Some(complete) = defaults::completed(&stored, &wanted) else { return Ok(()) };
        let written = self.ask(Method::PUT, &one, "application/json", Some(&complete)).await?;
        expect(written, StatusCode::OK).await
    }
}

fn collection(resource: &Descriptor, namespace: &str) -> String {
    let place = if namespace.is_empty() { String::new() } else { format!("namespaces/{namespace}/") };
    format!("/apis/{}/{}/{place}{}", resource.group, resource.version, resource.plural)
}
