//! The load generator of `benches/run`: one client for Wherry and its peers, so that what it costs is the same for both.
//!
//! HTTP/1.1 over kept connections, one per client and no sharing between them; prints one JSON object of what it saw.

#![allow(clippy::print_stdout, clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod api;
mod client;
mod paced;
mod report;
mod watchers;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use url::Url;

use self::client::{Credentials, Target};

/// Sends requests and prints what came of them, as JSON.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create ConfigMaps
    Create {
        #[command(flatten)]
        server: Server,
        /// How many
        #[arg(long)]
        count: usize,
        /// Bytes of data in each
        #[arg(long, default_value_t = 1024)]
        size: usize,
    },
    /// Read ConfigMaps that `create` made, in turn
    Get(Turns),
    /// Change ConfigMaps that `create` made, in turn
    Patch(Turns),
    /// Change one ConfigMap, each time until all clients, which watch it, have been told
    Watch {
        #[command(flatten)]
        server: Server,
        #[arg(long)]
        rounds: usize,
    },
    /// List the ConfigMaps of the namespace
    List {
        #[command(flatten)]
        server: Server,
        /// What follows the path, such as `?resourceVersion=0`
        #[arg(long, default_value = "")]
        query: String,
        #[arg(long)]
        seconds: f64,
    },
    /// Ask each URL at a fixed rate, whatever the others do
    Paced {
        /// Requests per second to each
        #[arg(long, default_value_t = 100)]
        rate: u32,
        #[arg(long)]
        seconds: f64,
        #[arg(required = true)]
        urls: Vec<Url>,
    },
}

/// Objects that `create` made, one after the other.
#[derive(Debug, Args)]
struct Turns {
    #[command(flatten)]
    server: Server,
    /// How many there are
    #[arg(long)]
    count: usize,
    #[arg(long)]
    seconds: f64,
}

/// Which API server, and as whom.
#[derive(Debug, Args)]
struct Server {
    #[arg(long)]
    url: Url,
    /// Certificates that the server's may be signed by, in PEM
    #[arg(long)]
    ca: PathBuf,
    /// The client's certificate and key in one PEM file
    #[arg(long, conflicts_with = "token")]
    identity: Option<PathBuf>,
    /// A bearer token
    #[arg(long)]
    token: Option<String>,
    #[arg(long, default_value_t = 32)]
    clients: usize,
    #[arg(long, default_value = "bench")]
    namespace: String,
    /// What the objects' names begin with
    #[arg(long, default_value = "object")]
    prefix: String,
}

impl Server {
    fn load(self) -> anyhow::Result<api::Load> {
        let credentials = Credentials { ca: Some(self.ca), identity: self.identity, token: self.token };
        let target = Target::new(&self.url, &credentials)?;
        Ok(api::Load { target, clients: self.clients, namespace: self.namespace, prefix: self.prefix })
    }
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // One thread: what is measured shares the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Create { server, count, size } => api::create(&server.load()?, count, size).await,
            Command::Get(Turns { server, count, seconds }) => {
                api::get(&server.load()?, count, Duration::from_secs_f64(seconds)).await
            }
            Command::Patch(Turns { server, count, seconds }) => {
                api::patch(&server.load()?, count, Duration::from_secs_f64(seconds)).await
            }
            Command::Watch { server, rounds } => watchers::run(&server.load()?, rounds).await,
            Command::List { server, query, seconds } => {
                api::list(&server.load()?, &query, Duration::from_secs_f64(seconds)).await
            }
            Command::Paced { rate, seconds, urls } => paced::run(&urls, rate, Duration::from_secs_f64(seconds)).await,
        }
    })?;
    println!("{outcome}");
    Ok(())
}
