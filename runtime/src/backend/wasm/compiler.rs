//! The compiler: a thread at low priority, so that a pull never slows guests, heartbeats or the API.
//!
//! Namespaces take turns, so that one which starts many images delays another by one of them. A component can be made so that
//! it compiles for minutes, and nothing can interrupt that: what must stay true is that its namespace alone waits for it. Once
//! a compilation takes longer than [`SLOW`], another thread goes on with what others have waiting.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::engine::{EngineError, compile};

/// What compiles longer than this holds up its own namespace only: components of ten megabytes take a few seconds.
const SLOW: Duration = Duration::from_secs(10);

/// Threads at once, and so namespaces whose components may take as long as they like before others wait for them.
const THREADS: usize = 4;

/// Who answers requests comes first, and a machine whose cores others keep busy still compiles: a tenth of a core is left to
/// this thread there, where the lowest priority (19) would leave it a hundredth.
const NICE: i32 = 10;

type Compiled = Result<Vec<u8>, EngineError>;
type Work = dyn Fn(&[u8]) -> Compiled + Send + Sync;

struct Job {
    wasm: Bytes,
    reply: oneshot::Sender<Compiled>,
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
    fn add(&mut self, namespace: &str, job: J) {
        match self.waiting.iter_mut().find(|(name, _)| name == namespace) {
            Some((_, jobs)) => jobs.push_back(job),
            None => self.waiting.push_back((namespace.to_owned(), VecDeque::from([job]))),
        }
    }

    /// Takes the next job; its namespace is busy until [`Turns::done`], and comes last then.
    fn next(&mut self) -> Option<(String, J)> {
        let at = self.waiting.iter().position(|(name, _)| !self.busy.contains(name))?;
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

    fn has_next(&self) -> bool {
        self.waiting.iter().any(|(name, _)| !self.busy.contains(name))
    }
}

#[derive(Default)]
struct State {
    turns: Turns<Job>,
    threads: Vec<JoinHandle<()>>,
    /// When a compilation was begun last.
    begun: Option<Instant>,
    /// Threads that have nothing to do.
    idle: usize,
    stopped: bool,
}

struct Shared {
    work: Box<Work>,
    slow: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

/// How long a thread is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    Always,
    WhileOthersCompile,
}

/// The threads and the way to them. Dropping it ends those that compile nothing; who compiles ends with that, or with the
/// process.
pub(super) struct Compiler(Arc<Shared>);

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").field("threads", &self.0.state.lock().threads.len()).finish()
    }
}

impl Compiler {
    pub(super) fn start(engine: wasmtime::Engine) -> io::Result<Self> {
        Self::start_with(Box::new(move |wasm| compile(&engine, wasm)), SLOW)
    }

    fn start_with(work: Box<Work>, slow: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared { work, slow, state: Mutex::default(), changed: Condvar::new() });
        let thread = shared.thread(Stays::Always)?;
        shared.state.lock().threads.push(thread);
        Ok(Self(shared))
    }

    /// Compiles for a namespace, in its turn.
    pub(super) async fn compile(&self, namespace: &str, wasm: Bytes) -> Compiled {
        let (reply, mut answer) = oneshot::channel();
        self.0.state.lock().turns.add(namespace, Job { wasm, reply });
        self.0.changed.notify_one();
        loop {
            tokio::select! {
                compiled = &mut answer => return compiled.map_err(|_| EngineError::Stopped)?,
                () = tokio::time::sleep(self.0.slow) => self.0.help(),
            }
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        let (threads, compiles) = {
            let mut state = self.0.state.lock();
            state.stopped = true;
            state.turns.waiting.clear();
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
    fn thread(self: &Arc<Self>, stays: Stays) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        std::thread::Builder::new().name("wasm-compiler".into()).spawn(move || shared.run(stays))
    }

    /// Begins another thread if somebody could have a turn and everybody is busy with what takes long.
    fn help(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        let late = state.begun.is_some_and(|begun| begun.elapsed() >= self.slow);
        if state.stopped || !late || state.idle > 0 || state.threads.len() >= THREADS || !state.turns.has_next() {
            return;
        }
        match self.thread(Stays::WhileOthersCompile) {
            Ok(thread) => {
                tracing::warn!(?self.slow, "a component compiles for longer; others are compiled beside it");
                state.threads.push(thread);
            }
            Err(error) => tracing::warn!(%error, "no more compiler threads"),
        }
    }

    fn run(&self, stays: Stays) {
        // On Linux a priority belongs to the thread, not the process.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the compiler keeps the priority of the process");
        }
        let mut state = self.state.lock();
        while !state.stopped {
            let Some((namespace, job)) = state.turns.next() else {
                if stays == Stays::WhileOthersCompile && state.turns.busy.is_empty() {
                    return;
                }
                state.idle += 1;
                self.changed.wait(&mut state);
                state.idle -= 1;
                continue;
            };
            state.begun = Some(Instant::now());
            drop(state);
            self.answer(job);
            state = self.state.lock();
            state.turns.done(&namespace);
            // Its next may be another thread's, and who stayed for it goes.
            self.changed.notify_all();
        }
    }

    fn answer(&self, job: Job) {
        if job.reply.is_closed() {
            return;
        }
        let compiled = catch_unwind(AssertUnwindSafe(|| (self.work)(&job.wasm)));
        let failed = || EngineError::Compile("the compiler failed at it".to_owned());
        // Nobody waits any more if the send fails: the pull was given up.
        let _ = job.reply.send(compiled.unwrap_or_else(|_| Err(failed())));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn namespaces_take_turns_and_a_busy_one_has_none() {
        let mut turns = Turns::default();
        for (namespace, job) in [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)] {
            turns.add(namespace, job);
        }
        let mut one = || {
            let (namespace, job) = turns.next()?;
            turns.done(&namespace);
            Some(job)
        };
        assert_eq!(std::iter::from_fn(&mut one).collect::<Vec<_>>(), [1, 4, 5, 2, 6, 3]);
        turns.add("a", 7);
        turns.add("a", 8);
        turns.add("b", 9);
        assert_eq!(turns.next().unwrap().1, 7);
        assert_eq!(turns.next().unwrap().1, 9);
        assert!(turns.next().is_none() && !turns.has_next());
        turns.done("a");
        assert_eq!(turns.next().unwrap().1, 8);
    }

    /// A compiler that takes `slow` as long as nobody lets it go on, and is at once done with the rest.
    fn compiler() -> (Compiler, mpsc::Sender<()>) {
        let (go, gone) = mpsc::channel();
        let gone = Mutex::new(gone);
        let work = move |wasm: &[u8]| {
            match wasm {
                b"slow" => gone.lock().recv().unwrap(),
                b"bad" => panic!("as a compiler may"),
                _ => {}
            }
            Ok(wasm.to_vec())
        };
        (Compiler::start_with(Box::new(work), Duration::from_millis(1)).unwrap(), go)
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("it is compiled")
    }

    #[tokio::test]
    async fn what_compiles_for_long_holds_up_its_own_namespace_alone() {
        let (compiler, go) = compiler();
        let mut slow = Box::pin(compiler.compile("theirs", Bytes::from_static(b"slow")));
        let mut next = Box::pin(compiler.compile("theirs", Bytes::from_static(b"next")));
        assert!((&mut slow).now_or_never().is_none() && (&mut next).now_or_never().is_none());
        for _ in 0..3 {
            assert_eq!(soon(compiler.compile("ours", Bytes::from_static(b"quick"))).await.unwrap(), b"quick");
        }
        assert!((&mut next).now_or_never().is_none());
        go.send(()).unwrap();
        assert_eq!((soon(slow).await.unwrap(), soon(next).await.unwrap()), (b"slow".to_vec(), b"next".to_vec()));
    }

    #[tokio::test]
    async fn what_the_compiler_fails_at_is_refused_and_the_next_is_compiled() {
        let (compiler, _go) = compiler();
        let bad = soon(compiler.compile("a", Bytes::from_static(b"bad"))).await.unwrap_err();
        assert_eq!(bad.to_string(), "not a component this node can compile: the compiler failed at it");
        assert_eq!(soon(compiler.compile("a", Bytes::from_static(b"good"))).await.unwrap(), b"good");
    }
}
