//! Keeps the FlowSchemas and PriorityLevelConfigurations that every cluster has, and tells schemas whether their level is
//! missing.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{SelectAll, select_all};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use wherry_api::object;

use super::expect;
use crate::cache::{Events, Filter};
use crate::flow::{self, defaults};
use crate::server::Server;
use crate::server::answer;
use crate::server::error::ServerError;
use crate::server::write::Stored;

const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
/// As whom Kubernetes writes them.
const MANAGER: &str = "fieldManager=api-priority-and-fairness-config-producer-v1";
const STATUS_MANAGER: &str = "fieldManager=api-priority-and-fairness-config-consumer-v1";
/// Without a change they are looked at this often, as in Kubernetes.
const EVERY: Duration = Duration::from_mins(1);
/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(50);

impl Server {
    /// Creates what is missing, and makes the others as they have to be. Safe to repeat.
    pub async fn bootstrap_flow(&self) -> Result<(), ServerError> {
        for wanted in defaults::all() {
            self.settle_default(&wanted).await?;
        }
        let registry = self.registry();
        let find = |kind| registry.by_kind(&format!("{}/v1", flow::GROUP), kind).cloned();
        let (Some(schemas), Some(levels)) = (find(defaults::SCHEMA), find(defaults::LEVEL)) else { return Ok(()) };
        for entry in self.cache().all(&schemas.storage_resource(), "") {
            let schema = answer::parse(&entry.bytes)?;
            let exists = |level: &str| self.current(&levels, "", level).is_some();
            if let Some(condition) = defaults::dangling(&schema, exists) {
                self.tell(&schema, condition).await?;
            }
        }
        Ok(())
    }

    /// Does that whenever one of them changes, until the server stops.
    pub async fn keep_flow(&self) {
        let mut changes = SelectAll::new();
        loop {
            if changes.is_empty() {
                changes = self.flow_changes().await;
            }
            tokio::select! {
                _ = changes.next(), if !changes.is_empty() => tokio::time::sleep(PAUSE).await,
                () = tokio::time::sleep(EVERY) => {}
                () = self.stopping().cancelled() => return,
            }
            if let Err(error) = self.bootstrap_flow().await {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "flow schemas and priority levels could not be kept; will try again");
            }
        }
    }

    async fn flow_changes(&self) -> SelectAll<Events> {
        let registry = self.registry();
        let mut all = Vec::new();
        for kind in [defaults::LEVEL, defaults::SCHEMA] {
            let Some(resource) = registry.by_kind(&format!("{}/v1", flow::GROUP), kind) else { continue };
            all.extend(self.cache().watch(resource, Filter::default(), Some(self.cache().revision())).await.ok());
        }
        select_all(all)
    }

    async fn settle_default(&self, wanted: &Value) -> Result<(), ServerError> {
        let (kind, name) = (object::kind(wanted), object::name(wanted));
        let all = if kind == defaults::LEVEL { LEVELS } else { SCHEMAS };
        let Some(resource) = self.registry().by_kind(object::api_version(wanted), kind).cloned() else { return Ok(()) };
        let Some(Stored { bytes, .. }) = self.current(&resource, "", name) else {
            let made = self.ask(Method::POST, &format!("{all}?{MANAGER}"), "application/json", Some(wanted)).await?;
            return expect(made, StatusCode::CREATED).await;
        };
        let mut wanted = wanted.clone();
        // Defaults are part of what is wanted.
        resource.strategy.default(&mut wanted);
        let Some(new) = defaults::settled(&answer::parse(&bytes)?, &wanted) else { return Ok(()) };
        let one = format!("{all}/{name}?{MANAGER}");
        let written = self.ask(Method::PUT, &one, "application/json", Some(&new)).await?;
        expect(written, StatusCode::OK).await
    }

    /// Writes a condition of a schema.
    async fn tell(&self, schema: &Value, condition: Value) -> Result<(), ServerError> {
        let others = defaults::conditions(schema).filter(|c| c.get("type") != condition.get("type"));
        let mut conditions: Vec<Value> = others.cloned().collect();
        conditions.push(condition);
        let patch = json!({"metadata": {"resourceVersion": object::resource_version(schema)},
            "status": {"conditions": conditions}});
        let path = format!("{SCHEMAS}/{}/status?{STATUS_MANAGER}", object::name(schema));
        let written = self.ask(Method::PATCH, &path, "application/merge-patch+json", Some(&patch)).await?;
        expect(written, StatusCode::OK).await
    }
}
