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
use super::weight::{Weight, weigh};

/// What compiles longer than this holds up its own namespace only: components of ten megabytes take a few seconds.
const SLOW: Duration = Duration::from_secs(10);

/// Components that go on compiling beside the one whose turn it is, and so namespaces whose components may take as long as they
/// like before others wait for them.
const ASIDE: usize = 16;

/// Bytes of a component that brings no more than an interpreter, and what one weighs at most. Of larger or heavier ones only so
/// many compile at once, and the next of them waits while smaller ones pass it.
const LARGE: usize = 32 << 20;
const HEAVY: Weight = Weight { heaviest: 192 << 20, kept: 512 << 20 };
const LARGE_AT_ONCE: usize = 4;

/// What weighs more is not compiled at all.
const MOST: Weight = Weight { heaviest: 1 << 30, kept: 2 << 30 };

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
    if weight.kept > MOST.kept {
        return Err(refused("its functions together need", weight.kept, MOST.kept));
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
        let failed = || EngineError::Compile("the compiler failed at it".to_owned());
        compiled.unwrap_or_else(|_| Err(failed())).map(Bytes::from).map_err(Arc::new)
    }
}

/// On Linux a priority belongs to a thread, not the process; `None` is this one.
fn lower(thread: Option<Pid>, priority: i32) {
    if let Err(error) = setpriority_process(thread, priority) {
        tracing::debug!(%error, "a compiler thread keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;
    use tokio::task::JoinHandle;

    use super::*;

    const LIGHT: Weight = Weight { heaviest: 0, kept: 0 };
    const BULKY: Weight = Weight { heaviest: HEAVY.heaviest + 1, kept: 0 };

    #[test]
    fn namespaces_take_turns_and_a_busy_one_has_none() {
        let mut turns = Turns::default();
        for (namespace, job) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            turns.add(namespace, job);
        }
        let mut one = || {
            let (namespace, job) = turns.next(|_| true)?;
            turns.done(&namespace);
            Some(job)
        };
        assert_eq!(std::iter::from_fn(&mut one).collect::<Vec<_>>(), [1, 4, 5, 2, 6, 3]);
        turns.add("a", 7);
        turns.add("a", 8);
        turns.add("b", 9);
        assert_eq!(turns.next(|_| true).unwrap().1, 7);
        assert!(turns.next(|job| *job > 9).is_none());
        assert_eq!(turns.next(|_| true).unwrap().1, 9);
        assert!(turns.next(|_| true).is_none() && !turns.has_next(|_| true));
        turns.done("a");
        assert_eq!(turns.next(|_| true).unwrap().1, 8);
    }

    /// A compiler that takes `slow` as long as nobody lets it go on, and is at once done with the rest.
    fn compiler() -> (Arc<Compiler>, mpsc::Sender<()>) {
        let (go, gone) = mpsc::channel();
        let gone = Mutex::new(gone);
        let work = move |wasm: &[u8]| {
            match wasm {
                b"bad" => panic!("as a compiler may"),
                slow if slow.starts_with(b"slow") => gone.lock().recv().unwrap(),
                _ => {}
            }
            Ok(wasm.get(..4).unwrap_or(wasm).to_vec())
        };
        (Arc::new(Compiler::start_with(Box::new(work), Duration::from_millis(1)).unwrap()), go)
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("it is compiled")
    }

    /// Namespaces that each compile something slow.
    async fn occupy(
        compiler: &Arc<Compiler>,
        namespaces: usize,
        wasm: &Bytes,
        weight: Weight,
    ) -> Vec<JoinHandle<Compiled>> {
        let mut all = Vec::new();
        for namespace in 0..namespaces {
            let (of_it, wasm) = (Arc::clone(compiler), wasm.clone());
            let namespace = format!("slow-{namespace}");
            let compiles = namespace.clone();
            all.push(tokio::spawn(async move { of_it.compile(&namespace, &namespace, wasm, weight).await }));
            while !compiler.0.state.lock().turns.busy.contains(&compiles) {
                tokio::task::yield_now().await;
            }
        }
        all
    }

    #[tokio::test]
    async fn what_compiles_for_long_holds_up_its_own_namespace_alone() {
        let (compiler, go) = compiler();
        let slow = soon(occupy(&compiler, ASIDE, &Bytes::from_static(b"slow"), LIGHT)).await;
        let mut next = Box::pin(compiler.compile("slow-0", "next", Bytes::from_static(b"next"), LIGHT));
        assert!((&mut next).now_or_never().is_none());
        for _ in 0..3 {
            assert_eq!(
                soon(compiler.compile("ours", "quick", Bytes::from_static(b"quick"), LIGHT)).await.unwrap(),
                &b"quic"[..]
            );
        }
        assert!((&mut next).now_or_never().is_none());
        for _ in &slow {
            go.send(()).unwrap();
        }
        for one in slow {
            assert_eq!(soon(one).await.unwrap().unwrap(), &b"slow"[..]);
        }
        assert_eq!(soon(next).await.unwrap(), &b"next"[..]);
        soon(async {
            while compiler.0.state.lock().aside > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_large_or_heavy_component_waits_for_others_and_a_small_one_does_not() {
        let mut large = b"slow".to_vec();
        large.resize(LARGE + 1, 0);
        for (wasm, weight) in [(Bytes::from(large), LIGHT), (Bytes::from_static(b"slow"), BULKY)] {
            let (compiler, go) = compiler();
            let slow = soon(occupy(&compiler, LARGE_AT_ONCE, &wasm, weight)).await;
            let mut waits = Box::pin(compiler.compile("ours", "large", wasm, weight));
            assert!((&mut waits).now_or_never().is_none());
            let small = compiler.compile("small", "quick", Bytes::from_static(b"quick"), LIGHT);
            assert_eq!(soon(small).await.unwrap(), &b"quic"[..]);
            assert!((&mut waits).now_or_never().is_none());
            for _ in 0..=slow.len() {
                go.send(()).unwrap();
            }
            assert_eq!(soon(waits).await.unwrap(), &b"slow"[..]);
        }
    }

    #[tokio::test]
    async fn what_several_namespaces_want_is_compiled_once_and_in_whichever_turn_comes_first() {
        let (compiler, go) = compiler();
        compiler.occupy("busy");
        let mut waits = Box::pin(compiler.compile("busy", "shared", Bytes::from_static(b"slow"), LIGHT));
        assert!((&mut waits).now_or_never().is_none());
        let mut ours = Box::pin(compiler.compile("ours", "shared", Bytes::from_static(b"slow"), LIGHT));
        assert!((&mut ours).now_or_never().is_none());
        // What waits for another answer is never given one.
        go.send(()).unwrap();
        assert_eq!(soon(waits).await.unwrap(), &b"slow"[..]);
        assert_eq!(soon(ours).await.unwrap(), &b"slow"[..]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_kept() {
        let (compiler, _go) = compiler();
        compiler.occupy("a");
        let mut all: Vec<_> = ["one", "one", "two"]
            .map(|digest| Box::pin(compiler.compile("a", digest, Bytes::from_static(b"wasm"), LIGHT)))
            .into();
        for one in &mut all {
            assert!(one.now_or_never().is_none());
        }
        assert_eq!(compiler.waiting(), 2);
        drop(all.pop());
        drop(all.pop());
        assert_eq!(compiler.waiting(), 1);
        drop(all);
        assert_eq!(compiler.waiting(), 0);
        assert!(!compiler.0.state.lock().has_next() && compiler.0.state.lock().turns.waiting.is_empty());
    }

    #[tokio::test]
    async fn what_the_compiler_fails_at_is_refused_and_the_next_is_compiled() {
        let (compiler, _go) = compiler();
        let bad = soon(compiler.compile("a", "bad", Bytes::from_static(b"bad"), LIGHT)).await.unwrap_err();
        assert_eq!(bad.to_string(), "not a component this node can compile: the compiler failed at it");
        assert_eq!(
            soon(compiler.compile("a", "good", Bytes::from_static(b"good"), LIGHT)).await.unwrap(),
            &b"good"[..]
        );
    }
}
