//! What `wherry up` is told about the server's security: files that Kubernetes' API server reads too, under its flags' names.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use wherry_control::audit::{Config, Limits, Mode};
use wherry_control::plane;

const MEGABYTE: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_hours(24);

/// What happens to requests whose audit event cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogMode {
    /// They go on, and the loss is counted
    #[default]
    Blocking,
    /// They are refused
    BlockingStrict,
}

/// How the server is secured, what it records, and how much it does at once.
#[derive(Clone, Debug, Default, Args)]
pub struct Security {
    /// An EncryptionConfiguration (apiserver.config.k8s.io/v1): what is encrypted on disk, and with which keys
    #[arg(long, value_name = "FILE")]
    encryption_config: Option<PathBuf>,
    /// An AuthenticationConfiguration (apiserver.config.k8s.io/v1): whose tokens are believed beside the server's own
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// A Policy (audit.k8s.io/v1): what is recorded of which request
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    audit_policy_file: Option<PathBuf>,
    /// Where requests are recorded, a JSON object on each line; `-` is standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    audit_log_path: Option<PathBuf>,
    /// Megabytes of an audit log before the next one is begun
    #[arg(long, value_name = "MB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    audit_log_maxsize: u64,
    /// Older audit logs that are kept; 0: all
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    audit_log_maxbackup: usize,
    /// Days after which older audit logs are removed; 0: never
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    audit_log_maxage: u32,
    /// What happens to requests that cannot be recorded
    #[arg(long, value_enum, default_value_t)]
    audit_log_mode: LogMode,
    /// Requests that are served at once, shared out by priority [default: 600, or 150 for each processor]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_requests_inflight: Option<u32>,
}

impl Security {
    /// Tells the control plane.
    pub fn apply(&self, config: plane::Config) -> plane::Config {
        plane::Config {
            encryption: self.encryption_config.clone(),
            authentication: self.authentication_config.clone(),
            audit: self.audit(),
            max_requests: self.max_requests_inflight,
            ..config
        }
    }

    fn audit(&self) -> Option<Config> {
        let (policy, log) = self.audit_policy_file.clone().zip(self.audit_log_path.clone())?;
        let limits = Limits {
            size: self.audit_log_maxsize.saturating_mul(MEGABYTE),
            backups: self.audit_log_maxbackup,
            age: DAY.saturating_mul(self.audit_log_maxage),
        };
        let mode = match self.audit_log_mode {
            LogMode::Blocking => Mode::Blocking,
            LogMode::BlockingStrict => Mode::BlockingStrict,
        };
        Some(Config { policy, log, limits, mode })
    }
}
