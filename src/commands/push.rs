//! `wherry push`: packages a component as a CNCF Wasm artifact and pushes it, to any registry or to the cluster's own.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use wherry_runtime::image::credentials::Credentials;
use wherry_runtime::image::package::Package;
use wherry_runtime::image::reference;

use crate::client::Connection;
use crate::output;

/// Package a component and push it to a registry.
///
/// Credentials come from Docker's config file ($DOCKER_CONFIG/config.json or ~/.docker/config.json). Registries on loopback
/// addresses are spoken to in plain HTTP. `wherry.local/NAMESPACE/NAME:TAG` is the cluster's own registry.
#[derive(Debug, Args)]
pub struct Push {
    #[command(flatten)]
    connection: Connection,
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
            package.push_to_cluster(&to, &self.connection.open().await?.kube).await?
        } else {
            package.push(&to, &Credentials::from_environment()?).await?
        };
        output::line(pushed);
        Ok(())
    }
}
