//! `wherry up`: server and node in one process, and the manifests that it was given.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wherry_runtime::network::ipam::Slot;

use super::apply::{Applied, Applier, Outcome};
use crate::client::Client;
use crate::data_dir::{self, DataDir, Lock};
use crate::manifest;
use crate::progress::Progress;
use crate::security::Security;
use crate::shown::{self, Reached};
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
/// drains and stops; the next `wherry up` finds everything as it was, and with -f sets what the manifests say again, also
/// where others have changed it (it says which fields it took over).
#[derive(Debug, Args)]
pub struct Up {
    /// Where everything is kept [default: $XDG_DATA_HOME/wherry, ~/.local/share/wherry; /var/lib/wherry for root]
    #[arg(long, value_name = "DIR", env = "WHERRY_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API is served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443", value_parser = address)]
    listen: SocketAddr,
    /// The node's name, chosen once and kept [default: this host's name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How pods are connected
    #[arg(long, value_enum, default_value_t)]
    network: Network,
    /// Where node ports are opened; 0.0.0.0: on every IPv4 address of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    nodeport_address: IpAddr,
    #[command(flatten)]
    security: Security,
    /// A manifest to apply: a file, a folder, an http(s) URL, or `-` for standard input; repeatable
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<String>,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

/// An address and a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it is not ADDRESS:PORT, such as 127.0.0.1:6443, 0.0.0.0:6443 or [::1]:6443".to_owned())
}

/// How this machine's own clients reach what listens at an address.
fn usable(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            format!("https://127.0.0.1:{} (and every other address)", address.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => format!("https://[::1]:{} (and every other address)", address.port()),
        _ => format!("https://{address}"),
    }
}

impl Up {
    /// Whether nothing but errors is printed.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

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
        let _lock = claim_data(&data).await?;
        let node_name = data.node_name(self.node_name.as_deref())?;
        let slot = claim_slot(&data).await?;

        let step = progress.step("server");
        let stack =
            stack::Stack::start(&data, self.listen, &node_name, slot, self.nodeport_address, &self.security).await?;
        step.done(&format!("{}, node {node_name}", usable(stack.address())));

        let outcome = tokio::select! {
            outcome = self.bring_up(&stack, documents, progress) => Some(outcome),
            () = stop.asked() => None,
        };
        let failed = match outcome {
            Some(Ok(())) => {
                if !self.quiet {
                    let kubeconfig = data.join(data_dir::KUBECONFIG);
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
        let step = progress.begin("stopping");
        tokio::select! {
            () = stack.shutdown() => step.done_as("stopped"),
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
        stack.resumed(progress).await;
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
            let one = applier.apply(&mut document).await.with_context(|| document.described())?;
            step.done(&described(&one));
            applied.push(one);
        }
        let changed = applied.iter().any(|one| one.outcome != Outcome::Unchanged);
        let mut step = progress.step("pods");
        let failed = ready::wait(&client, &applied, &mut step).await?;
        ready::reachable(&client, &applied).await?;
        match failed.len() {
            0 => step.done(if changed { "ready" } else { "ready, as before" }),
            1 => step.done_badly("1 has failed"),
            count => step.done_badly(&format!("{count} have failed")),
        }
        for line in failed {
            output::note(format!("! {line}"));
        }
        if !self.quiet {
            show(stack, &client, &applied).await?;
        }
        Ok(())
    }
}

/// What became of a document, and which fields were taken from others for it.
fn described(one: &Applied) -> String {
    match one.taken.as_slice() {
        [] => one.outcome.word().to_owned(),
        taken => format!("{}, took over {}", one.outcome.word(), taken.join(", ")),
    }
}

async fn show(stack: &stack::Stack, client: &Client, applied: &[Applied]) -> anyhow::Result<()> {
    for line in shown::pods(client, applied).await? {
        output::line(line);
    }
    for reached in shown::urls(client, applied, stack.host_ports()).await? {
        match reached {
            Reached::At(url) => output::line(url),
            Reached::Not(why) => output::note(format!("! {why}")),
        }
    }
    Ok(())
}

/// Keeps other processes off the data directory. One that was killed a moment ago holds it until the kernel is done with it.
async fn claim_data(data: &DataDir) -> anyhow::Result<Option<File>> {
    let deadline = tokio::time::Instant::now() + LAST_PROCESS;
    loop {
        match data.lock()? {
            Lock::Held(file) => return Ok(Some(file)),
            Lock::Unsupported => return Ok(None),
            Lock::Taken if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Lock::Taken => bail!(
                "another `wherry up` runs on the data directory {}: `wherry apply -f FILE` applies manifests to it; stop it, or \
                 choose another --data-dir, to start one here",
                data.path().display()
            ),
        }
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
                "another cluster of this machine has the part of 127.0.0.0/8 that belongs to the data directory {}, whose copy \
                 it may run on; stop that cluster, or choose another --data-dir",
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
    asked_at: Option<tokio::time::Instant>,
}

/// Signals that come so soon after the first are the same request: `timeout`, a terminal and those who pass signals on send
/// one to the process and one to its group.
const TOGETHER: Duration = Duration::from_millis(500);

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be received");
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())?, asked_at: None })
    }

    /// Returns when it is asked to stop, for the first time or again.
    async fn asked(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            if self.asked_at.is_none_or(|at| at.elapsed() > TOGETHER) {
                self.asked_at = Some(tokio::time::Instant::now());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everyone_is_shown_as_one_to_use() {
        for (given, shown) in [
            ("127.0.0.1:6443", "https://127.0.0.1:6443"),
            ("0.0.0.0:6443", "https://127.0.0.1:6443 (and every other address)"),
            ("[::]:6443", "https://[::1]:6443 (and every other address)"),
        ] {
            assert_eq!(usable(address(given).unwrap()), shown);
        }
        for bad in ["6443", "localhost:6443", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(address(bad).unwrap_err().contains("127.0.0.1:6443"), "{bad}");
        }
    }
}
