//! `wherry apply`: creates or changes objects from manifests, as `kubectl apply` does on the client's side.
//!
//! What a manifest said last is kept in kubectl's own annotation, so that both tools can be used in turn: a field that
//! left the manifest is removed, a field that the manifest never had is left alone. A list is what the manifest says it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use kube::discovery::Discovery;
use serde_json::{Map, Value, json};
use wherry_runtime::image::package::Package;
use wherry_runtime::image::reference::{self, CLUSTER_REGISTRY};

use crate::client::{Client, Connection, JSON, Resource, is_code, resource_of};
use crate::manifest::{self, Document};
use crate::output;

/// kubectl's annotation.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What requests say of fields that the server does not know: refuse them.
const STRICT: &str = "fieldManager=wherry&fieldValidation=Strict";

/// Create or change objects from manifests; images that are paths are packaged and pushed.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    connection: Connection,
    /// A file, a folder, or `-` for standard input; repeatable
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<String>,
}

impl Apply {
    pub async fn run(self) -> anyhow::Result<()> {
        let documents = manifest::read(&self.filename)?;
        let mut applier = Applier::new(self.connection.open().await?).await?;
        let mut failed = 0;
        for mut document in documents {
            match applier.apply(&mut document).await {
                Ok(applied) => {
                    output::line(format!("{} {}", applied.resource.named(document.name()), applied.outcome.word()));
                }
                Err(error) => {
                    failed += 1;
                    output::error(&error.context(format!(
                        "{} {} ({})",
                        document.kind(),
                        document.name(),
                        document.origin
                    )));
                }
            }
        }
        if failed > 0 {
            bail!("{failed} objects could not be applied");
        }
        Ok(())
    }
}

/// What became of one document.
#[derive(Debug)]
pub struct Applied {
    pub resource: Resource,
    pub outcome: Outcome,
    /// As the server has it now.
    pub object: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Applies documents, one after the other.
pub struct Applier {
    client: Client,
    discovery: Discovery,
    /// Files packaged before, by path and namespace.
    packaged: BTreeMap<(PathBuf, String), String>,
}

impl Applier {
    pub async fn new(client: Client) -> anyhow::Result<Self> {
        let discovery =
            Discovery::new(client.kube.clone()).run().await.context("the server's kinds cannot be listed")?;
        Ok(Self { client, discovery, packaged: BTreeMap::new() })
    }

    /// Packages what needs it, then creates or changes the object.
    pub async fn apply(&mut self, document: &mut Document) -> anyhow::Result<Applied> {
        let resource = resource_of(&self.discovery, document.api_version(), document.kind())?;
        if document.name().is_empty() {
            bail!("metadata.name is needed to apply an object");
        }
        let namespace = document.namespace().unwrap_or(&self.client.namespace).to_owned();
        if resource.namespaced {
            metadata(&mut document.object)?.insert("namespace".into(), namespace.clone().into());
        }
        self.package_images(document, &namespace).await?;
        let path = resource.path(Some(&namespace), Some(document.name()));
        let (outcome, object) = match self.client.request(http::Method::GET, &path, JSON, None).await {
            Ok(live) => self.change(&path, &document.object, &serde_json::from_slice(&live)?).await?,
            Err(error) if is_code(&error, 404) => {
                let mut object = document.object.clone();
                annotate(&mut object, &document.object)?;
                let path = format!("{}?{STRICT}", resource.path(Some(&namespace), None));
                let body = Some((JSON, serde_json::to_vec(&object)?));
                (
                    Outcome::Created,
                    serde_json::from_slice(&self.client.request(http::Method::POST, &path, JSON, body).await?)?,
                )
            }
            Err(error) => return Err(error),
        };
        Ok(Applied { resource, outcome, object })
    }

    async fn change(&self, path: &str, wanted: &Value, live: &Value) -> anyhow::Result<(Outcome, Value)> {
        let last = live.pointer("/metadata/annotations").and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str);
        let last: Value = last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let mut annotated = wanted.clone();
        annotate(&mut annotated, wanted)?;
        let Some(patch) = three_way(&last, live, &annotated) else { return Ok((Outcome::Unchanged, live.clone())) };
        let body = Some(("application/merge-patch+json", serde_json::to_vec(&patch)?));
        let answer = self.client.request(http::Method::PATCH, &format!("{path}?{STRICT}"), JSON, body).await?;
        let object: Value = serde_json::from_slice(&answer)?;
        let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
        let outcome = if version(&object) == version(live) { Outcome::Unchanged } else { Outcome::Configured };
        Ok((outcome, object))
    }

    /// Replaces images that are paths by what they are in the cluster's registry.
    async fn package_images(&mut self, document: &mut Document, namespace: &str) -> anyhow::Result<()> {
        let folder = document.folder.clone();
        for image in manifest::images(&mut document.object) {
            let Some(path) = image.as_str().filter(|image| manifest::is_path(image)) else { continue };
            let path = folder.join(path.trim_start_matches("file://").trim_start_matches("file:"));
            let pushed = self.package(&path, namespace).await.with_context(|| format!("image {}", path.display()))?;
            *image = Value::String(pushed);
        }
        Ok(())
    }

    async fn package(&mut self, path: &Path, namespace: &str) -> anyhow::Result<String> {
        let key = (path.to_owned(), namespace.to_owned());
        if let Some(pushed) = self.packaged.get(&key) {
            return Ok(pushed.clone());
        }
        let wasm = std::fs::read(path).context("the file cannot be read")?;
        let package = Package::of(wasm)?;
        let to = reference::parse(&format!("{CLUSTER_REGISTRY}/{namespace}/{}", repository(path)))?;
        let pushed = package.push_to_cluster(&to, &self.client.kube).await?;
        self.packaged.insert(key, pushed.clone());
        Ok(pushed)
    }
}

/// A repository's name from a file's: lower case, what OCI allows.
fn repository(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "component".to_owned() } else { parts.join("-") }
}

fn metadata(object: &mut Value) -> anyhow::Result<&mut Map<String, Value>> {
    object.get_mut("metadata").and_then(Value::as_object_mut).context("metadata is not an object")
}

/// Puts what was applied into the annotation, as kubectl does.
fn annotate(object: &mut Value, applied: &Value) -> anyhow::Result<()> {
    let text = format!("{}\n", serde_json::to_string(applied)?);
    let annotations = metadata(object)?.entry("annotations").or_insert_with(|| json!({}));
    annotations
        .as_object_mut()
        .context("metadata.annotations is not an object")?
        .insert(LAST_APPLIED.into(), text.into());
    Ok(())
}

/// The JSON merge patch (RFC 7386) that makes of `live` what `wanted` says, and removes what `last` said and `wanted` no
/// longer does. `None`: nothing to do.
fn three_way(last: &Value, live: &Value, wanted: &Value) -> Option<Value> {
    let Value::Object(wanted) = wanted else { return (live != wanted).then(|| wanted.clone()) };
    let empty = Map::new();
    let (last, live_map) = (last.as_object().unwrap_or(&empty), live.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for (field, value) in wanted.iter().filter(|(_, value)| !value.is_null()) {
        match live_map.get(field) {
            None => drop(patch.insert(field.clone(), value.clone())),
            Some(present) => {
                if let Some(change) = three_way(last.get(field).unwrap_or(&Value::Null), present, value) {
                    patch.insert(field.clone(), change);
                }
            }
        }
    }
    for field in
        last.keys().filter(|field| wanted.get(*field).is_none_or(Value::is_null) && live_map.contains_key(*field))
    {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_manifest_changed_is_sent() {
        let last = json!({"spec": {"replicas": 3, "paused": true, "template": {"a": 1}}});
        let live =
            json!({"spec": {"replicas": 5, "paused": true, "template": {"a": 1, "defaulted": 2}}, "status": {"x": 1}});
        let wanted = json!({"spec": {"replicas": 4, "template": {"a": 1}}});
        assert_eq!(three_way(&last, &live, &wanted), Some(json!({"spec": {"replicas": 4, "paused": null}})));
        assert_eq!(
            three_way(&wanted, &live, &json!({"spec": {"replicas": 5}})),
            Some(json!({"spec": {"template": null}}))
        );
        assert_eq!(three_way(&Value::Null, &live, &json!({"spec": {"replicas": 5}})), None);
    }

    #[test]
    fn a_file_name_becomes_a_repository_name() {
        for (path, name) in
            [("a/hello-http.wasm", "hello-http"), ("My App_v2.wasm", "my-app-v2"), ("--.wasm", "component")]
        {
            assert_eq!(repository(Path::new(path)), name);
        }
    }
}
