//! Logs: readable on a terminal, JSON lines on request, filtered by module. They go to standard error, so that a
//! command's output stays its own.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged without `--log-filter`. The client of the API would log whole answers that it cannot read, and the judge of
/// certificates its own words; who asked says what went wrong.
const DEFAULT_FILTER: &str =
    "warn,kube_client::client=error,rustls_platform_verifier=off,wherry=info,wherry_control=info,wherry_runtime=info";
/// What is logged by a client command, and by a server that is to be quiet. What goes wrong with a request of its own the
/// command says itself.
const QUIET_FILTER: &str = "error,kube_client=off,rustls_platform_verifier=off";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Logging flags, for every subcommand.
#[derive(Clone, Debug, Args)]
pub struct LogOptions {
    /// How log lines on standard error are written
    #[arg(
        long,
        value_enum,
        default_value_t,
        global = true,
        env = "WHERRY_LOG_FORMAT",
        hide_env_values = true,
        help_heading = "Logging"
    )]
    log_format: LogFormat,
    /// What is logged: `LEVEL` or `MODULE=LEVEL,…` (error, warn, info, debug, trace)
    #[arg(
        long,
        global = true,
        env = "WHERRY_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        help_heading = "Logging"
    )]
    log_filter: Option<String>,
}

impl LogOptions {
    /// Installs the subscriber; `quiet` logs errors only unless told otherwise. A filter that does not parse is reported and replaced by the default.
    pub fn install(&self, quiet: bool) {
        let asked = self.log_filter.as_deref().map(EnvFilter::try_new);
        let (filter, bad) = match asked {
            Some(Ok(filter)) => (filter, None),
            Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
            None => (EnvFilter::new(if quiet { QUIET_FILTER } else { DEFAULT_FILTER }), None),
        };
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Json => builder.json().init(),
            LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).compact().init(),
        }
        if let Some(error) = bad {
            tracing::warn!(%error, "--log-filter is not a filter; using the default");
        }
    }
}
