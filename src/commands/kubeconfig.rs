//! `wherry kubeconfig`: prints the administrator's kubeconfig, or where it is.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::{data_dir, output};

/// Print the administrator's kubeconfig.
#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// The data directory of `wherry up` [default: $XDG_DATA_HOME/wherry, ~/.local/share/wherry; /var/lib/wherry for root]
    #[arg(long, value_name = "DIR", env = "WHERRY_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Print the file's path instead
    #[arg(long)]
    path: bool,
}

impl Kubeconfig {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let folder = self.data_dir.map_or_else(data_dir::default_path, Ok)?;
        let path = folder.join(data_dir::KUBECONFIG);
        let unread =
            || format!("{} cannot be read; `wherry up` makes it (give its --data-dir here, too)", path.display());
        let text = std::fs::read(&path).with_context(unread)?;
        if self.path {
            output::line(path.display().to_string());
        } else {
            output::raw(&text);
        }
        Ok(ExitCode::SUCCESS)
    }
}
