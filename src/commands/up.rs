//! `wherry up`: server and node in one process, and the manifests that it was given.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wherry_runtime::network::ipam::Slot;

use super::apply::{Applied, Applier, Outcome};
use crate::client::Client;
use crate::data_dir::{self, DataDir};
use crate::manifest;
use crate::progress::Progress;
use crate::security::Security;
use crate::{output, ready, stack};

/// How long the last process on a data directory may take to be gone.
const LAST_PROCESS: Duration = Duration::from_secs(3);

/// How pods are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// The best that this machine and user allow
    #[default]
    Auto,
    /// Addresses of 127.0.0.0/8: no privileges, one machine
    Local,
    /// Every address reachable between machines
    Routed,
}

/// Run server and node in this process, and apply manifests.
///
/// With -f it applies the manifests, waits until their pods are ready, and prints the pods and how to reach them. Ctrl-C
/// drains and stops; the next `wherry up` finds everything as it was.
#[derive(Debug, Args)]
pub struct Up {
    /// Where everything is kept [default: $XDG_DATA_HOME/wherry; /var/lib/wherry for root]
    #[arg(long, value_name = "DIR", env = "WHERRY_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API is served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// The node's name, chosen once and kept [default: this host's name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How pods are connected
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    #[command(flatten)]
    security: Security,
    /// A manifest to apply: a file, a folder, an http(s) URL, or `-` for standard input; repeatable
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

impl Up {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.network == Network::Routed {
            bail!("the routed network is not supported by this version; use --network local");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("wherry")
            .build()
            .context("no runtime")?;
        let code = runtime.block_on(self.serve())?;
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(code)
    }

    async fn serve(self) -> anyhow::Result<ExitCode> {
        let documents = if self.filename.is_empty() { Vec::new() } else { manifest::read(&self.filename).await? };
        let mut stop = Stop::new()?;
        let progress = Progress::new(self.quiet);
        let data = DataDir::open(&self.data_dir.clone().map_or_else(data_dir::default_path, Ok)?)?;
        let node_name = data.node_name(self.node_name.as_deref())?;
        let slot = claim_slot(&data).await?;

        let step = progress.step("server");
        let stack = stack::Stack::start(&data, self.listen, &node_name, slot, &self.security).await?;
        step.done(&format!("https://{}, node {node_name}", stack.address()));

        let outcome = tokio::select! {
            outcome = self.bring_up(&stack, documents, progress) => Some(outcome),
            () = stop.asked() => None,
        };
        let failed = match outcome {
            Some(Ok(())) => {
                if !self.quiet {
                    let kubeconfig = data.join("admin.kubeconfig");
                    output::note(format!(
                        "export KUBECONFIG={}    # then: kubectl get pods. Ctrl-C stops.",
                        kubeconfig.display()
                    ));
                }
                stop.asked().await;
                None
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        let step = progress.step("stopping");
        tokio::select! {
            () = stack.shutdown() => step.done(""),
            () = stop.asked() => output::note("stopped at once, as asked twice"),
        }
        failed.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    /// Applies the manifests and waits for what they describe.
    async fn bring_up(
        &self,
        stack: &stack::Stack,
        documents: Vec<manifest::Document>,
        progress: Progress,
    ) -> anyhow::Result<()> {
        stack.resumed().await;
        if documents.is_empty() {
            return Ok(());
        }
        let client = Client::new(stack.admin());
        // What this command was given is what there is to be.
        let mut applier = Applier::new(client.clone(), true).await?;
        let mut applied = Vec::new();
        for mut document in documents {
            let what = format!("{} {}", document.kind().to_lowercase(), document.name());
            let step = progress.step(what.clone());
            let one = applier.apply(&mut document).await.with_context(|| format!("{what} ({})", document.origin))?;
            step.done(one.outcome.word());
            applied.push(one);
        }
        let changed = applied.iter().any(|one| one.outcome != Outcome::Unchanged);
        let step = progress.step("pods");
        ready::wait(&client, &applied, |detail| step.update(detail)).await?;
        ready::reachable(&client, &applied).await?;
        step.done(if changed { "ready" } else { "ready, as before" });
        if !self.quiet {
            self.show(&client, &applied).await?;
        }
        Ok(())
    }

    async fn show(&self, client: &Client, applied: &[Applied]) -> anyhow::Result<()> {
        for line in ready::pods(client, applied).await? {
            output::line(line);
        }
        for url in ready::urls(client, applied).await? {
            output::line(url);
        }
        Ok(())
    }
}

/// The part of 127.0.0.0/8 that this cluster's Services have addresses from; chosen at the first start. A process that was
/// killed a moment ago holds it until the kernel is done with it.
async fn claim_slot(data: &DataDir) -> anyhow::Result<Slot> {
    let kept = data.slot()?;
    let deadline = tokio::time::Instant::now() + LAST_PROCESS;
    loop {
        match Slot::claim(kept) {
            Ok(slot) => {
                if kept.is_none() {
                    data.keep_slot(slot.index())?;
                }
                return Ok(slot);
            }
            Err(error) if kept.is_some() && is_in_use(&error) && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) if kept.is_some() && is_in_use(&error) => bail!(
                "the data directory {} is in use by another process, or its part of 127.0.0.0/8 by another cluster; stop \
                 that, or choose another --data-dir",
                data.path().display()
            ),
            Err(error) => return Err(error).context("no part of 127.0.0.0/8 is free for this cluster"),
        }
    }
}

fn is_in_use(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrInUse
}

/// The signals that end it.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be received");
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Returns at the next one.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
