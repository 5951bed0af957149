//! The compiler: a thread at low priority, so that a pull never slows guests, heartbeats or the API.
//!
//! Namespaces take turns, so that one which starts many images delays another by one of them. A component can be made so that
//! it compiles for minutes, and nothing can interrupt that: what must stay true is that its namespace alone waits for it. What
//! compiles longer than [`SLOW`] gives its turn away: its thread goes on at the lowest priority, and another one goes on
//! with what others have waiting. How many do so is bounded, since each needs memory by the size of its component.
//!
//! A component that several namespaces want is compiled once, in the turn of the first that has one. What nobody waits for
//! any more (a pull waits to its end) is not compiled, and not kept either.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rustix::process::setpriority_process;
use rustix::thread::{Pid, gettid};
use tokio::sync::oneshot;

use super::engine::{EngineError, compile};
use super::weight::{DEEPEST, MOST_PARTS, Weight, weigh};

/// What compiles longer than this holds up its own namespace only: components of ten megabytes take a few seconds.
const SLOW: Duration = Duration::from_secs(10);

/// Components that go on compiling beside the one whose turn it is, and so namespaces whose components may take as long as they
/// like before others wait for them.
const ASIDE: usize = 16;

/// Bytes of a component that brings no more than an interpreter, and what one weighs at most. Of larger or heavier ones only so
/// many compile at once, and the next of them waits while smaller ones pass it.
const LARGE: usize = 32 << 20;
const HEAVY: Weight = Weight { heaviest: 192 << 20, kept: 512 << 20, ..Weight::NONE };
const LARGE_AT_ONCE: usize = 4;

/// What weighs more is not compiled at all.
const MOST: Weight =
    Weight { heaviest: 1 << 30, kept: 2 << 30, longest_name: 64 << 10, parts: MOST_PARTS, depth: DEEPEST };

/// Who answers requests comes first, and a machine whose cores others keep busy still compiles: a tenth of a core is left to
/// this thread there, where the lowest priority (19) would leave it a hundredth.
const NICE: i32 = 10;
const LOWEST: i32 = 19;

type Compiled = Result<Bytes, Arc<EngineError>>;
type Work = dyn Fn(&[u8]) -> Result<Vec<u8>, EngineError> + Send + Sync;

/// Weighs a component, and refuses what none weighs that was not made for it. Takes a while for a large one: call it on a
/// blocking thread.
pub(super) fn weighed(wasm: &[u8]) -> Result<Weight, EngineError> {
    let weight = weigh(wasm);
    let refused = |what, weight: u64, most: u64| EngineError::TooHeavy { what, weight: weight >> 20, most: most >> 20 };
    if weight.heaviest > MOST.heaviest {
        return Err(refused("its heaviest function needs", weight.heaviest, MOST.heaviest));
    }
    if weight.parts > MOST.parts {
        return Err(EngineError::TooManyParts { most: MOST.parts });
    }
    if weight.depth > MOST.depth {
        return Err(EngineError::TooDeep { most: MOST.depth });
    }
    if weight.kept > MOST.kept {
        return Err(refused("its functions together need", weight.kept, MOST.kept));
    }
    if weight.longest_name > MOST.longest_name {
        return Err(EngineError::LongName { most: MOST.longest_name >> 10 });
    }
    Ok(weight)
}

/// A component that somebody wants.
struct Job {
    /// Until it is begun.
    wasm: Option<Bytes>,
    large: bool,
    replies: Vec<oneshot::Sender<Compiled>>,
}

impl Job {
    /// Whether it has yet to be begun, and may be if there is room for large ones.
    fn may_begin(&self, room: bool) -> bool {
        self.wasm.is_some() && (room || !self.large)
    }
}

/// Who comes next.
struct Turns<J> {
    /// Namespaces with something waiting, in the order of their turns; as much as there are pulls.
    waiting: VecDeque<(String, VecDeque<J>)>,
    /// Namespaces with something under way: they have no turn.
    busy: HashSet<String>,
}

impl<J> Default for Turns<J> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), busy: HashSet::new() }
    }
}

impl<J> Turns<J> {
    fn add(&mut self, namespace: &str, job: J)
    where
        J: PartialEq,
    {
        match self.waiting.iter_mut().find(|(name, _)| name == namespace) {
            Some((_, jobs)) if jobs.contains(&job) => {}
            Some((_, jobs)) => jobs.push_back(job),
            None => self.waiting.push_back((namespace.to_owned(), VecDeque::from([job]))),
        }
    }

    /// Takes the next job that may begin; its namespace is busy until [`Turns::done`], and comes last then.
    fn next(&mut self, may: impl Fn(&J) -> bool) -> Option<(String, J)> {
        let at = self.waiting.iter().position(|(name, jobs)| self.has_turn(name, jobs, &may))?;
        let (namespace, mut jobs) = self.waiting.remove(at)?;
        let job = jobs.pop_front()?;
        if !jobs.is_empty() {
            self.waiting.push_back((namespace.clone(), jobs));
        }
        self.busy.insert(namespace.clone());
        Some((namespace, job))
    }

    fn done(&mut self, namespace: &str) {
        self.busy.remove(namespace);
    }

    /// Forgets all other jobs.
    fn retain(&mut self, waits: impl Fn(&J) -> bool) {
        for (_, jobs) in &mut self.waiting {
            jobs.retain(&waits);
        }
        self.waiting.retain(|(_, jobs)| !jobs.is_empty());
    }

    fn has_next(&self, may: impl Fn(&J) -> bool) -> bool {
        self.waiting.iter().any(|(name, jobs)| self.has_turn(name, jobs, &may))
    }

    fn has_turn(&self, namespace: &str, jobs: &VecDeque<J>, may: impl Fn(&J) -> bool) -> bool {
        !self.busy.contains(namespace) && jobs.front().is_some_and(may)
    }
}

/// The compilation whose turn it is.
struct Begun {
    at: Instant,
    by: Pid,
}

#[derive(Default)]
struct State {
    /// By their digests.
    turns: Turns<Arc<str>>,
    /// What waits, and what compiles.
    jobs: HashMap<Arc<str>, Job>,
    threads: Vec<JoinHandle<()>>,
    /// Which thread has the turns: the last that was started.
    turn: u64,
    begun: Option<Begun>,
    /// Threads that gave their turn away, and compile still.
    aside: usize,
    /// Large components that compile.
    large: usize,
    stopped: bool,
}

impl State {
    fn add(&mut self, namespace: &str, digest: &Arc<str>, job: Job) {
        let replies = job.replies;
        let new = Job { replies: Vec::new(), ..job };
        let job = self.jobs.entry(Arc::clone(digest)).or_insert(new);
        job.replies.extend(replies);
        if job.wasm.is_some() {
            self.turns.add(namespace, Arc::clone(digest));
        }
    }

    /// Somebody who wanted it waits no more.
    fn give_up(&mut self, digest: &str) {
        let Some(job) = self.jobs.get_mut(digest) else { return };
        job.replies.retain(|reply| !reply.is_closed());
        if job.replies.is_empty() && job.wasm.is_some() {
            self.jobs.remove(digest);
            self.tidy();
        }
    }

    /// Forgets what another namespace had its turn with, and what nobody wants any more.
    fn tidy(&mut self) {
        let jobs = &self.jobs;
        self.turns.retain(|digest| jobs.get(digest).is_some_and(|job| job.wasm.is_some()));
    }

    fn next(&mut self) -> Option<(String, Arc<str>, Bytes, bool)> {
        let (room, jobs) = (self.large < LARGE_AT_ONCE, &self.jobs);
        let (namespace, digest) = self.turns.next(|digest| jobs.get(digest).is_some_and(|job| job.may_begin(room)))?;
        let job = self.jobs.get_mut(&digest)?;
        let (wasm, large) = (job.wasm.take()?, job.large);
        self.large += usize::from(large);
        self.tidy();
        Some((namespace, digest, wasm, large))
    }

    fn has_next(&self) -> bool {
        let room = self.large < LARGE_AT_ONCE;
        self.turns.has_next(|digest| self.jobs.get(digest).is_some_and(|job| job.may_begin(room)))
    }
}

struct Shared {
    work: Box<Work>,
    slow: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

/// The threads and the way to them. Dropping it ends the one that compiles nothing; who compiles ends with that, or with the
/// process.
pub(super) struct Compiler(Arc<Shared>);

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").field("aside", &self.0.state.lock().aside).finish_non_exhaustive()
    }
}

impl Compiler {
    pub(super) fn start(engine: wasmtime::Engine) -> io::Result<Self> {
        Self::start_with(Box::new(move |wasm| compile(&engine, wasm)), SLOW)
    }

    fn start_with(work: Box<Work>, slow: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared { work, slow, state: Mutex::default(), changed: Condvar::new() });
        let thread = shared.thread(0)?;
        shared.state.lock().threads.push(thread);
        Ok(Self(shared))
    }

    /// Compiles the component of this digest for a namespace, in its turn or that of another which wants it as well.
    pub(super) async fn compile(&self, namespace: &str, digest: &str, wasm: Bytes, weight: Weight) -> Compiled {
        let heavy = weight.heaviest > HEAVY.heaviest || weight.kept > HEAVY.kept;
        let large = wasm.len() > LARGE || heavy;
        let digest: Arc<str> = digest.into();
        // Dropped after the way for the answer.
        let wait = Wait { shared: Arc::clone(&self.0), digest };
        let (reply, mut answer) = oneshot::channel();
        self.0.state.lock().add(namespace, &wait.digest, Job { wasm: Some(wasm), large, replies: vec![reply] });
        self.0.changed.notify_one();
        loop {
            tokio::select! {
                compiled = &mut answer => return compiled.map_err(|_| EngineError::Stopped)?,
                () = tokio::time::sleep(self.0.slow) => self.0.pass(),
            }
        }
    }
}

/// Somebody who wants a component.
struct Wait {
    shared: Arc<Shared>,
    digest: Arc<str>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.shared.state.lock().give_up(&self.digest);
    }
}

#[cfg(test)]
impl Compiler {
    /// Gives a namespace no turn.
    pub(super) fn occupy(&self, namespace: &str) {
        self.0.state.lock().turns.busy.insert(namespace.to_owned());
    }

    /// Components in memory that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.state.lock().jobs.values().filter(|job| job.wasm.is_some()).count()
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        let (threads, compiles) = {
            let mut state = self.0.state.lock();
            state.stopped = true;
            state.turns.waiting.clear();
            state.jobs.clear();
            (std::mem::take(&mut state.threads), !state.turns.busy.is_empty())
        };
        self.0.changed.notify_all();
        // Nobody waits minutes for code that nobody wants any more.
        for thread in threads.into_iter().filter(|_| !compiles) {
            if thread.join().is_err() {
                tracing::error!("a compiler thread panicked");
            }
        }
    }
}

impl Shared {
    fn thread(self: &Arc<Self>, turn: u64) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        std::thread::Builder::new().name("wasm-compiler".into()).spawn(move || shared.run(turn))
    }

    /// Gives the turns to another thread if somebody could have one and what is compiled takes long.
    fn pass(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        let late = state.begun.as_ref().filter(|begun| begun.at.elapsed() >= self.slow).map(|begun| begun.by);
        let Some(slow) = late.filter(|_| !state.stopped && state.aside < ASIDE && state.has_next()) else { return };
        match self.thread(state.turn + 1) {
            Ok(thread) => {
                tracing::warn!(?self.slow, "a component compiles for longer; others are compiled beside it");
                lower(Some(slow), LOWEST);
                state.threads.push(thread);
                state.turn += 1;
                state.begun = None;
                state.aside += 1;
            }
            Err(error) => tracing::warn!(%error, "no more compiler threads"),
        }
    }

    /// Compiles what comes next until the turns are another thread's.
    fn run(&self, turn: u64) {
        lower(None, NICE);
        let mut state = self.state.lock();
        while !state.stopped {
            let Some((namespace, digest, wasm, large)) = state.next() else {
                self.changed.wait(&mut state);
                continue;
            };
            state.begun = Some(Begun { at: Instant::now(), by: gettid() });
            drop(state);
            let compiled = self.compiled(&wasm);
            drop(wasm);
            state = self.state.lock();
            for reply in state.jobs.remove(&digest).into_iter().flat_map(|job| job.replies) {
                // Nobody waits any more if the send fails: the pull was given up.
                let _ = reply.send(compiled.clone());
            }
            state.turns.done(&namespace);
            state.large -= usize::from(large);
            if state.turn != turn {
                // Its priority is no more to be had back.
                state.aside -= 1;
                self.changed.notify_all();
                return;
            }
            state.begun = None;
        }
    }

    fn compiled(&self, wasm: &[u8]) -> Compiled {
        let compiled = catch_unwind(AssertUnwindSafe(|| (self.work)(wasm)));
        compiled.unwrap_or_else(|_| Err(EngineError::failed())).map(Bytes::from).map_err(Arc::new)
    }
}

/// On Linux a priority belongs to a thread, not the process; `None` is this one.
fn lower(thread: Option<Pid>, priority: i32) {
    if let Err(error) = setpriority_process(thread, priority) {
        tracing::debug!(%error, "a compiler thread keeps its priority");
    }
}

#[cfg(test)]
#[path = "compiler_tests.rs"]
mod tests;
