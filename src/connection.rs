//! Which server the client commands talk to: the kubeconfig, found as `kubectl` finds it or by its data directory, and the
//! namespace.
//!
//! What is closest counts: a flag, then `$KUBECONFIG`, then the data directory that `wherry up` would take. `~/.kube/config` is
//! not read: who has no server of Wherry's must not change another cluster by mistake.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::client::Client;
use crate::data_dir::{self, KUBECONFIG};

const NO_CLUSTER: &str = "there is no cluster to talk to: run `wherry up`, or set --data-dir or $KUBECONFIG";

/// Which cluster, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// The kubeconfig [default: $KUBECONFIG, else that of the default --data-dir; ~/.kube/config is not read]
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    kubeconfig: Option<PathBuf>,
    /// The data directory of a `wherry up` on this machine, instead of a kubeconfig [default, without $KUBECONFIG:
    /// $WHERRY_DATA_DIR, $XDG_DATA_HOME/wherry, ~/.local/share/wherry; /var/lib/wherry for root]
    #[arg(long, value_name = "DIR", help_heading = "Connection")]
    data_dir: Option<PathBuf>,
    /// The kubeconfig's context [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Connection")]
    context: Option<String>,
}

/// Which cluster and namespace.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    #[command(flatten)]
    server: Server,
    /// The namespace [default: the kubeconfig's]
    #[arg(long, short, value_name = "NAMESPACE", help_heading = "Connection")]
    namespace: Option<String>,
}

/// The same flags before the subcommand, as kubectl takes them. A subcommand that has one of them finds it among its own: clap
/// hands global arguments down by their names.
#[derive(Debug, Args)]
pub struct Before {
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[arg(long, global = true, hide = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    context: Option<String>,
    #[arg(long, short, global = true, hide = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// What of a connection a subcommand uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Uses {
    Nothing,
    Server,
    Namespace,
}

impl Before {
    /// A flag that was given to a subcommand which does nothing with it.
    pub fn useless(&self, uses: Uses) -> Option<&'static str> {
        let server = uses >= Uses::Server;
        [
            ("--kubeconfig", self.kubeconfig.is_some(), server),
            ("--context", self.context.is_some(), server),
            ("--namespace", self.namespace.is_some(), uses == Uses::Namespace),
        ]
        .into_iter()
        .find_map(|(flag, given, used)| (given && !used).then_some(flag))
    }

    /// Whether two servers were named, before the subcommand or after it.
    pub fn contradict(&self) -> bool {
        self.kubeconfig.is_some() && self.data_dir.is_some()
    }
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
        if let Some(context) = &self.context
            && !kubeconfig.contexts.iter().any(|known| known.name == *context)
        {
            bail!("context {context:?} does not exist in {origin}");
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(unusable)?;
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
        if let Some(folder) = &self.data_dir {
            let path = folder.join(KUBECONFIG);
            if !path.exists() {
                bail!("{} does not exist: is it the --data-dir of a `wherry up`?", path.display());
            }
            return of(&path);
        }
        if let Some(paths) = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
            return merged(&paths);
        }
        let path = data_dir::default_path()?.join(KUBECONFIG);
        if !path.exists() {
            bail!("{NO_CLUSTER} ({} does not exist)", path.display());
        }
        of(&path)
    }
}

fn of(path: &Path) -> anyhow::Result<(Kubeconfig, String)> {
    let read = Kubeconfig::read_from(path).map_err(|error| match error {
        // Its own words name the file once more.
        KubeconfigError::ReadConfig(source, _) => anyhow::Error::new(source),
        other => other.into(),
    });
    let read = read.with_context(|| format!("{} cannot be read", path.display()))?;
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
        bail!("{NO_CLUSTER} (no file of {} exists)", paths.display());
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
        let lost = format!("{:#}", of(Path::new("/nonexistent")).unwrap_err());
        assert_eq!(lost, "/nonexistent cannot be read: No such file or directory (os error 2)");
    }
}
