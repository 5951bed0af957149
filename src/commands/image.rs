//! `wherry image`: the images of the cluster's own registry, over the OCI distribution API at `/v2/`.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use oci_distribution::Reference;
use serde_json::Value;
use wherry_runtime::image::blobs::digest_of;
use wherry_runtime::image::manifest::ACCEPTED;
use wherry_runtime::image::package::Package;
use wherry_runtime::image::reference::{self, CLUSTER_REGISTRY};

use super::push;
use crate::client::{Client, Connection, JSON, is_code};
use crate::output;
use crate::table::Table;

/// The images of the cluster's own registry.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// List images
    Ls(Ls),
    /// Remove an image's tag or manifest
    Rm(One),
    /// Show an image's manifest and config
    Inspect(One),
    /// Package a component and store it; without a name it is NAMESPACE/FILE
    Import(Import),
}

/// List images.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    connection: Connection,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// One image.
#[derive(Debug, Args)]
pub struct One {
    #[command(flatten)]
    connection: Connection,
    /// [NAMESPACE/]NAME, with :TAG or @DIGEST; without a namespace it is the current one
    image: String,
}

/// A component to store.
#[derive(Debug, Args)]
pub struct Import {
    #[command(flatten)]
    connection: Connection,
    /// The component or core module
    wasm: PathBuf,
    /// NAMESPACE/NAME:TAG, or NAME:TAG; without a namespace it is the current one
    image: Option<String>,
}

impl Image {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Ls(command) => list(&command.connection.open().await?, command.all_namespaces).await,
            Self::Rm(command) => {
                let client = command.connection.open().await?;
                remove(&client, &parse(&command.image, &client.namespace)?).await
            }
            Self::Inspect(command) => {
                let client = command.connection.open().await?;
                inspect(&client, &parse(&command.image, &client.namespace)?).await
            }
            Self::Import(command) => command.run().await,
        }
    }
}

fn parse(image: &str, namespace: &str) -> anyhow::Result<Reference> {
    let full = if image.starts_with(&format!("{CLUSTER_REGISTRY}/")) {
        image.to_owned()
    } else if image.contains('/') {
        format!("{CLUSTER_REGISTRY}/{image}")
    } else {
        format!("{CLUSTER_REGISTRY}/{namespace}/{image}")
    };
    reference::parse(&full).with_context(|| format!("{image:?} is not [NAMESPACE/]NAME[:TAG][@DIGEST]"))
}

fn strings<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    value.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Names that a page has at most, as the registry limits it.
const PAGE: usize = 1000;

/// All of a list that the registry gives in pages.
async fn names(client: &Client, path: &str, field: &str, namespace: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("n", &PAGE.to_string());
        query.extend_pairs(namespace.map(|namespace| ("namespace", namespace)));
        query.extend_pairs(all.last().map(|last| ("last", last)));
        let page = client.read(&format!("{path}?{}", query.finish())).await?;
        let before = all.len();
        all.extend(strings(&page, field).map(str::to_owned));
        if all.len() < before + PAGE {
            return Ok(all);
        }
    }
}

/// What is said to who may not list images there.
fn not_listed(error: anyhow::Error, namespace: Option<&str>) -> anyhow::Error {
    if !is_code(&error, 403) {
        return error;
    }
    match namespace {
        Some(namespace) => anyhow!(
            "images of namespace {namespace} may not be listed by this user (list images.wherry.dev); -n names another"
        ),
        None => anyhow!("images of all namespaces may not be listed by this user; -n NAMESPACE lists those of one"),
    }
}

async fn list(client: &Client, everywhere: bool) -> anyhow::Result<()> {
    let namespace = (!everywhere).then_some(client.namespace.as_str());
    let repositories = names(client, "/v2/_catalog", "repositories", namespace).await;
    let mut rows = Vec::new();
    for repository in &repositories.map_err(|error| not_listed(error, namespace))? {
        for tag in &names(client, &format!("/v2/{repository}/tags/list"), "tags", None).await? {
            let bytes = manifest(client, repository, tag).await?;
            let size: u64 = serde_json::from_slice::<Value>(&bytes)?
                .get("layers")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|layer| layer.get("size").and_then(Value::as_u64))
                .sum();
            rows.push(vec![
                repository.to_owned(),
                tag.to_owned(),
                digest_of(&bytes),
                format!("{} KB", size.div_ceil(1000)),
            ]);
        }
    }
    if rows.is_empty() {
        output::note(client.nothing_found(everywhere));
        return Ok(());
    }
    Table::new(&["REPOSITORY", "TAG", "DIGEST", "SIZE"], rows).lines(true).iter().for_each(output::line);
    Ok(())
}

async fn manifest(client: &Client, repository: &str, which: &str) -> anyhow::Result<Vec<u8>> {
    let path = format!("/v2/{repository}/manifests/{which}");
    client.request(http::Method::GET, &path, &ACCEPTED.join(", "), None).await
}

/// What is said of an image that is not there.
fn absent(error: anyhow::Error, image: &Reference) -> anyhow::Error {
    if is_code(&error, 404) {
        return anyhow!("{} is not in the cluster's registry; `wherry image ls` lists what is", image.whole());
    }
    error
}

fn which(image: &Reference) -> &str {
    image.digest().or(image.tag()).unwrap_or("latest")
}

async fn remove(client: &Client, image: &Reference) -> anyhow::Result<()> {
    let path = format!("/v2/{}/manifests/{}", image.repository(), which(image));
    client.request(http::Method::DELETE, &path, JSON, None).await.map_err(|error| absent(error, image))?;
    output::line(format!("{} removed", image.whole()));
    Ok(())
}

async fn inspect(client: &Client, image: &Reference) -> anyhow::Result<()> {
    let bytes = manifest(client, image.repository(), which(image)).await.map_err(|error| absent(error, image))?;
    let manifest: Value = serde_json::from_slice(&bytes)?;
    let Some(config) = manifest.pointer("/config/digest").and_then(Value::as_str) else {
        bail!("the manifest of {} has no config", image.whole())
    };
    let config = client.read(&format!("/v2/{}/blobs/{config}", image.repository())).await?;
    let shown = serde_json::json!({
        "name": image.whole(), "digest": digest_of(&bytes), "manifest": manifest, "config": config,
    });
    output::line(serde_json::to_string_pretty(&shown)?);
    Ok(())
}

impl Import {
    async fn run(self) -> anyhow::Result<()> {
        let client = self.connection.open().await?;
        let stem = self.wasm.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
        let image = parse(&self.image.unwrap_or(stem), &client.namespace)?;
        let wasm = std::fs::read(&self.wasm).with_context(|| format!("{} cannot be read", self.wasm.display()))?;
        let package = Package::of(wasm).with_context(|| format!("{} cannot be packaged", self.wasm.display()))?;
        output::line(push::to_cluster(&package, &image, &client.kube).await?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_namespace_is_in_the_current_one() {
        for (image, whole) in [
            ("app", "wherry.local/ns/app:latest"),
            ("app:v2", "wherry.local/ns/app:v2"),
            ("other/app:v2", "wherry.local/other/app:v2"),
            ("wherry.local/other/app", "wherry.local/other/app:latest"),
        ] {
            assert_eq!(parse(image, "ns").unwrap().whole(), whole);
        }
        assert!(parse("a/b/c", "ns").is_err() && parse("Not A Name", "ns").is_err());
    }
}
