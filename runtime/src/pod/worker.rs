//! One pod's worker: it carries out what the state machine says, tells it what came of that, and reports the status.
//!
//! Everything a pod has under way is a future that its worker owns: dropping the worker drops pulls, starts and containers.
//! An idle pod is one parked task.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

use super::Context;
use super::container::ContainerState;
use super::events::Said;
use super::launch::{self, Launch, Launched, Refused, Sandboxes};
use super::patch::{overruled, patch};
use super::recover::Lost;
use super::report::Report;
use super::setup::{containers, identity, setup, update};
use super::shared::Shared;
use super::state::{Action, Input, Now, PodState, Update};
use super::status::{self, Transitions};
use super::unsupported::{self, Unsupported};
use crate::backend::{Container, Exit};
use crate::fault;
use crate::image::{Image, ImageError};
use crate::log::ContainerLog;
use crate::network::{NetworkError, PodIdentity, PodNetwork};

/// What of a log goes into a container's status (`terminationMessagePolicy: FallbackToLogsOnError`).
const LAST_LINES: u64 = 80;
const LAST_BYTES: usize = 2048;

/// What came of something a worker had under way.
enum Outcome {
    Attached(Result<Arc<PodNetwork>, NetworkError>),
    Pulled(Result<Arc<Image>, ImageError>),
    Launched(Result<Launched, Refused>),
    Exited(Exit),
    Stopped,
    Aborted,
}

struct Done {
    container: usize,
    serial: u32,
    outcome: Outcome,
}

/// What the worker holds for one container.
#[derive(Default)]
struct Held {
    image: Option<Arc<Image>>,
    container: Option<Arc<dyn Container>>,
    /// The newest of its pull, start and wait; answers of older ones are ignored.
    serial: u32,
    under_way: Option<AbortHandle>,
    stop: Option<AbortHandle>,
}

/// Runs one pod until it is gone from the API or the process ends.
pub struct Worker {
    ctx: Arc<Context>,
    shared: Arc<Shared>,
    state: PodState,
    transitions: Transitions,
    network: Option<Arc<PodNetwork>>,
    attaching: Option<AbortHandle>,
    sandboxes: Sandboxes,
    held: Vec<Held>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// A hash of the status that was reported last.
    reported: u64,
    /// The address that the API shows from an earlier life, until it was replaced.
    earlier_address: Option<String>,
    delete: bool,
    /// Of how many ephemeral containers it was told that they are not run.
    debuggers: usize,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Worker {
    /// `was` is what an earlier worker knew last of the pod, if there was one; else the Pod's own status is.
    pub fn new(ctx: Arc<Context>, shared: Arc<Shared>, was: Option<&PodStatus>) -> Self {
        let pod = shared.pod();
        let now = Now::read();
        let unsupported = Unsupported::of(&pod);
        if let Some(message) = unsupported.notice() {
            ctx.events.record(Said::about(&pod, None, true, "UnsupportedFeature", message));
        }
        let none = PodStatus::default();
        let lost = if was.is_some() { Lost::Worker } else { Lost::Restart };
        let was = was.or(pod.status.as_ref()).unwrap_or(&none);
        let start_time = was.start_time.as_ref().map_or(now.wall, |time| time.0);
        let mut state = PodState::new(setup(&pod, unsupported.refusal()), start_time, now);
        state.recover(was, |container| ctx.logs.newest(&pod, container), lost, now);
        let held = containers(&pod).iter().map(|_| Held::default()).collect();
        let (transitions, earlier_address) = (Transitions::recover(was), was.pod_ip.clone());
        let debuggers = unsupported::ephemeral(&pod).count();
        drop(pod);
        shared.forget_own_status();
        Self {
            transitions,
            earlier_address,
            ctx,
            shared,
            state,
            network: None,
            attaching: None,
            sandboxes: Sandboxes::default(),
            held,
            under_way: FuturesUnordered::new(),
            reported: 0,
            delete: false,
            debuggers,
        }
    }

    /// Returns when nothing of the pod is left, here and in the API, or when the process ends.
    pub async fn run(&mut self) {
        let mut input = Some(Input::Updated(update(&self.shared.pod())));
        if self.take(Input::Begin) {
            return;
        }
        loop {
            if let Some(input) = input.take()
                && self.take(input)
            {
                return self.clean().await;
            }
            // Everything that is ready now becomes one status.
            while let Some(Some(done)) = self.under_way.next().now_or_never() {
                if let Some(input) = self.done(done)
                    && self.take(input)
                {
                    return self.clean().await;
                }
            }
            self.report();
            let wake = self.state.next_wake();
            tokio::select! {
                Some(done) = self.under_way.next(), if !self.under_way.is_empty() => input = self.done(done),
                () = self.shared.changed.notified() => {
                    let (removed, shutdown) = {
                        let told = self.shared.told.lock();
                        (told.removed, told.shutdown)
                    };
                    if let Some(grace) = shutdown {
                        return self.end(grace).await;
                    }
                    input = Some(if removed { Input::Removed } else { Input::Updated(self.update()) });
                }
                () = sleep_until(wake), if wake.is_some() => input = Some(Input::Tick),
            }
        }
    }

    /// What may have changed of the Pod. Ephemeral containers come to a pod that runs, and are not run.
    fn update(&mut self) -> Update {
        let pod = self.shared.pod();
        let before = std::mem::replace(&mut self.debuggers, unsupported::ephemeral(&pod).count());
        for name in unsupported::ephemeral(&pod).skip(before) {
            let message = format!("ephemeral container {name}: not supported by this node, the pod runs without");
            self.ctx.events.record(Said::about(&pod, None, true, "UnsupportedFeature", message));
        }
        update(&pod)
    }

    /// Steps the machine and carries out what it says; `true`: the pod is gone.
    fn take(&mut self, input: Input) -> bool {
        let mut finished = false;
        for action in self.state.step(input, Now::read()) {
            match action {
                Action::Attach => self.attach(),
                Action::Pull { container } => self.pull(container),
                Action::Start { container, attempt } => self.start(container, attempt),
                Action::CancelPull { container } => self.cancel(container),
                Action::Stop { container, grace } => self.stop(container, grace),
                Action::Release => self.release(),
                Action::Delete => self.delete = true,
                Action::Finish => finished = true,
                Action::Event(notice) => {
                    let pod = self.shared.pod();
                    let name = notice.container.and_then(|index| containers(&pod).get(index)).map(|c| c.name.as_str());
                    let said = Said::about(&pod, name, notice.warning, notice.reason, notice.message);
                    self.ctx.events.record(said);
                }
            }
        }
        finished
    }

    fn attach(&mut self) {
        let pod = self.shared.pod();
        let (namespace, name, uid) = identity(&pod);
        let identity = PodIdentity { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned() };
        let previous = self.earlier_address.as_ref().and_then(|ip| ip.parse().ok());
        let network = self.ctx.network.clone();
        let (abort, registration) = AbortHandle::new_pair();
        self.attaching = Some(abort);
        let attach = async move { network.attach(identity, previous).await };
        self.under_way.push(
            Abortable::new(attach, registration)
                .map(|result| Done {
                    container: usize::MAX,
                    serial: 0,
                    outcome: result.map_or(Outcome::Aborted, Outcome::Attached),
                })
                .boxed(),
        );
    }

    /// Puts something of a container under way; what was before is given up.
    fn begin(&mut self, container: usize, work: impl Future<Output = Outcome> + Send + 'static) {
        let Some(held) = self.held.get_mut(container) else { return };
        let (abort, registration) = AbortHandle::new_pair();
        if let Some(before) = held.under_way.replace(abort) {
            before.abort();
        }
        held.serial = held.serial.wrapping_add(1);
        let serial = held.serial;
        self.under_way.push(
            Abortable::new(work, registration)
                .map(move |result| Done { container, serial, outcome: result.unwrap_or(Outcome::Aborted) })
                .boxed(),
        );
    }

    fn pull(&mut self, container: usize) {
        let pull = launch::pull(self.ctx.clone(), self.shared.pod(), container);
        self.begin(container, pull.map(Outcome::Pulled));
    }

    fn start(&mut self, index: usize, attempt: u32) {
        let image = self.held.get(index).and_then(|held| held.image.clone());
        let (Some(image), Some(network)) = (image, self.network.clone()) else { return };
        let launch = Launch {
            ctx: self.ctx.clone(),
            pod: self.shared.pod(),
            index,
            attempt,
            image,
            address: network.address(),
            network,
            sandboxes: self.sandboxes.clone(),
        };
        self.begin(index, launch.run().map(Outcome::Launched));
    }

    fn cancel(&mut self, container: usize) {
        if let Some(held) = self.held.get_mut(container)
            && let Some(abort) = held.under_way.take()
        {
            abort.abort();
        }
    }

    fn stop(&mut self, container: usize, grace: Duration) {
        let Some(held) = self.held.get_mut(container) else { return };
        let Some(running) = held.container.clone() else {
            // Being created: its answer is `Cancelled`, unless it started in this moment.
            if let Some(abort) = &held.under_way {
                abort.abort();
            }
            return;
        };
        let (abort, registration) = AbortHandle::new_pair();
        if let Some(before) = held.stop.replace(abort) {
            before.abort();
        }
        let serial = held.serial;
        // A pod's containers end together: none is stopped while another has something under way that may need it.
        let pod = if self.state.ends() {
            self.held.iter().filter_map(|held| held.container.clone()).collect()
        } else {
            Vec::new()
        };
        let stop = async move {
            let left = drain(&pod, grace).await;
            running.stop(left).await
        };
        let stop = Abortable::new(stop, registration);
        self.under_way.push(stop.map(move |_| Done { container, serial, outcome: Outcome::Stopped }).boxed());
    }

    fn release(&mut self) {
        if let Some(abort) = self.attaching.take() {
            abort.abort();
        }
        self.held.iter_mut().for_each(|held| *held = Held { serial: held.serial, ..Held::default() });
        self.shared.running.lock().clear();
        self.sandboxes = Sandboxes::default();
        self.network = None;
    }

    /// Takes what came of something; `None`: nothing the machine has to know.
    fn done(&mut self, done: Done) -> Option<Input> {
        let Done { container, serial, outcome } = done;
        if let Outcome::Attached(result) = outcome {
            return Some(self.attached(result));
        }
        let held = self.held.get_mut(container).filter(|held| held.serial == serial)?;
        match outcome {
            Outcome::Pulled(Ok(image)) => {
                let id = image.id.clone();
                held.image = Some(image);
                Some(Input::ImageReady { container, id })
            }
            Outcome::Pulled(Err(error)) => {
                let message = fault::cut(error.to_string(), fault::STATUS);
                Some(Input::ImageFailed { container, reason: error.reason(), message })
            }
            Outcome::Launched(Ok(launched)) => Some(self.launched(container, launched)),
            Outcome::Launched(Err(Refused::Create { reason, message })) => {
                Some(Input::CreateFailed { container, reason, message })
            }
            Outcome::Launched(Err(Refused::Start(exit))) => Some(Input::Exited { container, exit }),
            Outcome::Exited(exit) => {
                *held = Held { serial, ..Held::default() };
                self.show_running();
                Some(Input::Exited { container, exit })
            }
            Outcome::Aborted => Some(Input::Cancelled { container }),
            Outcome::Stopped | Outcome::Attached(_) => None,
        }
    }

    fn attached(&mut self, result: Result<Arc<PodNetwork>, NetworkError>) -> Input {
        self.attaching = None;
        match result {
            Ok(network) => {
                let address = network.address();
                self.network = Some(network);
                Input::Attached(address)
            }
            Err(error) => Input::AttachFailed(error.to_string()),
        }
    }

    fn launched(&mut self, index: usize, launched: Launched) -> Input {
        let Launched { container, log, id, at } = launched;
        if let Some(held) = self.held.get_mut(index) {
            held.container = Some(container.clone());
            held.image = None;
        }
        self.show_running();
        let pod = self.shared.pod();
        let policy = containers(&pod).get(index).and_then(|spec| spec.termination_message_policy.as_deref());
        let tells_by_log = policy == Some("FallbackToLogsOnError");
        // Its end is told only when its last line is in the log.
        self.begin(index, async move {
            let mut exit = container.wait().await;
            log.close().await;
            if tells_by_log && exit.code != 0 {
                last_words(&log, &mut exit).await;
            }
            Outcome::Exited(exit)
        });
        Input::Started { container: index, id, at }
    }

    fn show_running(&self) {
        let pod = self.shared.pod();
        let named = containers(&pod).iter().zip(&self.held);
        *self.shared.running.lock() =
            named.filter_map(|(spec, held)| Some((spec.name.clone(), held.container.clone()?))).collect();
    }

    /// Reports the status if it is another than the last one, or if another has spoken since: a node that was silent for too
    /// long has its pods called unready, and nobody but it takes that back.
    fn report(&mut self) {
        *self.shared.instances.lock() = self.state.containers().iter().map(ContainerState::instances).collect();
        let pod = self.shared.pod();
        let (namespace, name, uid) = identity(&pod);
        if self.state.sealed {
            if std::mem::take(&mut self.delete) {
                self.ctx.statuses.set(Report::new(namespace, name, uid, Vec::new(), true));
            }
            return;
        }
        let status = self.status();
        let patch = patch(uid, &status, self.earlier_address.as_ref());
        let hash = hash_of(&patch);
        let delete = std::mem::take(&mut self.delete);
        if hash != self.reported || delete || overruled(&pod, &status) {
            self.reported = hash;
            self.ctx.statuses.set(Report::new(namespace, name, uid, patch, delete));
        }
    }

    /// What is known of the pod now.
    pub fn status(&mut self) -> PodStatus {
        let pod = self.shared.pod();
        let qos = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
        status::status(&self.state, &mut self.transitions, &self.ctx.host, qos, Now::read())
    }

    async fn clean(&mut self) {
        self.release();
        forget(&self.ctx, &self.shared.pod()).await;
    }

    /// The process ends: containers end with it, and their logs are kept. The API is told nothing of those that the next
    /// process starts again, and how those ended that are not.
    async fn end(&mut self, grace: Duration) {
        let ending: Vec<_> = self
            .held
            .iter()
            .enumerate()
            .filter_map(|(index, held)| Some((index, held.container.clone()?)))
            .map(|(index, container)| async move { (index, container.stop(grace).await) })
            .collect();
        let waits = async { while self.under_way.next().await.is_some() {} };
        for held in self.held.iter().filter(|held| held.container.is_none()) {
            if let Some(abort) = &held.under_way {
                abort.abort();
            }
        }
        if let Some(abort) = &self.attaching {
            abort.abort();
        }
        // The waits flush the logs.
        let (ended, ()): (Vec<(usize, Exit)>, ()) = futures::join!(futures::future::join_all(ending), waits);
        if self.state.shut_down(ended, Now::read()) {
            self.report();
        }
    }
}

/// A pod is gone: nothing of it stays on this node.
pub(super) async fn forget(ctx: &Context, pod: &Pod) {
    ctx.statuses.forget(identity(pod).2);
    ctx.logs.remove_pod(pod).await;
}

/// Drains containers together, within `grace`; what is left of it.
pub(super) async fn drain(containers: &[Arc<dyn Container>], grace: Duration) -> Duration {
    let began = Instant::now();
    let all = futures::future::join_all(containers.iter().map(|container| container.drain()));
    // Who is not done by then is stopped as it is.
    let _ = tokio::time::timeout(grace, all).await;
    grace.saturating_sub(began.elapsed())
}

/// Adds the end of its log to why a container failed, as much as the kubelet does.
async fn last_words(log: &ContainerLog, exit: &mut Exit) {
    match crate::log::read::ending(log, LAST_LINES, LAST_BYTES).await {
        Ok(said) if said.is_empty() => {}
        Ok(said) if exit.message.is_empty() => exit.message = said,
        Ok(said) => exit.message = format!("{}: {said}", exit.message),
        Err(error) => tracing::warn!(%error, "the log of a container that failed cannot be read"),
    }
}

async fn sleep_until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until(wake).await;
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
