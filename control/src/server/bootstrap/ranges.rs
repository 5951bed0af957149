//! Keeps the ServiceCIDR `kubernetes`, which is the server's own range, as Kubernetes does: one that is missing is made, one
//! that nobody has judged yet is ready, and everything else is left to whoever changed it.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use wherry_api::object;

use super::expect;
use crate::server::Server;
use crate::server::alloc::DEFAULT;
use crate::server::answer;
use crate::server::error::ServerError;
use crate::server::write::Stored;

const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
/// As whom Kubernetes writes it.
const MANAGER: &str = "fieldManager=kubernetes-service-cidr-controller";

impl Server {
    /// Says in the log when the stored one is not the range that is configured: which of the two is meant is not for the
    /// server to know.
    pub fn check_range(&self) -> Result<(), ServerError> {
        let Some(kind) = self.registry().by_kind("networking.k8s.io/v1", "ServiceCIDR").cloned() else { return Ok(()) };
        let Some(Stored { bytes, .. }) = self.current(&kind, "", DEFAULT) else { return Ok(()) };
        let stored = answer::parse(&bytes)?;
        let (cidrs, configured) = (object::at(&stored, "spec.cidrs"), self.config().service_range.to_string());
        if cidrs != Some(&json!([configured])) {
            let cidrs = cidrs.map(Value::to_string);
            tracing::warn!(cidrs, configured, "the ServiceCIDR kubernetes is not the range that is configured");
        }
        Ok(())
    }

    /// Safe to repeat.
    pub(super) async fn settle_range(&self) -> Result<(), ServerError> {
        let Some(kind) = self.registry().by_kind("networking.k8s.io/v1", "ServiceCIDR").cloned() else { return Ok(()) };
        let ranges = json!([self.config().service_range.to_string()]);
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": DEFAULT},
            "spec": {"cidrs": ranges}});
        self.ensure(RANGES, DEFAULT, &object).await?;
        let Some(Stored { bytes, .. }) = self.current(&kind, "", DEFAULT) else { return Ok(()) };
        let stored = answer::parse(&bytes)?;
        if object::at(&stored, "spec.cidrs") != Some(&ranges) {
            return Ok(());
        }
        let conditions =
            object::at(&stored, "status.conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let judged = conditions
            .iter()
            .any(|c| object::text_at(c, "type") == "Ready" && object::text_at(c, "status") != "Unknown");
        if judged || object::is_deleting(&stored) {
            return Ok(());
        }
        let ready = json!({"type": "Ready", "status": "True", "reason": "",
            "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": object::format_time(jiff::Timestamp::now())});
        let patch = json!({"metadata": {"resourceVersion": object::resource_version(&stored)},
            "status": {"conditions": [ready]}});
        let path = format!("{RANGES}/{DEFAULT}/status?{MANAGER}");
        let written = self.ask(Method::PATCH, &path, "application/merge-patch+json", Some(&patch)).await?;
        expect(written, StatusCode::OK).await
    }
}
