//! `wasi:cli/run` components: one instance, run to its end; exit code and reason as Kubernetes shows them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::Store;
use wasmtime_wasi::I32Exit;

use super::failure;
use super::guests::Place;
use super::life::{Life, TERMINATED, TRAPPED, exit, out_of_memory};
use super::linker::Entry;
use super::state::{Guest, GuestState};
use crate::backend::{BackendError, Container, Exit, Started, Stats};

/// What `run` of either WASI returns; the error is a trap or `wasi:cli/exit`.
type Ran = wasmtime::Result<Result<(), ()>>;

/// A command. Dropping it kills it.
pub(super) struct Command {
    guest: Arc<Guest>,
    life: Arc<Life>,
    /// The place among the node's commands, until it is started.
    permit: parking_lot::Mutex<Option<OwnedSemaphorePermit>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("args", &self.guest.args).field("life", &self.life).finish_non_exhaustive()
    }
}

impl Command {
    pub(super) fn new(guest: Arc<Guest>, life: Arc<Life>, permit: OwnedSemaphorePermit) -> Self {
        Self { guest, life, permit: parking_lot::Mutex::new(Some(permit)) }
    }
}

#[async_trait]
impl Container for Command {
    async fn start(&self) -> Result<Started, BackendError> {
        let Some(permit) = self.permit.lock().take() else {
            return Err(BackendError::CannotRun("the container was started before".into()));
        };
        let (entered, started) = oneshot::channel();
        let (guest, life) = (Arc::clone(&self.guest), Arc::clone(&self.life));
        let place = Arc::new(Place::default());
        self.life.spawn_guest(Arc::clone(&place), async move {
            let exit = run(&guest, &place, entered).await;
            drop(permit);
            life.end(exit);
        });
        match started.await {
            Ok(Err(message)) => Err(BackendError::CannotRun(message)),
            // An error here: it ended before it was entered, which `wait` tells.
            Ok(Ok(())) | Err(_) => Ok(Started::now()),
        }
    }

    async fn wait(&self) -> Exit {
        self.life.wait().await
    }

    /// WASI has no way to ask a command to end: it ends at once, as a process without a handler for SIGTERM does.
    async fn stop(&self, _grace: Duration) -> Exit {
        self.life.end(exit(TERMINATED, "Error", ""));
        self.life.wait().await
    }

    fn stats(&self) -> Stats {
        Stats { cpu: self.guest.cpu.total(), memory_bytes: self.guest.usage.bytes(), requests: 0 }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.life.kill();
    }
}

/// Runs the command to its end; everything it wrote is in its log when this returns.
async fn run(guest: &Guest, place: &Arc<Place>, entered: oneshot::Sender<Result<(), String>>) -> Exit {
    let (mut store, denied) = match guest.store(1, place) {
        Ok(store) => store,
        Err(error) => return cannot_run(entered, &error),
    };
    let (stdout, stderr) = (store.data().stdout.clone(), store.data().stderr.clone());
    let ran = match enter(guest, place, &mut store).await {
        Ok(instance) => {
            // Nobody waits if the container was dropped meanwhile.
            let _ = entered.send(Ok(()));
            metered(guest, place, instance.run(&mut store)).await
        }
        Err(_) if denied.load(Ordering::Relaxed) => return out_of_memory(guest.usage.limit()),
        Err(error) => return cannot_run(entered, &error),
    };
    drop(store);
    let exit = judge(&ran, denied.load(Ordering::Relaxed), guest.usage.limit());
    let told = ran.err().filter(|error| !error.is::<I32Exit>()).map(|error| failure::told(&error));
    stdout.drained().await;
    stderr.drained().await;
    if let Some(told) = told {
        guest.complain(&told).await;
    }
    exit
}

fn cannot_run(entered: oneshot::Sender<Result<(), String>>, error: &wasmtime::Error) -> Exit {
    let message = format!("the component cannot be instantiated: {error:#}");
    let _ = entered.send(Err(message.clone()));
    exit(128, "ContainerCannotRun", message)
}

async fn metered<T>(guest: &Guest, place: &Arc<Place>, future: impl Future<Output = T>) -> T {
    let mut meter = guest.meter(place);
    let mut future = pin!(future);
    poll_fn(|cx| meter.poll(future.as_mut(), cx)).await
}

/// An instance of either WASI.
enum Instance {
    P2(wasmtime_wasi::p2::bindings::Command),
    P3(wasmtime_wasi::p3::bindings::Command),
}

async fn enter(guest: &Guest, place: &Arc<Place>, store: &mut Store<GuestState>) -> wasmtime::Result<Instance> {
    match &guest.prepared.entry {
        Entry::Command2(pre) => metered(guest, place, pre.instantiate_async(store)).await.map(Instance::P2),
        Entry::Command3(pre) => metered(guest, place, pre.instantiate_async(store)).await.map(Instance::P3),
        Entry::Http { .. } => Err(wasmtime::Error::msg("a server is not a command")),
    }
}

impl Instance {
    async fn run(&self, store: &mut Store<GuestState>) -> Ran {
        match self {
            Self::P2(command) => command.wasi_cli_run().call_run(store).await,
            Self::P3(command) => {
                store.run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await).await?
            }
        }
    }
}

/// How a command ended, in Kubernetes' words.
fn judge(ran: &Ran, denied: bool, limit: u64) -> Exit {
    let (code, message) = match ran {
        Ok(Ok(())) => (0, String::new()),
        Ok(Err(())) => (1, String::new()),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => (*code, String::new()),
            None => (TRAPPED, error.root_cause().to_string()),
        },
    };
    match code {
        0 => exit(0, "Completed", message),
        _ if denied => out_of_memory(limit),
        code => exit(code, "Error", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_kubernetes_words() {
        let exited = |code| Err(wasmtime::Error::from(I32Exit(code)));
        let cases: [(Ran, bool, i32, &str); 7] = [
            (Ok(Ok(())), false, 0, "Completed"),
            (Ok(Ok(())), true, 0, "Completed"),
            (Ok(Err(())), false, 1, "Error"),
            (exited(0), false, 0, "Completed"),
            (exited(7), false, 7, "Error"),
            (Err(wasmtime::Trap::UnreachableCodeReached.into()), false, 134, "Error"),
            (Err(wasmtime::Trap::UnreachableCodeReached.into()), true, 137, "OOMKilled"),
        ];
        for (ran, denied, code, reason) in cases {
            let exit = judge(&ran, denied, 1);
            assert_eq!((exit.code, exit.reason.as_str()), (code, reason), "{ran:?} {denied}");
        }
    }
}
