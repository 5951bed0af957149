//! The `wherry` command: reads the command line, sets up logging and cryptography, and hands over to a subcommand.

mod allocator;
mod client;
mod commands;
mod connection;
mod data_dir;
mod jsonpath;
mod layout;
mod logging;
mod manifest;
mod output;
mod pods;
mod progress;
mod ready;
mod security;
mod selection;
mod selector;
mod shown;
mod stack;
mod table;
mod yaml;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::commands::Command;
use crate::connection::Before;
use crate::logging::LogOptions;

/// Runs WebAssembly components from the Kubernetes YAML that you know, with one binary.
#[derive(Debug, Parser)]
#[command(name = "wherry", version, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    log: LogOptions,
    #[command(flatten)]
    before: Before,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    allocator::keep_nothing();
    let cli = Cli::parse();
    if let Some(flag) = cli.before.useless(cli.command.uses()) {
        Cli::command().error(ErrorKind::UnknownArgument, format!("{flag} means nothing to this subcommand")).exit();
    }
    if cli.before.contradict() {
        let said = "--kubeconfig and --data-dir cannot be used together: each says which server is meant";
        Cli::command().error(ErrorKind::ArgumentConflict, said).exit();
    }
    cli.log.install(cli.command.is_quiet());
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a cryptography provider was installed before");
    }
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
