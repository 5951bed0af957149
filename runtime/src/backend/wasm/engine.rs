//! The one engine of the process: one configuration, one pool of instance slots, one clock, one compiler.
//!
//! Everything compiled for a node is compiled and loaded with this configuration; [`Engine::compatibility_hash`] names it,
//! so that an artifact of another version, configuration or CPU is never loaded. Compilation happens once per image, on
//! low-priority threads, and never on a thread that polls guests.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::component::Component;
use wasmtime::{Config, PoolingAllocationConfig};

use super::artifact;
use super::compiler::{Compiler, weighed};
use super::ticker::Ticker;

/// Slot counts to try, largest first: each slot reserves 4 GiB of address space and a guard, which boards with 39-bit
/// address spaces refuse.
const SLOTS: [u32; 4] = [4096, 1024, 256, 32];

/// Bytes of a freed slot's memory that are cleared by hand instead of being given back: faster for small guests. With
/// [`WARM_SLOTS`] this bounds what unused slots hold to 32 MiB.
const KEEP_RESIDENT: usize = 256 << 10;

/// Slots that stay mapped to the image they last ran.
const WARM_SLOTS: u32 = 128;

/// Frames of a guest's backtrace that reach its log.
const BACKTRACE_FRAMES: usize = 32;

/// Why code could not be compiled or loaded.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine can be made on this machine.
    #[error("the WebAssembly engine cannot start")]
    Start(#[source] wasmtime::Error),
    /// Not valid WebAssembly, or it uses a feature that is off.
    #[error("not a component this node can compile: {0}")]
    Compile(String),
    /// It would take the compiler too much memory, in MiB.
    #[error(
        "not a component this node can compile: {what} about {weight} MiB of memory, more than {most}; build it with optimisation, \
        if it was not"
    )]
    TooHeavy { what: &'static str, weight: u64, most: u64 },
    /// Its components, each counted as often as it is instantiated, and what they give each other.
    #[error("not a component this node can compile: the components that it is made of come to more than {most} parts")]
    TooManyParts { most: u64 },
    /// What copies its instances would overflow the stack.
    #[error("not a component this node can compile: its instances are more than {most} deep within each other")]
    TooDeep { most: u64 },
    /// A function's name is longer than any compiler makes it, in KiB.
    #[error("not a component this node can compile: a function has a name of more than {most} KiB")]
    LongName { most: u64 },
    /// An artifact does not load: made by another version, or damaged.
    #[error("the compiled code does not load: {0}")]
    Load(String),
    #[error("the compiler has stopped")]
    Stopped,
    #[error("the compiler thread cannot start")]
    Thread(#[source] std::io::Error),
}

impl EngineError {
    /// The compiler panicked.
    pub(crate) fn failed() -> Self {
        Self::Compile("the compiler failed at it".to_owned())
    }
}

/// The process's engine. Cheap to clone; the clock and the compiler end with the last clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    engine: wasmtime::Engine,
    ticker: Ticker,
    compiler: Compiler,
    /// For components that are weighed.
    weighing: Arc<Semaphore>,
    slots: u32,
    hash: String,
}

/// Components that are weighed at a time: one that is made for it takes some hundred megabytes for that alone.
const WEIGHED_AT_ONCE: usize = 4;

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("slots", &self.shared.slots).field("hash", &self.shared.hash).finish()
    }
}

impl Engine {
    /// Starts the engine: probes how many pooled slots the address space allows, falling back to on-demand allocation.
    pub fn new() -> Result<Self, EngineError> {
        let (engine, slots) = start()?;
        let hash = hash_of(&engine);
        let ticker = Ticker::start(&engine).map_err(EngineError::Thread)?;
        let compiler = Compiler::start(engine.clone()).map_err(EngineError::Thread)?;
        Ok(Self {
            shared: Arc::new(Shared {
                engine,
                ticker,
                compiler,
                weighing: Arc::new(Semaphore::new(WEIGHED_AT_ONCE)),
                slots,
                hash,
            }),
        })
    }

    /// Compiles a component to an artifact that [`Engine::load`] maps. Runs on the caller's thread: seconds for big ones.
    pub fn compile(&self, wasm: &[u8]) -> Result<Vec<u8>, EngineError> {
        compile(&self.shared.engine, wasm)
    }

    /// Compiles the component of this digest on the node's low-priority compiler for a namespace; waits for that namespace's
    /// turn, or that of another which wants it as well.
    pub async fn compile_in_turn(
        &self,
        namespace: &str,
        digest: &str,
        wasm: bytes::Bytes,
    ) -> Result<bytes::Bytes, Arc<EngineError>> {
        let place = Arc::clone(&self.shared.weighing).acquire_owned().await.map_err(|_| EngineError::Stopped)?;
        let of_it = wasm.clone();
        let weight = tokio::task::spawn_blocking(move || {
            let _place = place;
            weighed(&of_it)
        })
        .await;
        let weight =
            weight.map_err(|error| if error.is_panic() { EngineError::failed() } else { EngineError::Stopped })??;
        self.shared.compiler.compile(namespace, digest, wasm, weight).await
    }

    /// Gives a namespace no turn at the compiler.
    #[cfg(test)]
    pub(crate) fn occupy(&self, namespace: &str) {
        self.shared.compiler.occupy(namespace);
    }

    /// Components in memory that wait for the compiler.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.shared.compiler.waiting()
    }

    /// Maps an artifact that this node compiled. The caller keeps artifacts in a folder that only this user may write,
    /// under [`Engine::compatibility_hash`].
    pub fn load(&self, path: &Path) -> Result<Component, EngineError> {
        artifact::load(&self.shared.engine, path).map_err(|e| EngineError::Load(format!("{e:#}")))
    }

    /// Names what an artifact depends on: engine version, configuration, CPU features. Part of the artifact's path.
    pub fn compatibility_hash(&self) -> &str {
        &self.shared.hash
    }

    /// Guests that may exist at once; 0 if they are allocated on demand.
    pub fn slots(&self) -> u32 {
        self.shared.slots
    }

    pub(super) fn raw(&self) -> &wasmtime::Engine {
        &self.shared.engine
    }

    pub(super) fn ticker(&self) -> &Ticker {
        &self.shared.ticker
    }
}

/// Compiles with what a person needs to know in one line.
pub(super) fn compile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<Vec<u8>, EngineError> {
    engine.precompile_component(wasm).map_err(|e| EngineError::Compile(format!("{e:#}")))
}

fn start() -> Result<(wasmtime::Engine, u32), EngineError> {
    for slots in SLOTS {
        let mut config = base();
        config.allocation_strategy(pool(slots));
        match wasmtime::Engine::new(&config) {
            Ok(engine) => {
                if slots != SLOTS[0] {
                    tracing::info!(slots, "the address space is small: fewer guests can run at once");
                }
                return Ok((engine, slots));
            }
            Err(error) => tracing::debug!(slots, %error, "no pool of this size"),
        }
    }
    tracing::warn!("no pool of guest memory on this machine: guests start slower, from memory mapped on demand");
    wasmtime::Engine::new(&base()).map(|engine| (engine, 0)).map_err(EngineError::Start)
}

/// What decides the generated code; the same whether or not there is a pool, so that artifacts stay valid.
fn base() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .parallel_compilation(false)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES));
    config
}

/// Slots count core instances and memories: a Rust component has one to three, a Go one four or five.
fn pool(slots: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(4))
        .total_memories(slots)
        .total_tables(slots.saturating_mul(2))
        .total_stacks(slots.saturating_mul(2))
        .max_memory_size(4 << 30)
        .max_core_instances_per_component(64)
        .max_memories_per_component(16)
        .max_tables_per_component(32)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(16 << 10);
    pool
}

/// Feeds [`Hash`] into SHA-256, which, unlike the standard hasher, is the same in every build.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |n, byte| (n << 8) | u64::from(*byte))
    }
}

fn hash_of(engine: &wasmtime::Engine) -> String {
    let mut sha = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sha);
    format!("{:016x}", sha.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_would_take_the_compiler_gigabytes_is_refused_before_it_begins() {
        let engine = Engine::new().unwrap();
        let read = |at| format!("(loop (br_if 0 (local.get {0})) (local.set {0} (i32.const 1)))", at % 1000);
        let body = (0..3000).map(read).collect::<Vec<_>>().concat();
        let text = format!("(component (core module (func (local{}) {body})))", " i32".repeat(1000));
        let refused = engine.compile_in_turn("a", "heavy", wat::parse_str(text).unwrap().into()).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "not a component this node can compile: its heaviest function needs about 1504 MiB of memory, more than 1024; build it \
            with optimisation, if it was not"
        );
        engine.compile_in_turn("a", "light", wat::parse_str("(component)").unwrap().into()).await.unwrap();
    }

    #[tokio::test]
    async fn what_would_take_the_compiler_all_memory_or_its_stack_is_refused() {
        let engine = Engine::new().unwrap();
        let refused = async |text: &str| {
            let wasm = wat::parse_str(text).unwrap().into();
            engine.compile_in_turn("a", "made for it", wasm).await.unwrap_err().to_string()
        };
        let nested = (0..10).fold("(component)".to_owned(), |inner, _| {
            let inner = inner.replacen("(component", "(component $inner", 1);
            format!("(component {inner} {})", "(instance (instantiate $inner))".repeat(10))
        });
        let told = refused(&nested).await;
        assert!(told.ends_with("the components that it is made of come to more than 1048576 parts"), "{told}");

        let deep = (1..50_000).map(|at| format!("(type $t{at} (tuple $t{}))", at - 1)).collect::<Vec<_>>().concat();
        let told = refused(&format!("(component (type $t0 (tuple u8)) {deep})")).await;
        assert!(told.contains("type nesting is too deep"), "{told}");

        let bags = (1..900)
            .map(|at| format!(r#"(instance $i{at} (export "a" (instance $i{})))"#, at - 1))
            .collect::<Vec<_>>()
            .concat();
        let told = refused(&format!("(component (instance $i0) {bags})")).await;
        assert!(told.starts_with("not a component this node can compile: "), "{told}");
    }

    #[tokio::test]
    async fn a_component_with_longer_names_of_functions_than_compilers_make_is_refused() {
        let engine = Engine::new().unwrap();
        let named = |bytes: usize| format!("(component (core module (func ${})))", "n".repeat(bytes));
        let compile = async |bytes: usize| {
            engine.compile_in_turn("a", &bytes.to_string(), wat::parse_str(named(bytes)).unwrap().into()).await
        };
        compile(64 << 10).await.unwrap();
        let refused = compile((64 << 10) + 1).await.unwrap_err();
        assert!(refused.to_string().ends_with("a function has a name of more than 64 KiB"), "{refused}");
    }

    #[test]
    fn an_artifact_loads_in_the_engine_that_made_it() {
        let engine = Engine::new().unwrap();
        let wasm = wat::parse_str("(component)").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        std::fs::write(&path, engine.compile(&wasm).unwrap()).unwrap();
        engine.load(&path).unwrap();
    }

    #[test]
    fn what_is_not_an_artifact_does_not_load() {
        let engine = Engine::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        std::fs::write(&path, b"not code at all").unwrap();
        assert!(matches!(engine.load(&path), Err(EngineError::Load(_))));
    }

    #[test]
    fn the_hash_is_the_same_with_and_without_a_pool() {
        let pooled = Engine::new().unwrap();
        let on_demand = wasmtime::Engine::new(&base()).unwrap();
        assert_eq!(pooled.compatibility_hash(), hash_of(&on_demand));
    }

    #[test]
    fn what_is_not_wasm_is_refused_with_a_reason() {
        let error = Engine::new().unwrap().compile(b"#!/bin/sh").unwrap_err();
        assert!(error.to_string().starts_with("not a component this node can compile: "), "{error}");
    }
}
