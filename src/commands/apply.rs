//! `wherry apply`: creates or changes objects from manifests by server-side apply.
//!
//! The server remembers which fields the manifest had: one that left it is removed, one that it never had is left alone, and
//! one that somebody else has set is not taken from them without `--force-conflicts`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use kube::discovery::Discovery;
use serde_json::{Map, Value};
use wherry_api::object;
use wherry_runtime::image::package::Package;
use wherry_runtime::image::reference::{self, CLUSTER_REGISTRY};

use super::{logs, push};
use crate::client::{Client, Connection, JSON, Refused, Resource, is_code, resource_of};
use crate::manifest::{self, Document};
use crate::progress::Progress;
use crate::table::Table;
use crate::{output, ready};

/// Who the server notes as the manager of the fields.
pub const MANAGER: &str = "wherry";
const APPLY: &str = "application/apply-patch+yaml";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";

/// Create or change objects from manifests; images that are paths are packaged and pushed.
///
/// A field that has left the manifest since it was last applied is removed; fields that it never had are left alone. It is an
/// error to change a field that somebody else manages, such as replicas after `kubectl scale`: --force-conflicts takes it over.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    connection: Connection,
    /// A file, a folder, an http(s) URL, or `-` for standard input; repeatable
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<String>,
    /// Take over fields that others manage
    #[arg(long)]
    force_conflicts: bool,
    /// Return when workloads and pods are ready and Services reach them, as `wherry up -f` waits; a pod that fails is an error,
    /// and so is a Deployment that exceeds its progress deadline (10 minutes, if it sets no `progressDeadlineSeconds`)
    #[arg(long)]
    wait: bool,
    /// The longest to wait: seconds, or a span such as `5m` [default: for ever]
    #[arg(long, value_name = "SPAN", requires = "wait", value_parser = logs::seconds)]
    timeout: Option<u64>,
}

impl Apply {
    pub async fn run(self) -> anyhow::Result<()> {
        let documents = manifest::read(&self.filename).await?;
        let client = self.connection.open().await?;
        let mut applier = Applier::new(client.clone(), self.force_conflicts).await?;
        let (mut all, mut failed) = (Vec::new(), 0);
        for mut document in documents {
            match applier.apply(&mut document).await {
                Ok(applied) => {
                    let name = applied.resource.named(document.name());
                    output::line(format!("{name} {}", applied.outcome.word()));
                    for taken in &applied.taken {
                        output::note(format!("{name}: took over {taken}"));
                    }
                    all.push(applied);
                }
                Err(error) => {
                    failed += 1;
                    output::error(&error.context(document.described()));
                }
            }
        }
        if failed > 0 {
            bail!("{} could not be applied", output::counted(failed, "object"));
        }
        if self.wait { self.until_ready(&client, &all).await } else { Ok(()) }
    }

    async fn until_ready(&self, client: &Client, applied: &[Applied]) -> anyhow::Result<()> {
        let mut step = Progress::new(false).step("pods");
        let longest = self.timeout.map_or(Duration::MAX, Duration::from_secs);
        let waiting = async {
            let failed = ready::wait(client, applied, &mut step).await?;
            if failed.is_empty() {
                ready::reachable(client, applied).await?;
            }
            anyhow::Ok(failed)
        };
        let Ok(failed) = tokio::time::timeout(longest, waiting).await else {
            drop(step);
            let lacking = ready::lacking(client, applied).await?;
            let lacking = if lacking.is_empty() { "Services have no endpoints" } else { &lacking };
            bail!("not ready after {} s: {lacking}", longest.as_secs());
        };
        let failed = failed?;
        if failed.is_empty() {
            if applied.iter().any(|one| ready::pods_path(one).is_some()) {
                step.done("ready");
            }
            return Ok(());
        }
        drop(step);
        bail!("{}", failed.join("\n"))
    }
}

/// What became of one document.
#[derive(Debug)]
pub struct Applied {
    pub resource: Resource,
    pub outcome: Outcome,
    /// As the server has it now.
    pub object: Value,
    /// Fields taken from others, and from whom.
    pub taken: Vec<String>,
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
    /// Takes fields from other managers.
    force: bool,
    /// Files packaged before, by path and namespace.
    packaged: BTreeMap<(PathBuf, String), String>,
}

impl Applier {
    pub async fn new(client: Client, force: bool) -> anyhow::Result<Self> {
        let discovery = client.discovery().await?;
        Ok(Self { client, discovery, force, packaged: BTreeMap::new() })
    }

    /// Packages what needs it, then has the server apply the object.
    pub async fn apply(&mut self, document: &mut Document) -> anyhow::Result<Applied> {
        let resource = resource_of(&self.discovery, document.api_version(), document.kind())?;
        document.needed_name("apply")?;
        let namespace = document.namespace().unwrap_or(&self.client.namespace).to_owned();
        if resource.namespaced {
            metadata(&mut document.object)?.insert("namespace".into(), namespace.clone().into());
        }
        self.package_images(document, &namespace).await?;
        let path = resource.path(Some(&namespace), Some(document.name()));
        let before = match self.client.request(http::Method::GET, &path, METADATA, None).await {
            Ok(live) => Some(serde_json::from_slice::<Value>(&live)?),
            Err(error) if is_code(&error, 404) => None,
            Err(error) => return Err(error),
        };
        let body = Some((APPLY, serde_json::to_vec(&document.object)?));
        let (answer, taken) = self.send(&path, body).await?;
        let object: Value = serde_json::from_slice(&answer)?;
        let outcome = match before {
            None => Outcome::Created,
            Some(before) if object::resource_version(&before) == object::resource_version(&object) => {
                Outcome::Unchanged
            }
            Some(_) => Outcome::Configured,
        };
        Ok(Applied { resource, outcome, object, taken })
    }

    /// The server's answer, and which fields were taken from whom.
    async fn send(&self, path: &str, body: Option<(&str, Vec<u8>)>) -> anyhow::Result<(Vec<u8>, Vec<String>)> {
        let query = |force| format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict&force={force}");
        let request =
            |force, body| async move { self.client.request(http::Method::PATCH, &query(force), JSON, body).await };
        match request(false, body.clone()).await {
            Ok(answer) => Ok((answer, Vec::new())),
            Err(error) if self.force => match error.downcast_ref::<Refused>() {
                Some(refused) if !refused.conflicts.is_empty() => Ok((request(true, body).await?, taken(refused))),
                _ => Err(error),
            },
            Err(error) => Err(explained(error)),
        }
    }

    /// Replaces images that are paths by what they are in the cluster's registry.
    async fn package_images(&mut self, document: &mut Document, namespace: &str) -> anyhow::Result<()> {
        let folder = document.folder.clone();
        for image in manifest::images(&mut document.object) {
            let Some(path) = image.as_str() else { continue };
            if manifest::may_be_file(path) {
                let Some(folder) = &folder else { continue };
                if !folder.join(path).is_file() {
                    output::note(format!(
                        "Warning: image {path}: ./{path} was not found beside the manifest, so it is pulled from docker.io"
                    ));
                    continue;
                }
            } else if !manifest::is_path(path) {
                continue;
            }
            let Some(folder) = &folder else {
                bail!("image {image}: a manifest from a URL cannot name files of this machine");
            };
            // Without the `./` that is in its middle then.
            let path = folder.join(path.trim_start_matches("file://").trim_start_matches("file:"));
            let path: PathBuf = path.components().collect();
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
        let pushed = push::to_cluster(&package, &to, &self.client.kube).await?;
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

/// Each field in conflict and who manages it.
fn conflicts(refused: &Refused) -> impl Iterator<Item = (&str, String)> {
    refused.conflicts.iter().map(|(field, message)| {
        let who = message.strip_prefix("conflict with ").unwrap_or(message);
        (field.trim_start_matches('.'), who.replace('"', ""))
    })
}

/// The fields that are taken over, and from whom.
fn taken(refused: &Refused) -> Vec<String> {
    conflicts(refused).map(|(field, who)| format!("{field} (from {who})")).collect()
}

/// What is said instead of the server's message when fields belong to others.
fn explained(error: anyhow::Error) -> anyhow::Error {
    let Some(refused) = error.downcast_ref::<Refused>().filter(|refused| !refused.conflicts.is_empty()) else {
        return error;
    };
    let rows = conflicts(refused).map(|(field, who)| vec![format!("  {field}"), who]);
    let fields = Table::new(&["", ""], rows.collect()).lines(false).join("\n");
    anyhow!(
        "others manage fields that would change:\n{fields}\n\
         Apply with --force-conflicts to take them over, or leave them out of the manifest"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_tells_each_field_and_its_manager() {
        let conflicts = vec![
            (
                ".spec.replicas".to_owned(),
                "conflict with \"kubectl\" with subresource \"scale\" using apps/v1".to_owned(),
            ),
            (".data.a".to_owned(), "conflict with \"other\" using v1".to_owned()),
        ];
        let refused = Refused { code: 409, message: "Apply failed with 2 conflicts".to_owned(), conflicts };
        assert_eq!(taken(&refused)[1], "data.a (from other using v1)");
        let said = explained(anyhow::Error::new(refused)).to_string();
        for line in
            ["  spec.replicas   kubectl with subresource scale using apps/v1", "  data.a          other using v1"]
        {
            assert!(said.lines().any(|l| l == line), "{said}");
        }
        let other = Refused { code: 404, message: "no such thing".to_owned(), conflicts: Vec::new() };
        assert_eq!(explained(anyhow::Error::new(other)).to_string(), "no such thing");
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
