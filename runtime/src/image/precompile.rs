//! Compilation happens once, when an image is pulled, on the engine's low-priority compiler, and is kept on disk under the
//! component's digest and the engine's compatibility hash. Only files that this module wrote are ever loaded.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::component::Component;

use super::blobs::{digests, hex_part};
use super::turns::Turns;
use crate::backend::wasm::{Engine, EngineError, componentize};

/// Why code could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrecompileError {
    /// The bytes are not Wasm, or not Wasm that this engine takes; the text says what.
    #[error("{0}")]
    Rejected(String),
    #[error("{path} cannot be written")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the compilation was interrupted")]
    Stopped,
}

/// The compiled components on disk.
#[derive(Debug)]
pub struct Precompiler {
    engine: Engine,
    folder: PathBuf,
    compiled: AtomicU64,
    /// Of namespaces: each has one component in memory at a time.
    turns: Turns,
    /// Of components: of those who have one compiled, one writes it.
    writes: Turns,
}

impl Precompiler {
    /// Opens the folder, and removes what was not written to its end.
    pub fn open(engine: Engine, folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if entry.path().extension().is_none_or(|extension| extension != "cwasm") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { engine, folder, compiled: AtomicU64::new(0), turns: Turns::default(), writes: Turns::default() })
    }

    /// How many components were compiled since the start.
    pub fn compiled(&self) -> u64 {
        self.compiled.load(Ordering::Relaxed)
    }

    /// The files of a component's code, made by this engine and by others.
    pub(super) fn files(&self, digest: &str) -> Vec<PathBuf> {
        let (Ok(name), Ok(entries)) = (hex_part(digest), std::fs::read_dir(&self.folder)) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let named = |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        paths.filter(named).collect()
    }

    /// The digests of all components whose code is here.
    pub(super) fn all(&self) -> HashSet<String> {
        digests(&self.folder)
    }

    /// The component of this digest, from disk if it was compiled before by an engine like this one; otherwise `wasm`
    /// gives its bytes, and it is compiled in the turn of a namespace that wants it.
    pub async fn component<E: From<PrecompileError>>(
        &self,
        namespace: &str,
        digest: &str,
        wasm: impl Future<Output = Result<Vec<u8>, E>>,
    ) -> Result<Component, E> {
        let name = hex_part(digest).map_err(|error| PrecompileError::Rejected(error.to_string()))?;
        let path = self.folder.join(format!("{name}-{}.cwasm", self.engine.compatibility_hash()));
        if let Some(component) = self.compiled_before(&path).await {
            return Ok(component);
        }
        let turn = self.turns.of(namespace);
        let _turn = turn.lock().await;
        // Another namespace may have wanted it as well, and had its turn.
        if let Some(component) = self.compiled_before(&path).await {
            return Ok(component);
        }
        let component = adapt(wasm.await?).await?;
        let code = self.engine.compile_in_turn(namespace, digest, component.into()).await;
        let code = code.map_err(|error| rejected(&error))?;
        let write_turn = self.writes.of(digest);
        let _write_turn = write_turn.lock().await;
        if let Some(component) = self.compiled_before(&path).await {
            return Ok(component);
        }
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let to = path.clone();
        blocking(move || write(&code, &to)).await?;
        Ok(self.load(&path).await?)
    }

    async fn compiled_before(&self, path: &Path) -> Option<Component> {
        if !path.exists() {
            return None;
        }
        let loaded = self.load(path).await.inspect_err(|error| {
            tracing::warn!(%error, path = %path.display(), "a compiled component cannot be loaded; compiling again");
        });
        loaded.ok()
    }

    async fn load(&self, path: &Path) -> Result<Component, PrecompileError> {
        let (engine, path) = (self.engine.clone(), path.to_owned());
        blocking(move || engine.load(&path).map_err(|error| rejected(&error))).await
    }
}

fn rejected(error: &dyn std::fmt::Display) -> PrecompileError {
    PrecompileError::Rejected(error.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrecompileError> + Send + 'static,
) -> Result<T, PrecompileError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        if error.is_panic() { Err(rejected(&EngineError::failed())) } else { Err(PrecompileError::Stopped) }
    })
}

/// Makes a component of what was pulled.
async fn adapt(wasm: Vec<u8>) -> Result<Vec<u8>, PrecompileError> {
    if wasmparser::Parser::is_component(&wasm) {
        Ok(wasm)
    } else if wasmparser::Parser::is_core_wasm(&wasm) {
        blocking(move || componentize(&wasm).map_err(|error| rejected(&error))).await
    } else {
        Err(PrecompileError::Rejected(
            "it is not WebAssembly: the file is neither a component nor a core module".into(),
        ))
    }
}

/// Writes the code, whole or not at all.
fn write(code: &[u8], to: &Path) -> Result<(), PrecompileError> {
    let failed = |source| PrecompileError::Io { path: to.to_owned(), source };
    let partial = to.with_extension(format!("{:x}", rand::random::<u64>()));
    let written = std::fs::write(&partial, code)
        .and_then(|()| std::fs::File::open(&partial)?.sync_all())
        .and_then(|()| std::fs::rename(&partial, to));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(failed)
}
