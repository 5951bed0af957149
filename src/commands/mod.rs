//! One file per subcommand.

mod apply;
mod backup;
mod delete;
mod describe;
mod get;
mod image;
mod kubeconfig;
mod logs;
mod push;
mod scale;
mod up;
mod version;

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

pub use self::apply::Applied;
use crate::connection::Uses;

/// What to do. A command's help is the documentation of its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Up(up::Up),
    Apply(apply::Apply),
    Get(get::Get),
    Describe(describe::Describe),
    Delete(delete::Delete),
    Logs(logs::Logs),
    Scale(scale::Scale),
    Push(push::Push),
    /// The images of the cluster's own registry
    #[command(subcommand)]
    Image(image::Image),
    Kubeconfig(kubeconfig::Kubeconfig),
    Backup(backup::Backup),
    Version(version::Version),
}

impl Command {
    /// Whether only errors are logged: a server's log is read, a client command says what there is to say.
    pub fn is_quiet(&self) -> bool {
        !matches!(self, Self::Up(command) if !command.is_quiet())
    }

    /// What of a connection it uses.
    pub fn uses(&self) -> Uses {
        match self {
            Self::Up(_) | Self::Kubeconfig(_) => Uses::Nothing,
            Self::Push(_) | Self::Backup(_) | Self::Version(_) => Uses::Server,
            _ => Uses::Namespace,
        }
    }

    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(command) => command.run(),
            Self::Kubeconfig(command) => command.run(),
            Self::Apply(command) => block_on(command.run()),
            Self::Get(command) => block_on(command.run()),
            Self::Describe(command) => block_on(command.run()),
            Self::Delete(command) => block_on(command.run()),
            Self::Logs(command) => block_on(command.run()),
            Self::Scale(command) => block_on(command.run()),
            Self::Push(command) => block_on(command.run()),
            Self::Image(command) => block_on(command.run()),
            Self::Backup(command) => block_on(command.run()),
            Self::Version(command) => block_on(command.run()),
        }
    }
}

/// Client commands need one thread.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(work)?;
    Ok(ExitCode::SUCCESS)
}
