//! Which server the client commands talk to: the kubeconfig, found as `kubectl` finds it, and the namespace.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::client::Client;
use crate::data_dir;

/// Which cluster, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// The kubeconfig [default: $KUBECONFIG, else DATA-DIR/admin.kubeconfig, where DATA-DIR is $WHERRY_DATA_DIR or that of
    /// `wherry up`]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    kubeconfig: Option<PathBuf>,
}

/// Which cluster and namespace.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    #[command(flatten)]
    server: Server,
    /// The namespace [default: the kubeconfig's]
    #[arg(long, short, global = true, value_name = "NAMESPACE", help_heading = "Connection")]
    namespace: Option<String>,
}

impl Connection {
    /// Connects. Nothing is sent yet.
    pub async fn open(&self) -> anyhow::Result<Client> {
        let client = self.server.open().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| client.namespace.clone());
        Ok(Client { namespace, ..client })
    }
}

impl Server {
    /// Connects. Nothing is sent yet.
    pub async fn open(&self) -> anyhow::Result<Client> {
        let (kubeconfig, origin) = self.read()?;
        let unusable = || format!("the kubeconfig {origin} cannot be used");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(unusable)?;
        let address = config.cluster_url.authority().map_or_else(String::new, ToString::to_string);
        let server = format!("the server {address} (of {origin})");
        let namespace = config.default_namespace.clone();
        Ok(Client { kube: kube::Client::try_from(config).with_context(unusable)?, namespace, server })
    }

    /// The kubeconfig, and where it is.
    fn read(&self) -> anyhow::Result<(Kubeconfig, String)> {
        if let Some(path) = &self.kubeconfig {
            return of(path);
        }
        if let Some(paths) = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
            return merged(&paths);
        }
        let path = data_dir::default_path()?.join("admin.kubeconfig");
        if !path.exists() {
            bail!(
                "there is no cluster to talk to: run `wherry up`, or set $KUBECONFIG ({} does not exist)",
                path.display()
            );
        }
        of(&path)
    }
}

fn of(path: &Path) -> anyhow::Result<(Kubeconfig, String)> {
    let read = Kubeconfig::read_from(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok((read, path.display().to_string()))
}

/// The files of `$KUBECONFIG` in one. Those that do not exist are left out, as `kubectl` does.
fn merged(paths: &OsStr) -> anyhow::Result<(Kubeconfig, String)> {
    let (mut merged, mut origin) = (Kubeconfig::default(), Vec::new());
    for path in std::env::split_paths(paths).filter(|path| path.exists()) {
        let (next, name) = of(&path)?;
        merged = merged.merge(next).with_context(|| format!("{name} does not go with {}", origin.join(":")))?;
        origin.push(name);
    }
    if origin.is_empty() {
        bail!(
            "there is no cluster to talk to: run `wherry up`, or set $KUBECONFIG (no file of {} exists)",
            paths.display()
        );
    }
    Ok((merged, origin.join(":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_kubeconfig_that_do_not_exist_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let good = file("good", "apiVersion: v1\nkind: Config\ncurrent-context: here\n");
        let bad = file("bad", "clusters: 1\n");
        let join = |paths: &[&Path]| std::env::join_paths(paths).unwrap();
        let (read, origin) = merged(&join(&[Path::new("/nonexistent"), Path::new(""), &good])).unwrap();
        assert_eq!((read.current_context.as_deref(), origin), (Some("here"), good.display().to_string()));
        let none = merged(&join(&[Path::new("/nonexistent")])).unwrap_err().to_string();
        assert!(none.contains("/nonexistent") && none.contains("wherry up"), "{none}");
        let broken = merged(&join(&[&bad, &good])).unwrap_err().to_string();
        assert!(broken.contains("/bad cannot be read"), "{broken}");
    }
}
