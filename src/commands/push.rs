//! `wherry push`: packages a component as a CNCF Wasm artifact and pushes it, to any registry or to the cluster's own.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use oci_distribution::Reference;
use wherry_runtime::image::credentials::Credentials;
use wherry_runtime::image::package::{Package, PushError};
use wherry_runtime::image::reference::{self, CLUSTER_REGISTRY, DOCKER_HUB};
use wherry_runtime::image::source::SourceError;

use crate::client::Server;
use crate::output;

/// Package a component and push it to a registry.
///
/// Credentials come from Docker's config file ($DOCKER_CONFIG/config.json or ~/.docker/config.json). Registries on loopback
/// addresses are spoken to in plain HTTP. `wherry.local/NAMESPACE/NAME:TAG` is the cluster's own registry.
#[derive(Debug, Args)]
pub struct Push {
    #[command(flatten)]
    server: Server,
    /// The component or core module
    wasm: PathBuf,
    /// HOST/REPOSITORY:TAG
    reference: String,
}

impl Push {
    pub async fn run(self) -> anyhow::Result<()> {
        let to = reference::parse(&self.reference)
            .with_context(|| format!("{:?} is not an image reference", self.reference))?;
        let wasm = std::fs::read(&self.wasm).with_context(|| format!("{} cannot be read", self.wasm.display()))?;
        let package = Package::of(wasm).with_context(|| format!("{} cannot be packaged", self.wasm.display()))?;
        let pushed = if reference::is_cluster(&to) {
            to_cluster(&package, &to, &self.server.open().await?.kube).await?
        } else {
            if let Some(note) = assumed(&self.reference, to.registry()) {
                output::note(note);
            }
            package.push(&to, &Credentials::from_environment()?).await?
        };
        output::line(pushed);
        Ok(())
    }
}

/// Pushes to the cluster's own registry.
pub(super) async fn to_cluster(package: &Package, to: &Reference, client: &kube::Client) -> anyhow::Result<String> {
    package.push_to_cluster(to, client).await.map_err(|error| told(error, to.repository()))
}

/// Who has not the right to is told which it is.
fn told(error: PushError, repository: &str) -> anyhow::Error {
    let namespace = repository.split('/').next().unwrap_or_default();
    match error {
        PushError::Registry(SourceError::Denied(said)) if said.starts_with("denied") => anyhow!(
            "images may not be pushed into namespace {namespace} by this user; it takes the verbs get and create of \
             images.wherry.dev there, which the ClusterRole edit has"
        ),
        error => error.into(),
    }
}

/// What is said of a reference that names no registry: it may have been meant for the cluster's own.
fn assumed(written: &str, registry: &str) -> Option<String> {
    if registry != DOCKER_HUB || written.contains(DOCKER_HUB) {
        return None;
    }
    let ours = if written.contains('/') { written.to_owned() } else { format!("NAMESPACE/{written}") };
    Some(format!("{written} is pushed to {DOCKER_HUB}; the cluster's own registry would be {CLUSTER_REGISTRY}/{ours}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_push_is_told_what_it_takes() {
        let denied =
            |said: &str| told(PushError::Registry(SourceError::Denied(said.to_owned())), "team/app").to_string();
        let said = denied("denied: requested access to the resource is denied");
        assert!(said.contains("namespace team") && said.contains("images.wherry.dev"), "{said}");
        assert_eq!(denied("unauthorized: who?"), "unauthorized: who?");
    }

    #[test]
    fn a_reference_without_a_registry_is_told_where_it_goes() {
        let told = assumed("team/app:v1", "docker.io").unwrap();
        assert!(told.contains("pushed to docker.io") && told.ends_with("wherry.local/team/app:v1"), "{told}");
        assert!(assumed("app:v1", "docker.io").unwrap().ends_with("wherry.local/NAMESPACE/app:v1"));
        assert_eq!(assumed("docker.io/team/app:v1", "docker.io"), None);
        assert_eq!(assumed("registry.example/app", "registry.example"), None);
    }
}
