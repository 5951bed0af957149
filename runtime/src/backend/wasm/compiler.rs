//! The compiler thread: one, at low priority, so that a pull never slows guests, heartbeats or the API.

use std::io;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::engine::{EngineError, compile};

/// Components that may wait for the compiler; more callers wait to hand theirs over.
const QUEUE: usize = 4;

/// Who answers requests comes first, and a machine whose cores others keep busy still compiles: a tenth of a core is left to
/// this thread there, where the lowest priority (19) would leave it a hundredth.
const NICE: i32 = 10;

struct Job {
    wasm: Bytes,
    reply: oneshot::Sender<Result<Vec<u8>, EngineError>>,
}

/// The thread and the way to it. Dropping it ends the thread after the job under way.
#[derive(Debug)]
pub(super) struct Compiler {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Compiler {
    pub(super) fn start(engine: wasmtime::Engine) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("wasm-compiler".into()).spawn(move || run(&engine, queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    pub(super) async fn compile(&self, wasm: Bytes) -> Result<Vec<u8>, EngineError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(EngineError::Stopped)?;
        jobs.send(Job { wasm, reply }).await.map_err(|_| EngineError::Stopped)?;
        answer.await.map_err(|_| EngineError::Stopped)?
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the compiler thread panicked");
        }
    }
}

fn run(engine: &wasmtime::Engine, mut queue: mpsc::Receiver<Job>) {
    // On Linux a priority belongs to the thread, not the process.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the compiler keeps the priority of the process");
    }
    while let Some(job) = queue.blocking_recv() {
        if !job.reply.is_closed() {
            // Nobody waits any more if the send fails: the pull was given up.
            let _ = job.reply.send(compile(engine, &job.wasm));
        }
    }
}
